//! What comes next: a screen and a key, or an answer, give the next screen and what is to be done. No input, no
//! output, no clock: the control plane decides what is legal, this only knows what was asked.

use api::{
    command::CommandAnswer,
    plan::Plan,
    shape::{AuthorityStatusDoc, Status, WatchLine},
};
use domain::{
    Answer, AuthorityType, Phase, Position, Timestamp,
    command::{Expectation, Mode},
};

use super::keys::Key;
use crate::{
    command::{
        rotate,
        wait::{Target, Verdict, verdict},
    },
    failure::Exit,
};
use parts::edit;
pub(super) use parts::{Effect, Note, Order, Pick, Planned, Step};

mod parts;

/// What is on the screen.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Screen {
    /// The authorities of the cluster.
    Choose(Pick),
    /// The control plane was asked how this authority stands, or for the plan of a step.
    Asking,
    /// The fleet, live, and the steps that are legal now.
    Steps(Pick),
    /// The plan of a step, and why it is made.
    Reason(Box<Planned>, String),
    /// The last word before it is sent.
    Confirm(Box<Planned>, Option<String>, String),
    /// Sent; the answer is not there yet.
    Sending(Step),
    /// Accepted; until everybody is there.
    Waiting {
        /// What for.
        target: Target,
        /// Since when.
        since: Timestamp,
        /// Lines of before the answer say nothing.
        after: Position,
    },
}

/// The whole state.
#[derive(Debug)]
pub(super) struct Guided {
    /// What is on the screen.
    pub(super) screen: Screen,
    /// Counts the screens.
    pub(super) serial: u32,
    /// The cluster as it was seen last.
    pub(super) status: Status,
    /// The authority that was chosen.
    pub(super) authority: Option<AuthorityType>,
    /// The plan of all its next steps.
    pub(super) plan: Option<Plan>,
    /// The newest line of the watch.
    pub(super) line: Option<WatchLine>,
    /// Said above the next screen.
    pub(super) notes: Vec<Note>,
    /// Was a step accepted?
    pub(super) accepted: bool,
    reason: Option<String>,
    refused: bool,
    looking: bool,
}

impl Guided {
    /// Begins with the list of authorities; `reason` is what the command line gave.
    pub(super) fn new(status: Status, reason: Option<String>) -> Self {
        let mut guided = Self {
            screen: Screen::Asking,
            serial: 0,
            status,
            authority: None,
            plan: None,
            line: None,
            notes: Vec::new(),
            accepted: false,
            reason,
            refused: false,
            looking: false,
        };
        guided.choose();
        guided
    }

    /// The authorities that can be rotated: those that have keys.
    pub(super) fn choices(&self) -> Vec<&AuthorityStatusDoc> {
        let all = self.status.authorities.iter();
        all.filter(|authority| !authority.keys.is_empty()).collect()
    }

    /// The steps that are legal from this phase, the way back last.
    pub(super) fn steps(phase: Phase) -> Vec<Step> {
        let by_hand = |phase| Step {
            phase,
            automatic: false,
        };
        let mut steps: Vec<Step> = phase.legal_targets().map(by_hand).collect();
        steps.sort_by_key(|step| step.phase == Phase::Rollback);
        let begins = steps.iter().copied().find(|step| step.phase == Phase::Init);
        steps.extend(begins.map(|step| Step {
            automatic: true,
            ..step
        }));
        steps
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: Key, now: Timestamp) -> Effect {
        match key {
            Key::Interrupt => return Effect::Leave(Exit::Interrupted),
            Key::Escape | Key::End => return self.quit(),
            Key::Char(_) | Key::Enter | Key::Backspace | Key::Clear | Key::Up | Key::Down => {}
        }
        let screen = std::mem::replace(&mut self.screen, Screen::Asking);
        match screen {
            Screen::Choose(pick) => self.key_choose(pick, key),
            Screen::Steps(pick) => self.key_steps(pick, key, now),
            Screen::Reason(planned, typed) => self.key_reason(planned, typed, key),
            Screen::Confirm(planned, reason, typed) => self.key_confirm(planned, reason, typed, key),
            Screen::Waiting { .. } if key == Key::Char('s') => self.look(),
            Screen::Asking | Screen::Sending(_) | Screen::Waiting { .. } => {
                self.screen = screen;
                if key == Key::Char('q') {
                    self.quit()
                } else {
                    Effect::Nothing
                }
            }
        }
    }

    fn key_choose(&mut self, mut pick: Pick, key: Key) -> Effect {
        if key == Key::Enter {
            let chosen = self
                .choices()
                .get(pick.at)
                .map(|authority| authority.authority_type);
            if let Some(authority) = chosen {
                self.authority = Some(authority);
                (self.plan, self.line) = (None, None);
                return self.look();
            }
        }
        pick.key(key);
        self.screen = Screen::Choose(pick);
        if key == Key::Char('q') {
            self.quit()
        } else {
            Effect::Nothing
        }
    }

