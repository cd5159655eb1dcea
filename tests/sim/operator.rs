//! Operators of the virtual cluster: they ask for the right things and for the wrong ones, lose answers, and ask again.

use domain::{
    AuthorityType, BodyDigest, CertDigest, Command, NodeId, Order, Phase, Principal, Refusal, SpkiPin,
    Timestamp, TokenHash, TokenId, UserName,
    access::{Grant, NamePattern, RoleName},
    command::{Answer, Answered, KeyRequest, LaggingPolicy, Mode, Rotate},
    event::LeafUse,
    id::SystemActor,
};

use crate::{
    invariants::ACKNOWLEDGED,
    net::{Actor, Msg},
    world::{MINUTE, Outcome, SECOND, World},
};

mod whims;

/// A command on its way; sent again with the same id until it is answered.
#[derive(Clone, Debug)]
pub struct Deed {
    pub command: Command,
    tries: u32,
}

/// Somebody with a certificate and no agent.
pub struct Person {
    pub name: UserName,
    keys: std::collections::BTreeSet<SpkiPin>,
    /// What the person uses now: the certificate, its issuer, and the end of its life.
    pub leaf: Option<(CertDigest, SpkiPin, Timestamp)>,
    asked: i64,
}

/// The operators.
pub struct Operators {
    pub people: Vec<Person>,
    /// Every command that was answered with yes, with the answer.
    pub acknowledged: Vec<(Command, Answered)>,
    pub last_refusal: Option<Refusal>,
    /// Do they ask for things by themselves?
    pub busy: bool,
}

impl Operators {
    /// A removed user's certificates count nothing any more, also when the name is given again.
    pub fn lose_access(&mut self, user: &UserName) {
        for person in self.people.iter_mut().filter(|p| p.name == *user) {
            person.leaf = None;
        }
    }

    pub fn new() -> Self {
        let name: UserName = "admin".parse().expect("it is a user name");
        let admin = Person {
            name,
            keys: Default::default(),
            leaf: None,
            asked: 0,
        };
        Self {
            people: vec![admin],
            acknowledged: vec![],
            last_refusal: None,
            busy: false,
        }
    }

    pub fn admin(&self) -> UserName {
        self.people[0].name.clone()
    }
}

impl World {
    /// A command of the administrator, with a reason.
    pub fn admin_command(&mut self, order: Order) -> Command {
        let principal = Principal::User(self.operators.admin());
        Command {
            reason: Some("simulation".into()),
            ..self.command(principal, order)
        }
    }

    /// Asks and waits for the answer; asks again while there is none.
    pub fn ask(&mut self, order: Order) -> Result<Answer, Refusal> {
        let command = self.admin_command(order);
        for _ in 0..50 {
            match self.execute(&command) {
                Outcome::Yes(answered) => {
                    let answer = answered.answer.clone();
                    self.acknowledge(command, answered);
                    return Ok(answer);
                }
                Outcome::No(refusal) => {
                    self.refused(&command, &refusal);
                    return Err(refusal);
                }
                Outcome::Silence => self.run_for(5 * SECOND),
            }
        }
        Err(Refusal::new(
            domain::refusal::Code::LogUnavailable,
            "nobody answers",
        ))
    }

    /// Sends a command of the administrator over the network; now and then the reason is left out.
    pub fn send(&mut self, order: Order) {
        let mut command = self.admin_command(order);
        if self.faults_on && self.rng.chance(150) {
            command.reason = None;
        }
        self.send_command(command);
    }

    fn send_command(&mut self, command: Command) {
        self.queue.send(
            &mut self.rng,
            self.now,
            Msg::Deed(Box::new(Deed { command, tries: 0 })),
        );
    }

    pub fn deed_arrives(&mut self, deed: Deed) {
        let answer_is_lost = self.faults_on && self.rng.chance(30);
        match self.execute(&deed.command) {
            Outcome::Yes(answered) if !answer_is_lost => {
                self.acknowledge(deed.command.clone(), answered);
                if self.faults_on && self.rng.chance(20) {
                    self.send_again(deed);
                }
            }
            Outcome::No(refusal) if !answer_is_lost => self.refused(&deed.command, &refusal),
            Outcome::Yes(_) | Outcome::No(_) | Outcome::Silence => self.send_again(deed),
        }
    }

    fn send_again(&mut self, deed: Deed) {
        if deed.tries < 20 {
            let at = self.now + self.rng.span(SECOND, 10 * SECOND);
            self.queue.at(
                at,
                Msg::Deed(Box::new(Deed {
                    tries: deed.tries + 1,
                    ..deed
                })),
            );
        }
    }

