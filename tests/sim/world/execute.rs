//! A command becomes events, or does not: with everything that can go wrong between two durable acts.

use domain::decide::again::again;

use super::*;
use crate::{invariants, sabotage::Sabotage};

impl World {
    /// A command becomes events, or does not: fold, decide, append, answer; with everything that can go
    /// wrong between two of these.
    pub fn execute(&mut self, command: &Command) -> Outcome {
        let Some(o) = self.some_orchestrator() else {
            return Outcome::Silence;
        };
        let is_step = matches!(command.order, Order::Rotate(_) | Order::ScheduledStep { .. });
        self.asked = is_step.then(|| command.clone());
        let decided = is_step.then(|| self.as_decided(command));
        let command = decided.as_ref().unwrap_or(command);
        let (crashes, stale) = match self.faults_on {
            true => (self.knobs.crash_permille, self.knobs.stale_permille),
            false => (0, 0),
        };
        for attempt in 0..6 {
            if attempt > 0 || !self.rng.chance(stale) {
                catch_up(&mut self.orchestrators[o].state, &self.log);
            }
            self.forget_commands(o, command);
            let given = self.given(o);
            let decided_at = self.orchestrators[o].state.position;
            let decision = match decide(&self.orchestrators[o].state, command, &given) {
                Ok(decision) => decision,
                // A refusal is decided on everything that is durable, or a repeated command could get a no after a yes.
                Err(_) if self.orchestrators[o].state.position.0 < self.log.events.len() as u64 => continue,
                Err(refusal) => {
                    // The record stands on the fold as well: the same command may have been answered meanwhile.
                    if self.record_refusal(o, command, &refusal, given.now) {
                        return Outcome::No(refusal);
                    }
                    continue;
                }
            };
            if decision.facts.is_empty() {
                let position = decision.repeats.unwrap_or(decided_at);
                return yes(position, decision.answer);
            }
            if self.is_mistreated(command, Sabotage::AnswersBeforeAppend) {
                self.orchestrator_dies(o);
                let position = Position(self.log.events.len() as u64 + 1);
                return yes(position, decision.answer);
            }
            // Crash before the append: nothing happened, and nobody is told.
            if self.rng.chance(crashes) {
                self.orchestrator_dies(o);
                return Outcome::Silence;
            }
            let appended = self.append_decided(o, decision.facts, &word_of(command), given.now);
            let Some(position) = appended else { continue };
            if self.is_mistreated(command, Sabotage::ForgetsCommands) {
                return Outcome::Silence;
            }
            // Crash after the append: it is durable, and nobody is told.
            if self.rng.chance(crashes) {
                self.orchestrator_dies(o);
                return Outcome::Silence;
            }
            // The append's own answer is lost: read the tail and decide again, which finds the first answer.
            if self.rng.chance(crashes)
                && command.order.is_command()
                && command.principal != Principal::Anonymous
            {
                continue;
            }
            return yes(position, decision.answer);
        }
        Outcome::Silence
    }

    fn some_orchestrator(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.orchestrators.len())
            .filter(|o| self.orchestrators[*o].up)
            .collect();
        self.rng.pick(&up)
    }

    /// Refusals of people stand in the log; equal ones within a minute become one. False if the log moved on.
    fn record_refusal(&mut self, o: usize, command: &Command, refusal: &Refusal, time: Timestamp) -> bool {
        let state = &self.orchestrators[o].state;
        let is_person = matches!(command.principal, Principal::User(_)) && command.order.is_command();
        let is_known = state
            .commands
            .contains_key(&(command.principal.clone(), command.id));
        let is_stale = matches!(refusal.code, Code::CommandIdReused | Code::CommandIdStale);
        if !is_person || is_known || is_stale || state.cluster.is_none() {
            return true;
        }
        let refused = domain::event::CommandRefused {
            principal: command.principal.clone(),
            command: command.order.name().to_owned(),
            target: command.order.target(),
            code: refusal.code,
            text: refusal.text.clone(),
            count: 1,
            order: Some(Box::new(command.order.clone())),
        };
        let last = state.refusals.get(&domain::evolve::refusal_kind(&refused));
        if last.is_some_and(|at| time.since_ms(*at) < MINUTE as u64) {
            return true;
        }
        self.append_decided(o, vec![refused.into()], &word_of(command), time)
            .is_some()
    }

    /// Appends what an orchestrator decided on its state, and decides it again there.
    fn append_decided(
        &mut self,
        o: usize,
        facts: Vec<Fact>,
        word: &Word,
        time: Timestamp,
    ) -> Option<Position> {
        let facts = self.as_appended(facts);
        let appended = self.append(facts, word, self.orchestrators[o].state.position, time);
        self.decide_again(Actor::Orchestrator(o), appended);
        appended
    }

    /// What was just appended up to here follows from the state of whoever decided it, by its facts alone.
    pub fn decide_again(&mut self, by: Actor, appended: Option<Position>) {
        let state = match by {
            Actor::Orchestrator(o) => &self.orchestrators[o].state,
            Actor::Signer => &self.signer.state,
            Actor::Gateway(_) | Actor::Agent(_) | Actor::Operator | Actor::Chaos | Actor::Sessions => return,
        };
        let Some(end) = appended else { return };
        let events = &self.log.events[..end.0 as usize];
        // It begins behind what another one wrote, or decided on another state.
        let actor = &events[events.len() - 1].header.actor;
        let of_one =
            |event: &&Event| event.header.decided_at == Some(state.position) && event.header.actor == *actor;
        let count = events.iter().rev().take_while(of_one).count();
        let last = &events[events.len() - count..];
        let mut from = 0;
        while from < last.len() {
            match again(state, &last[from..], digest) {
                Ok(covered) => from += covered,
                Err(difference) => {
                    let detail = format!("{}: {difference}", last[from].fact.type_name());
                    return self.violate(invariants::AGAIN, detail);
                }
            }
        }
    }

    fn given(&mut self, o: usize) -> Given {
        let orchestrator = &self.orchestrators[o];
        let clock = Timestamp(self.now + orchestrator.clock_offset_ms);
        Given {
            now: orchestrator.state.now(clock),
            fresh: std::array::from_fn(|_| self.rng.uuid()),
            serials: std::array::from_fn(|_| self.rng.bytes()),
            clock_suspect: orchestrator.is_clock_suspect(clock),
            sha256: digest,
        }
    }

    /// A command of the control plane itself.
    pub fn system(&mut self, actor: SystemActor, order: Order) -> Outcome {
        let command = self.command(Principal::System(actor), order);
        self.execute(&command)
    }

    /// A command with a fresh id.
    pub fn command(&mut self, principal: Principal, order: Order) -> Command {
        let id: CommandId = self.rng.command_id(self.now);
        Command {
            id,
            principal,
            credential: None,
            digest: BodyDigest(self.rng.bytes()),
            reason: None,
            order,
        }
    }
}

fn yes(position: Position, answer: Answer) -> Outcome {
    Outcome::Yes(Answered { position, answer })
}

fn word_of(command: &Command) -> Word {
    let is_command = command.order.is_command();
    Word {
        actor: command.principal.clone(),
        credential: command.credential.clone(),
        command: is_command.then_some(CommandRef {
            id: command.id,
            digest: command.digest,
        }),
        reason: command.reason.clone(),
    }
}

/// A digest that is good enough for a world without adversaries (FNV-1a, four times).
fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (i, chunk) in out.chunks_mut(8).enumerate() {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ i as u64, |h: u64, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
        chunk.copy_from_slice(&hash.to_le_bytes());
    }
    out
}