    fn key_steps(&mut self, mut pick: Pick, key: Key, now: Timestamp) -> Effect {
        let step = Self::steps(self.phase()).get(pick.at).copied();
        match (key, self.authority, step) {
            (Key::Enter, Some(authority), Some(step)) => {
                self.begin(Screen::Asking);
                return Effect::Plan(authority, step);
            }
            (Key::Char('b'), ..) => {
                self.choose();
                return Effect::Nothing;
            }
            (Key::Char('w'), ..) if self.phase() != Phase::Standby => {
                let is_automatic = self.plan.as_ref().and_then(|plan| plan.mode) == Some(Mode::Automatic);
                let phase = Target::Phase(self.phase());
                return self.wait(if is_automatic { Target::End } else { phase }, now, Position(0));
            }
            _ => pick.key(key),
        }
        self.screen = Screen::Steps(pick);
        if key == Key::Char('q') {
            self.quit()
        } else {
            Effect::Nothing
        }
    }

    fn key_reason(&mut self, planned: Box<Planned>, mut typed: String, key: Key) -> Effect {
        if key != Key::Enter {
            edit(&mut typed, key);
            self.screen = Screen::Reason(planned, typed);
            return Effect::Nothing;
        }
        let reason = typed.trim();
        if reason == "q" {
            self.screen = Screen::Reason(planned, typed);
            return self.quit();
        }
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        self.begin(Screen::Confirm(planned, reason, String::new()));
        Effect::Nothing
    }

    fn key_confirm(
        &mut self,
        planned: Box<Planned>,
        reason: Option<String>,
        mut typed: String,
        key: Key,
    ) -> Effect {
        let step = planned.step;
        if key != Key::Enter {
            edit(&mut typed, key);
            self.screen = Screen::Confirm(planned, reason, typed);
            return Effect::Nothing;
        }
        let Some(authority) = self.authority else {
            return self.quit();
        };
        match typed.trim() {
            "q" => {
                self.screen = Screen::Confirm(planned, reason, typed);
                self.quit()
            }
            word if word == step.word() => {
                self.reason.clone_from(&reason);
                self.begin(Screen::Sending(step));
                Effect::Send(Order {
                    authority,
                    step,
                    reason,
                    expects: planned.expects,
                })
            }
            _ => {
                self.note("Not confirmed: nothing was sent.\n");
                self.look()
            }
        }
    }

    /// Status and plan of the chosen authority came.
    pub(super) fn looked(&mut self, status: Status, plan: Plan) -> Effect {
        self.looking = false;
        if self.authority != Some(plan.authority_type) {
            return Effect::Nothing;
        }
        let moved = self
            .plan
            .as_ref()
            .is_some_and(|before| before.phase != plan.phase);
        (self.status, self.plan) = (status, Some(plan));
        match &self.screen {
            Screen::Asking => {
                let steps = Self::steps(self.phase()).len();
                self.begin(Screen::Steps(Pick::new(0, steps)));
            }
            Screen::Steps(_) if moved => {
                self.note(&format!(
                    "The rotation has gone on meanwhile: it is in {}.\n",
                    self.phase()
                ));
                let steps = Self::steps(self.phase()).len();
                self.begin(Screen::Steps(Pick::new(0, steps)));
            }
            Screen::Steps(_)
            | Screen::Choose(_)
            | Screen::Reason(..)
            | Screen::Confirm(..)
            | Screen::Sending(_)
            | Screen::Waiting { .. } => {}
        }
        Effect::Nothing
    }

    /// The plan of a step came, and the status that it stands on.
    pub(super) fn planned(&mut self, step: Step, status: Status, plan: Plan) -> Effect {
        let authority = plan.authority_type;
        if self.screen != Screen::Asking || self.authority != Some(authority) {
            return Effect::Nothing;
        }
        let expects = Expectation {
            phase: plan.phase,
            ..rotate::expectation(&status, authority).unwrap_or_default()
        };
        if !Self::steps(plan.phase).contains(&step) {
            self.note(&format!(
                "The rotation has gone on meanwhile: it is in {}. Nothing was sent.\n",
                plan.phase
            ));
            return self.look();
        }
        self.status = status;
        let typed = self.reason.clone().unwrap_or_default();
        let planned = Box::new(Planned { step, plan, expects });
        self.begin(Screen::Reason(planned, typed));
        Effect::Nothing
    }

