//! What operators ask for beside the phases: consumers, tokens, users, the clock; also without the role, or of what
//! they saw some time ago.

use domain::command::Expectation;

use super::*;

impl World {
    pub(super) fn whim(&mut self, t: AuthorityType) {
        let order = match self.rng.below(10) {
            0 => self.about_a_consumer(t, 0),
            1..4 => self.about_a_consumer(t, 1),
            4 => self.about_a_consumer(t, 2),
            5 => self.some_token().map(|token| Order::RemoveToken { token }),
            6 => {
                let p = self.rng.below(self.operators.people.len());
                let user = self.operators.people[p].name.clone();
                self.rng.chance(300).then_some(Order::RemoveUser { user })
            }
            7 => {
                let behind_ms = self.rng.span(0, 30 * MINUTE) as u64;
                Some(Order::AcceptClock { behind_ms })
            }
            8 => return self.act_without_the_role(t),
            _ => self.go_on_as_seen(t),
        };
        if let Some(order) = order {
            self.send(order);
        }
    }

    fn some_token(&mut self) -> Option<TokenId> {
        let tokens: Vec<_> = self.truth.tokens.keys().copied().collect();
        self.rng.pick(&tokens)
    }

    /// Registers, attests or withdraws; also what is there already, or is not, or is in another phase.
    fn about_a_consumer(&mut self, authority_type: AuthorityType, what: usize) -> Option<Order> {
        let names = ["okta", "ldap"];
        let consumer = names[self.rng.below(2)].parse().expect("it is a consumer name");
        let expects = self.as_seen(authority_type)?;
        Some(match what {
            0 => Order::AddConsumer {
                authority_type,
                consumer,
                owner: "somebody".into(),
                contact: String::new(),
                probe: None,
            },
            1 => Order::AttestConsumer {
                authority_type,
                consumer,
                expects,
                probed: false,
                saw: None,
            },
            _ => Order::WithdrawConsumer {
                authority_type,
                consumer,
            },
        })
    }

    /// What an operator looked at: mostly what is, now and then what was before.
    fn as_seen(&mut self, t: AuthorityType) -> Option<Expectation> {
        let of = self.truth.types.get(&t)?;
        let (rotation, phase) = (of.rotation_id(), of.phase);
        let phase = if self.rng.chance(300) {
            Phase::ALL[self.rng.below(Phase::ALL.len())]
        } else {
            phase
        };
        Some(Expectation { rotation, phase })
    }

    fn go_on_as_seen(&mut self, t: AuthorityType) -> Option<Order> {
        let expects = self.as_seen(t)?;
        let target = expects.phase.next().or(Some(Phase::Init));
        let Order::Rotate(asked) = rotate(t, target, false) else {
            return None;
        };
        Some(Order::Rotate(Rotate {
            expects: Some(expects),
            ..asked
        }))
    }

    /// Somebody who may only look, or whom nobody knows, asks for what changes something.
    fn act_without_the_role(&mut self, t: AuthorityType) {
        let auditor = self.operators.people.get(1).map(|p| p.name.clone());
        let name = auditor.unwrap_or_else(|| "nobody".parse().expect("it is a user name"));
        let order = match (self.rng.below(3), self.some_node()) {
            (0, Some(node)) => Order::RemoveNode { node },
            (1, Some(node)) => Order::ExcludeNode { node },
            _ => rotate(t, self.truth.types.get(&t).and_then(|of| of.phase.next()), true),
        };
        let command = Command {
            reason: Some("simulation".into()),
            ..self.command(Principal::User(name), order)
        };
        self.send_command(command);
    }

    /// A patient operator has every consumer say that it has followed.
    pub fn have_consumers_attest(&mut self) {
        let consumers: Vec<_> = self.truth.consumers.keys().cloned().collect();
        for (authority_type, consumer) in consumers {
            let of = &self.truth.types[&authority_type];
            let expects = of.expectation();
            if expects.rotation.is_some() {
                let _ = self.ask(Order::AttestConsumer {
                    authority_type,
                    consumer,
                    expects,
                    probed: false,
                    saw: None,
                });
            }
        }
    }
}