    /// What operators do by themselves.
    pub fn operator_tick(&mut self) {
        let next = self.now + self.rng.span(5 * SECOND, 60 * SECOND);
        self.queue.at(next, Msg::Tick(Actor::Operator));
        self.give_tokens();
        self.keep_identities();
        if !self.operators.busy {
            return;
        }
        let t = if self.rng.chance(700) {
            AuthorityType::Host
        } else {
            AuthorityType::User
        };
        let of = self.truth.types.get(&t);
        let phase = of.map(|of| of.phase).unwrap_or_default();
        let is_automatic = of
            .and_then(|of| of.rotation.as_ref())
            .is_some_and(|r| r.mode == Mode::Automatic);
        match self.rng.below(100) {
            0..45 if is_automatic && self.rng.chance(950) => {}
            0..45 => self.go_on(t, phase),
            45..49 if phase != Phase::Standby => self.send(rotate(t, Some(Phase::Rollback), false)),
            49..56 => {
                let target = Phase::ALL[self.rng.below(Phase::ALL.len())];
                let force = self.rng.chance(200);
                self.send(rotate(t, Some(target), force));
            }
            56..60 if phase != Phase::Standby => self.send(rotate(t, phase.next(), true)),
            60..66 => {
                if let Some(node) = self.some_node() {
                    self.send(Order::ExcludeNode { node });
                }
            }
            66..70 => {
                if let Some(node) = self.some_node() {
                    self.send(Order::IncludeNode { node });
                }
            }
            70..73 if self.agents.len() < 8 => {
                let at = self.now + self.rng.span(1, 30 * SECOND);
                self.new_agent(at);
            }
            73..75 => {
                if let Some(node) = self.some_node() {
                    self.send(Order::RemoveNode { node });
                }
            }
            75..78 if self.operators.people.len() < 3 => self.add_person(),
            78..92 => self.whim(t),
            _ => {}
        }
    }

    /// The next phase, or a new rotation, manual or not.
    fn go_on(&mut self, t: AuthorityType, phase: Phase) {
        if let Some(next) = phase.next() {
            self.send(rotate(t, Some(next), false));
            return;
        }
        let policies = [
            LaggingPolicy::Hold,
            LaggingPolicy::Proceed,
            LaggingPolicy::Rollback,
        ];
        let is_manual = self.rng.chance(600);
        let grace_ms = self.rng.span(9 * MINUTE, 60 * MINUTE) as u64;
        let policy = policies[self.rng.below(3)];
        self.send(Order::Rotate(Rotate {
            authority_type: t,
            target: None,
            manual: is_manual,
            grace_period_ms: (!is_manual).then_some(grace_ms),
            on_lagging: (!is_manual).then_some(policy),
            force: false,
            expects: None,
        }));
    }

    fn some_node(&mut self) -> Option<NodeId> {
        let nodes: Vec<_> = self.truth.nodes.keys().copied().collect();
        self.rng.pick(&nodes)
    }

    /// Whoever has no way in gets a token: new nodes, and those that are stranded.
    pub fn give_tokens(&mut self) {
        for i in 0..self.agents.len() {
            let a = &self.agents[i];
            let is_copy = a.disk.node.is_some_and(|node| self.owner.get(&node) != Some(&i));
            let needs_one = (a.disk.node.is_none() || a.stranded.is_some()) && !a.gone && !is_copy;
            let has_one = a.token.is_some_and(|hash| {
                let token = self
                    .truth
                    .token_hashes
                    .get(&hash)
                    .and_then(|id| self.truth.tokens.get(id));
                token.is_some_and(|t| t.expires > Timestamp(self.now))
            });
            if !needs_one || has_one {
                continue;
            }
            let names = vec![NamePattern::Exact(a.hostname.clone())];
            let grant = Grant {
                names,
                addresses: vec![],
                uses: a.uses.clone(),
            };
            let hash = TokenHash(self.rng.bytes());
            let order = Order::CreateToken {
                hash,
                grant,
                uses: 1,
                ttl_ms: 60 * MINUTE as u64,
            };
            let command = self.admin_command(order);
            if let Outcome::Yes(answered) = self.execute(&command) {
                self.acknowledge(command, answered);
                self.agents[i].token = Some(hash);
            }
        }
    }

