//! What the state is made of: steps, choices, and what is to be done.

use api::{plan::Plan, shape::WatchLine};
use domain::{AuthorityType, Phase, Timestamp, command::Expectation};

use crate::{failure::Exit, guided::keys::Key};

/// A step that can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// The phase that it enters.
    pub(crate) phase: Phase,
    /// It begins a rotation whose further steps are made by the control plane.
    pub(crate) automatic: bool,
}

impl Step {
    /// What is typed to confirm it.
    pub(crate) fn word(self) -> &'static str {
        if self.automatic {
            "automatic"
        } else {
            self.phase.name()
        }
    }

    /// The phase up to which its plan goes.
    pub(crate) fn until(self) -> Option<Phase> {
        (!self.automatic).then_some(self.phase)
    }
}

/// What a phase command asks for, when it was confirmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    /// Which authority.
    pub(crate) authority: AuthorityType,
    /// Which step.
    pub(crate) step: Step,
    /// Why.
    pub(crate) reason: Option<String>,
    /// What was shown: another state is refused.
    pub(crate) expects: Expectation,
}

/// What is to be done, beside drawing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// Ask for status and plan of the authority, and watch it.
    Look(AuthorityType),
    /// Ask for status, and the plan of this step.
    Plan(AuthorityType, Step),
    /// Send the command.
    Send(Order),
    /// End.
    Leave(Exit),
}

/// One choice among several, by number or arrow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pick {
    /// Which is marked, from 0.
    pub(crate) at: usize,
    /// How many there are.
    pub(crate) of: usize,
    /// Were digits typed last? Then another one may belong to the same number.
    typing: bool,
}

impl Pick {
    pub(crate) fn new(at: usize, of: usize) -> Self {
        Self {
            at: at.min(of.saturating_sub(1)),
            of,
            typing: false,
        }
    }

    pub(crate) fn key(&mut self, key: Key) {
        match key {
            Key::Up => *self = Self::new(self.at.saturating_sub(1), self.of),
            Key::Down => *self = Self::new(self.at + 1, self.of),
            Key::Char(c) => {
                let Some(digit) = c.to_digit(10).and_then(|d| usize::try_from(d).ok()) else {
                    return;
                };
                let longer = if self.typing {
                    (self.at + 1) * 10 + digit
                } else {
                    digit
                };
                let number = [longer, digit].into_iter().find(|n| (1..=self.of).contains(n));
                if let Some(number) = number {
                    (self.at, self.typing) = (number - 1, true);
                }
            }
            Key::Backspace | Key::Clear => self.typing = false,
            Key::Enter | Key::Escape | Key::Interrupt | Key::End => {}
        }
    }
}

/// A step with its plan and with what the plan stands on.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Planned {
    pub(crate) step: Step,
    pub(crate) plan: Plan,
    pub(crate) expects: Expectation,
}

/// Something to be said above the next screen.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Note {
    /// As it is.
    Text(String),
    /// Everybody has reached what was waited for since then.
    Reached(Box<WatchLine>, Timestamp),
}

/// A key in a line that is typed.
pub(super) fn edit(typed: &mut String, key: Key) {
    match key {
        Key::Char(c) => typed.push(c),
        Key::Backspace => drop(typed.pop()),
        Key::Clear => typed.clear(),
        Key::Enter | Key::Up | Key::Down | Key::Escape | Key::Interrupt | Key::End => {}
    }
}
