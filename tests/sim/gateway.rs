//! Gateways of the virtual cluster: members that hold the row themselves, hand it out, and let agents in.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    BootId, CertDigest, ClusterState, Command, MemberId, NodeId, Order, Position, Principal, SpkiPin,
    Timestamp,
    authority::{AuthorityType, KeyKind},
    command::{Answer, Join, KeyRequest, Rejoin},
    decide::certificates::NOT_BEFORE_BACK_MS,
    desired::{DesiredAuthority, answers_join, desired, desired_of_member, may_hand_out},
    event::LeafUse,
    fact::{FactsByType, Seen},
    identity::{Presented, identify},
    reconcile::{Leaf, renewal_due},
    refusal::Code,
    state::{AuthorizationOutcome, Certificate},
};

use crate::{
    net::{Actor, Call, Hello, Msg, Reply},
    rng::Rng,
    world::{Outcome, SECOND, World, catch_up},
};

mod member;

/// A gateway.
pub struct Gateway {
    pub id: MemberId,
    pub up: bool,
    /// Cut off from the log and the orchestrators.
    pub cut: bool,
    pub serving: bool,
    boot: BootId,
    seq: u64,
    pub state: ClusterState,
    pub will_follow: bool,
    /// How long it is behind the log.
    pub slow_ms: i64,
    /// When the report was sent that it last read back.
    lease: i64,
    /// Its own keys, on disk.
    pub keys: BTreeSet<SpkiPin>,
    /// Its certificates, by issuer.
    pub leaves: BTreeMap<SpkiPin, Leaf>,
    asked: BTreeMap<SpkiPin, i64>,
    /// The revisions of the rows that it holds whole, since its start.
    held: BTreeMap<AuthorityType, Position>,
    /// What it has in force.
    pub facts: FactsByType,
    /// Its fold when a join again first came in: what a careless gateway would look at for the answer.
    first_seen: BTreeMap<SpkiPin, ClusterState>,
    /// What it last handed out to everybody.
    handed: Option<BTreeMap<AuthorityType, DesiredAuthority>>,
}

impl Gateway {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            id: MemberId(rng.uuid()),
            up: false,
            cut: false,
            serving: false,
            boot: BootId(rng.uuid()),
            seq: 0,
            state: ClusterState::default(),
            will_follow: false,
            slow_ms: 0,
            lease: 0,
            keys: BTreeSet::new(),
            leaves: BTreeMap::new(),
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
            facts: BTreeMap::new(),
            first_seen: BTreeMap::new(),
            handed: None,
        }
    }

    fn hands_out(&self) -> bool {
        may_hand_out(&self.state, &self.held)
    }

    /// Does TLS work between this gateway and an agent with this certificate and trust? The gateway holds
    /// server certificates of both authorities and presents the one that the client's hint names.
    pub fn accepts(&self, leaf: &Leaf, trusted: &BTreeSet<SpkiPin>, now: Timestamp) -> bool {
        let own = self.facts.get(&AuthorityType::Host);
        let lets_in = own.is_some_and(|own| own.trusted.contains(&leaf.issuer));
        let is_let_in = self
            .leaves
            .iter()
            .any(|(issuer, l)| trusted.contains(issuer) && now < l.not_after);
        lets_in && is_let_in && now < leaf.not_after
    }
}

impl World {
    /// A call of an agent arrives at a gateway.
    pub fn gateway_called(
        &mut self,
        g: usize,
        agent: usize,
        boot: BootId,
        hello: Option<Box<Hello>>,
        call: Call,
    ) {
        let gateway = &self.gateways[g];
        let is_public = matches!(call, Call::Trust);
        if !gateway.up || (!gateway.serving && !is_public) || (gateway.cut && !is_public) {
            return;
        }
        let reply = match (call, hello) {
            (Call::Trust, _) => self.hand_out_bundles(g),
            (Call::Join { spki, rejoin }, _) => self.let_join(g, agent, spki, rejoin),
            (
                Call::Recover {
                    node,
                    proven_by,
                    spki,
                },
                _,
            ) => self.let_recover(g, node, proven_by, spki),
            (
                call @ (Call::Poll | Call::Request { .. } | Call::CertifySshd { .. } | Call::Report { .. }),
                Some(hello),
            ) => self.certified_call(g, &hello, call),
            (Call::Poll | Call::Request { .. } | Call::CertifySshd { .. } | Call::Report { .. }, None) => {
                None
            }
        };
        if let Some(reply) = reply {
            let msg = Msg::Reply {
                agent,
                boot,
                reply: Box::new(reply),
            };
            self.queue.send(&mut self.rng, self.now, msg);
        }
    }