    /// People renew their certificates before half their life is over, and use the newest.
    pub fn keep_identities(&mut self) {
        for p in 0..self.operators.people.len() {
            let holder = Principal::User(self.operators.people[p].name.clone());
            if !self.truth.users.contains_key(&self.operators.people[p].name) {
                self.let_in_again(p);
                continue;
            }
            let held = self.truth.held.get(&holder).into_iter().flatten();
            let newest = held
                .filter_map(|d| Some((d, self.truth.certificates.get(d)?)))
                .filter(|(_, c)| !c.revoked)
                .max_by_key(|(_, c)| c.position);
            let newest = newest.map(|(d, c)| (*d, c.issuer, c.not_after, c.presented.is_some()));
            if let Some((digest, issuer, not_after, presented)) = newest {
                self.operators.people[p].leaf = Some((digest, issuer, not_after));
                if !presented && self.rng.chance(400) {
                    let order = Order::PresentCredential {
                        holder: holder.clone(),
                        certificate: digest,
                    };
                    self.system(SystemActor::Host, order);
                }
            }
            let half = self.knobs.user_ttl_ms / 2;
            let now = Timestamp(self.now);
            let is_due = newest.is_none_or(|(_, _, not_after, _)| not_after.since_ms(now) < half);
            if is_due && self.now - self.operators.people[p].asked > 2 * MINUTE {
                self.renew(p, newest.is_some_and(|(_, _, not_after, _)| not_after > now));
            }
        }
    }

    fn renew(&mut self, p: usize, is_alive: bool) {
        if p > 0 && !is_alive {
            // The host's recovery is for administrators; the others are let in anew.
            let user = self.operators.people[p].name.clone();
            self.operators.people[p].asked = self.now;
            return self.send(Order::RemoveUser { user });
        }
        let spki = self.rng.key();
        let person = &mut self.operators.people[p];
        person.asked = self.now;
        person.keys.insert(spki);
        let (user, key) = (
            person.name.clone(),
            KeyRequest {
                spki,
                public_key: String::new(),
            },
        );
        let command = if is_alive {
            let (authority_type, usage) = (AuthorityType::User, LeafUse::Client);
            let order = Order::RequestCertificate {
                authority_type,
                usage,
                issuer: None,
                key,
                form: domain::authority::KeyKind::Tls,
            };
            self.command(Principal::User(user), order)
        } else {
            self.command(
                Principal::System(SystemActor::Host),
                Order::RecoverAdmin { user, key },
            )
        };
        if let Outcome::No(no) = self.execute(&command) {
            self.tell(|| format!("a person's renewal: {no}"));
        }
    }

    pub fn add_person(&mut self) {
        let n = self.operators.people.len();
        let name: UserName = format!("person{n}").parse().expect("it is a user name");
        self.let_in(name.clone());
        self.operators.people.push(Person {
            name,
            keys: Default::default(),
            leaf: None,
            asked: self.now,
        });
    }

    fn let_in(&mut self, user: UserName) {
        let key = KeyRequest {
            spki: self.rng.key(),
            public_key: String::new(),
        };
        let roles = [RoleName::Auditor].into();
        let logins = vec![];
        self.send(Order::AddUser {
            user,
            roles,
            logins,
            key,
        });
    }

    /// Whoever was removed may get in again, with the same name and a new key.
    fn let_in_again(&mut self, p: usize) {
        let waited = self.now - self.operators.people[p].asked > 2 * MINUTE;
        if self.operators.busy && waited && self.rng.chance(300) {
            let person = &mut self.operators.people[p];
            (person.asked, person.leaf) = (self.now, None);
            let user = person.name.clone();
            self.let_in(user);
        }
    }

    /// The first answer stands: at the end every acknowledged command gets it again, and nothing is appended.
    pub fn ask_everything_again(&mut self) {
        let acknowledged = std::mem::take(&mut self.operators.acknowledged);
        for (command, answered) in acknowledged {
            let before = self.log.events.len();
            match self.execute(&command) {
                Outcome::Yes(again) if again == answered && self.log.events.len() == before => {}
                Outcome::Yes(again) => {
                    let text = format!(
                        "{} was answered {answered:?}, and then {again:?}",
                        command.order.name()
                    );
                    self.violate(ACKNOWLEDGED, text);
                }
                Outcome::No(no) => {
                    let text = format!(
                        "{} was answered {answered:?}, and then refused: {no}",
                        command.order.name()
                    );
                    self.violate(ACKNOWLEDGED, text);
                }
                Outcome::Silence => {}
            }
            // The same id with another body is not the same command.
            let other = Command {
                digest: BodyDigest([0; 32]),
                ..command
            };
            if matches!(self.execute(&other), Outcome::Yes(_)) {
                self.violate(ACKNOWLEDGED, "one id was taken for two commands");
            }
        }
    }
}

/// A phase command.
pub fn rotate(authority_type: AuthorityType, target: Option<Phase>, force: bool) -> Order {
    Order::Rotate(Rotate {
        authority_type,
        target,
        manual: false,
        grace_period_ms: None,
        on_lagging: None,
        force,
        expects: None,
    })
}