    /// Puts a line into the picture of a wait, before it is judged. Is there one?
    pub(super) fn sees(&mut self, line: &WatchLine) -> bool {
        let is_of = self.authority == Some(line.authority_type);
        match self.screen {
            Screen::Waiting { after, .. } if is_of && line.position >= after => {
                self.line = Some(line.clone());
                true
            }
            _ => false,
        }
    }

    /// The watch has a line.
    pub(super) fn watched(&mut self, line: WatchLine) -> Effect {
        if self.authority != Some(line.authority_type) {
            return Effect::Nothing;
        }
        match self.screen {
            Screen::Waiting { target, since, .. } => {
                if self.sees(&line) {
                    return self.waited(target, since);
                }
                Effect::Nothing
            }
            Screen::Steps(_) => {
                let says = |line: &WatchLine| (line.phase, line.mode, line.next_refused);
                let news = self
                    .line
                    .as_ref()
                    .is_none_or(|before| says(before) != says(&line));
                let moved = line.phase != self.phase();
                self.line = Some(line);
                if !(news || moved) || self.looking {
                    return Effect::Nothing;
                }
                self.looking = true;
                self.authority.map_or(Effect::Nothing, Effect::Look)
            }
            Screen::Choose(_)
            | Screen::Asking
            | Screen::Reason(..)
            | Screen::Confirm(..)
            | Screen::Sending(_) => {
                self.line = Some(line);
                Effect::Nothing
            }
        }
    }

    /// Is what was waited for there?
    fn waited(&mut self, target: Target, since: Timestamp) -> Effect {
        let Some(line) = self.line.clone() else {
            return Effect::Nothing;
        };
        match verdict(target, &line) {
            Verdict::Waiting => Effect::Nothing,
            Verdict::Done => {
                let is_over = line.phase == Phase::Standby;
                self.notes.push(Note::Reached(Box::new(line), since));
                if is_over {
                    Effect::Leave(Exit::Done)
                } else {
                    self.look()
                }
            }
            Verdict::Passed => {
                self.note(&format!(
                    "The rotation has gone on meanwhile: it is in {}.\n",
                    line.phase
                ));
                self.look()
            }
            Verdict::Never(why) => {
                self.note(&format!("{} CA: {why}.\n", line.authority_type));
                self.look()
            }
        }
    }

    /// The command was accepted; `said` is its answer in words.
    pub(super) fn answered(&mut self, answer: &CommandAnswer, said: &str, now: Timestamp) -> Effect {
        (self.accepted, self.refused) = (true, false);
        self.note(said);
        let (target, is_new) = match &answer.answer {
            Answer::Phase {
                mode: Some(Mode::Automatic),
                noop,
                ..
            } => (Target::End, !noop),
            Answer::Phase { phase, noop, .. } => (Target::Phase(*phase), !noop),
            Answer::Token { .. }
            | Answer::Joined { .. }
            | Answer::Authorized { .. }
            | Answer::Revoked { .. }
            | Answer::Done
            | Answer::Noop { .. } => (Target::Current, false),
        };
        if !is_new {
            return self.look();
        }
        self.wait(target, now, answer.position)
    }

    fn wait(&mut self, target: Target, since: Timestamp, after: Position) -> Effect {
        self.line = self.line.take().filter(|line| line.position >= after);
        self.begin(Screen::Waiting { target, since, after });
        self.waited(target, since)
    }

    /// The command was refused; `page` says why.
    pub(super) fn refused(&mut self, page: &str) -> Effect {
        self.refused = true;
        self.note(page);
        self.look()
    }

    /// The phase that was seen last.
    pub(super) fn phase(&self) -> Phase {
        self.plan.as_ref().map_or(Phase::Standby, |plan| plan.phase)
    }

    fn choose(&mut self) {
        let choices = self.choices();
        let chosen = |of: &&AuthorityStatusDoc| Some(of.authority_type) == self.authority;
        let rotates = |of: &&AuthorityStatusDoc| of.rotation.phase != Phase::Standby;
        let at = choices.iter().position(chosen);
        let at = at.or_else(|| choices.iter().position(rotates)).unwrap_or(0);
        let pick = Pick::new(at, choices.len());
        self.authority = None;
        self.begin(Screen::Choose(pick));
    }

    fn look(&mut self) -> Effect {
        self.begin(Screen::Asking);
        self.looking = true;
        self.authority.map_or(Effect::Nothing, Effect::Look)
    }

    /// A person has enough: that is no failure, but whoever was refused last has not got what was asked for.
    fn quit(&self) -> Effect {
        Effect::Leave(match self.screen {
            Screen::Waiting { .. } => Exit::NotYet,
            _ if self.refused => Exit::Refused,
            _ => Exit::Done,
        })
    }

    fn begin(&mut self, screen: Screen) {
        self.serial += 1;
        self.screen = screen;
    }

    fn note(&mut self, text: &str) {
        self.notes.push(Note::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests;
