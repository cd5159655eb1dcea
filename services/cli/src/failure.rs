//! Why a command did not do what was asked: an exit code, a page for people, and the problem for scripts.

use api::{ClientError, Problem};

use crate::{
    connect::ConnectError,
    identity::IdentityError,
    screen::{self, refusal::Asked},
    text::Look,
};

/// How a command ends. The numbers are the contract's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done, noop included.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The control plane said no.
    Refused = 3,
    /// The control plane cannot be reached, or one side does not trust the other.
    Unreachable = 4,
    /// A wait timed out; nothing was undone.
    NotYet = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

/// What a command says instead of its answer.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For stderr.
    pub page: String,
    /// For stdout, where the format is JSON.
    pub problem: Option<Box<Problem>>,
    /// May the same command succeed later by itself? Then whoever waits tries again.
    pub passes: bool,
}

impl Failure {
    /// A command line that cannot be right.
    pub fn usage(text: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            page: format!("error: {}", text.into()),
            problem: None,
            passes: false,
        }
    }

    /// Something on this machine did not work.
    pub fn failed(text: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            page: format!("failed: {}", text.into()),
            problem: None,
            passes: false,
        }
    }

    /// What went wrong between us and the control plane.
    pub fn of(error: ConnectError, look: &Look) -> Self {
        match error {
            ConnectError::Client(ClientError::Problem(problem)) => Self::refused(problem, look),
            ConnectError::Client(ClientError::Unreachable { authority, detail }) => {
                Self::silent(screen::trust::unreachable(&authority, &detail))
            }
            ConnectError::Client(error) => Self::unreachable(screen::trust::not_our_api(&in_words(&error))),
            ConnectError::Untrusted(untrusted) => {
                Self::unreachable(screen::trust::untrusted(&untrusted, look))
            }
            ConnectError::NotAccepted {
                server,
                why,
                not_after,
            } => Self::unreachable(screen::trust::not_accepted(&server, &why, not_after, look)),
            ConnectError::Server(text) => Self::usage(text),
            ConnectError::NoServer(path) => Self::silent(screen::trust::no_server(&path)),
            ConnectError::Identity(error @ (IdentityError::None(_) | IdentityError::Nowhere)) => {
                Self::usage(error.to_string())
            }
            error @ (ConnectError::Identity(_) | ConnectError::Epoch(_)) => Self::failed(in_words(&error)),
        }
    }

    /// The control plane said no.
    pub fn refused(problem: Box<Problem>, look: &Look) -> Self {
        Self {
            exit: Exit::Refused,
            page: screen::refusal::page(&problem, Asked::default(), look),
            passes: problem.status == 429 || problem.status >= 500,
            problem: Some(problem),
        }
    }

    /// Nobody answers; somebody may, later.
    fn silent(page: String) -> Self {
        Self {
            passes: true,
            ..Self::unreachable(page)
        }
    }

    fn unreachable(page: String) -> Self {
        Self {
            exit: Exit::Unreachable,
            page,
            problem: None,
            passes: false,
        }
    }
}

/// An error with its causes in one line, each said once.
pub fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        let more = this.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = this.source();
    }
    text
}