    fn certified_call(&mut self, g: usize, hello: &Hello, call: Call) -> Option<Reply> {
        let now = Timestamp(self.now);
        if !self.gateways[g].accepts(&hello.leaf, &hello.trusted, now) {
            return Some(Reply::NotKnown {
                presented: hello.leaf.spki,
            });
        }
        let uri = domain::identity::uri(
            &"sim.cluster".parse().expect("it is a DNS name"),
            &Principal::Node(hello.node),
        );
        let presented = Presented {
            authority_type: AuthorityType::Host,
            uri: &uri,
            digest: hello.digest,
        };
        let mut who = identify(&self.gateways[g].state, &presented, now);
        if who.as_ref().is_err_and(|no| no.code == Code::CertificateUnknown) {
            // It may be newer than the fold: read to the end, and look again.
            catch_up(&mut self.gateways[g].state, &self.log);
            who = identify(&self.gateways[g].state, &presented, now);
        }
        match who {
            Err(no) => Some(self.turn_away(hello, no.code)),
            Ok(_) => match call {
                Call::Poll => self.answer_poll(g, hello.node),
                Call::Request { usage, issuer, spki } => {
                    self.pass_on_request(hello, KeyKind::Tls, usage, issuer, spki)
                }
                Call::CertifySshd { issuer, spki } => {
                    self.pass_on_request(hello, KeyKind::Ssh, LeafUse::Server, issuer, spki)
                }
                Call::Report { report, says } => {
                    let seen = Seen {
                        certificate: hello.digest,
                        issuer: hello.leaf.issuer,
                        from: None,
                    };
                    let seq = report.seq;
                    let order = Order::Report {
                        node: hello.node,
                        report: *report,
                        seen,
                    };
                    let command = self.command(Principal::Node(hello.node), order);
                    if self.waits_on_its_way(&command) {
                        return None;
                    }
                    match self.execute(&command) {
                        Outcome::Yes(_) => Some(Reply::Reported { seq, says }),
                        Outcome::No(no) => {
                            self.tell(|| format!("report of {} refused: {no}", hello.node));
                            None
                        }
                        Outcome::Silence => None,
                    }
                }
                Call::Trust | Call::Recover { .. } | Call::Join { .. } => None,
            },
        }
    }

    /// Now and then a report is carried out late, or once more: after others, and after the phase it speaks of.
    fn waits_on_its_way(&mut self, command: &Command) -> bool {
        if !self.faults_on || !self.rng.chance(self.knobs.late_permille) {
            return false;
        }
        let at = self.now + self.rng.span(SECOND, 90 * SECOND);
        self.queue.at(at, Msg::Late(Box::new(command.clone())));
        self.rng.chance(500)
    }

    fn turn_away(&mut self, hello: &Hello, code: Code) -> Reply {
        self.tell(|| format!("{} turned away: {code}", hello.node));
        match code {
            Code::CertificateSuperseded => {
                self.watch_superseded(hello.node, hello.digest);
                refused("superseded", hello.digest)
            }
            Code::NodeRemoved => refused("removed", hello.digest),
            _ => Reply::NotKnown {
                presented: hello.leaf.spki,
            },
        }
    }

    /// The newest desired state as this gateway knows it, if it satisfies the rows itself.
    fn answer_poll(&mut self, g: usize, node: NodeId) -> Option<Reply> {
        let gateway = &self.gateways[g];
        let desired = desired(&gateway.state, &node).filter(|_| gateway.hands_out())?;
        let leaves = self.leaves_of(g, node);
        Some(Reply::State {
            desired: Box::new(desired),
            leaves,
        })
    }

    /// The certificates of a node that it may not have yet.
    fn leaves_of(&self, g: usize, node: NodeId) -> Vec<(Leaf, CertDigest)> {
        let state = &self.gateways[g].state;
        let held = state.held.get(&Principal::Node(node)).into_iter().flatten();
        let certificates = held
            .rev()
            .filter_map(|digest| Some((digest, state.certificates.get(digest)?)));
        // Of each kind: what sshd is given must not hide what the node is waiting for.
        let (of_sshd, own): (Vec<_>, Vec<_>) = certificates.partition(|(_, c)| c.kind == KeyKind::Ssh);
        let newest = own.into_iter().take(4).chain(of_sshd.into_iter().take(2));
        let counts = |(_, c): &(&CertDigest, &Certificate)| !c.revoked && c.not_after > Timestamp(self.now);
        newest
            .filter(counts)
            .map(|(digest, c)| (leaf_of(c), *digest))
            .collect()
    }

    fn pass_on_request(
        &mut self,
        hello: &Hello,
        form: KeyKind,
        usage: LeafUse,
        issuer: SpkiPin,
        spki: SpkiPin,
    ) -> Option<Reply> {
        let authority_type = AuthorityType::Host;
        let key = KeyRequest {
            spki,
            public_key: String::new(),
        };
        let order = Order::RequestCertificate {
            authority_type,
            usage,
            issuer: Some(issuer),
            key,
            form,
        };
        let command = self.command(Principal::Node(hello.node), order);
        match self.execute(&command) {
            Outcome::Yes(_) => Some(Reply::Accepted { spki }),
            Outcome::No(no) => {
                self.tell(|| format!("request of {} refused: {no}", hello.node));
                Some(Reply::AskAgain { spki })
            }
            Outcome::Silence => None,
        }
    }

    fn hand_out_bundles(&mut self, g: usize) -> Option<Reply> {
        let heads = self.gateways[g].state.types.iter();
        let heads = heads.filter_map(|(t, of)| Some((*t, of.bundle.as_ref()?.revision)));
        let bundles: Vec<_> = heads
            .filter_map(|head| self.bundles.get(&head).cloned())
            .collect();
        Some(Reply::Bundles(bundles))
    }

    fn let_recover(&mut self, g: usize, node: NodeId, proven_by: CertDigest, spki: SpkiPin) -> Option<Reply> {
        let key = KeyRequest {
            spki,
            public_key: String::new(),
        };
        let command = self.command(Principal::Anonymous, Order::Recover { node, proven_by, key });
        match self.execute(&command) {
            Outcome::Yes(answered) => {
                let (_, leaf, digest) = self.first_leaf(g, &answered.answer)?;
                let of = self.gateways[g].state.types.get(&AuthorityType::Host)?;
                let head = of.bundle.as_ref().filter(|b| b.revision >= of.row_position)?;
                let bundle = self.bundles.get(&(AuthorityType::Host, head.revision)).cloned()?;
                Some(Reply::Recovered {
                    leaf,
                    digest,
                    bundle: Box::new(bundle),
                })
            }
            Outcome::No(no) => {
                self.tell(|| format!("recovery of {node} refused: {no}"));
                match no.code {
                    Code::CertificateSuperseded => {
                        self.watch_superseded(node, proven_by);
                        Some(refused("superseded", proven_by))
                    }
                    Code::RecoveryRefused => Some(refused("too long away", proven_by)),
                    Code::NodeRemoved => Some(refused("removed", proven_by)),
                    _ => Some(Reply::AskAgain { spki }),
                }
            }
            Outcome::Silence => None,
        }
    }

    fn let_join(
        &mut self,
        g: usize,
        agent: usize,
        spki: SpkiPin,
        rejoin: Option<(NodeId, Option<CertDigest>)>,
    ) -> Option<Reply> {
        let token = self.agents[agent].token?;
        let hostname = self.agents[agent].hostname.clone();
        if rejoin.is_some() && !self.gateways[g].first_seen.contains_key(&spki) {
            let then = self.gateways[g].state.clone();
            self.gateways[g].first_seen.insert(spki, then);
        }
        let key = KeyRequest {
            spki,
            public_key: String::new(),
        };
        let rejoin = rejoin.map(|(node, proven_by)| Rejoin { node, proven_by });
        let command = self.command(
            Principal::Anonymous,
            Order::Join(Join {
                token,
                hostname,
                key,
                rejoin,
            }),
        );
        match self.execute(&command) {
            Outcome::Yes(answered) => {
                let (node, leaf, digest) = self.first_leaf(g, &answered.answer)?;
                let gateway = &self.gateways[g];
                let joined = gateway.state.nodes.get(&node)?.joined;
                let at_least = joined.max(answered.position);
                // Asked on every fold that it had since the request came; the first that holds the join answers.
                let folds = gateway.first_seen.get(&spki).into_iter().chain([&gateway.state]);
                let desired = folds
                    .filter_map(|fold| answers_join(fold, &node, at_least))
                    .next()
                    .filter(|_| gateway.hands_out())?;
                Some(Reply::Joined {
                    node,
                    leaf,
                    digest,
                    desired: Box::new(desired),
                })
            }
            Outcome::No(no) => {
                self.tell(|| format!("join refused: {no}"));
                match no.code {
                    Code::TokenUnknown | Code::TokenExpired | Code::TokenUsed => Some(Reply::TokenRefused),
                    _ => Some(Reply::AskAgain { spki }),
                }
            }
            Outcome::Silence => None,
        }
    }

    /// The certificate that answers a join or a recovery, once this gateway has read it in the log.
    fn first_leaf(&mut self, g: usize, answer: &Answer) -> Option<(NodeId, Leaf, CertDigest)> {
        let Answer::Joined { node, authorization } = answer else {
            return None;
        };
        catch_up(&mut self.gateways[g].state, &self.log);
        let state = &self.gateways[g].state;
        match state.settled_authorizations.get(authorization)? {
            AuthorizationOutcome::Issued(digest) => {
                Some((*node, leaf_of(state.certificates.get(digest)?), *digest))
            }
            AuthorizationOutcome::Refused(_) | AuthorizationOutcome::Voided(_) => None,
        }
    }
}

fn refused(why: &'static str, proof: CertDigest) -> Reply {
    Reply::Refused { why, proof }
}

/// A certificate as its holder has it.
pub fn leaf_of(certificate: &Certificate) -> Leaf {
    Leaf {
        usage: certificate.usage,
        issuer: certificate.issuer,
        spki: certificate.spki,
        position: certificate.position,
        not_before: certificate.issued.minus_ms(NOT_BEFORE_BACK_MS),
        not_after: certificate.not_after,
    }
}
