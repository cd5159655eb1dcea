//! Reload hooks: what an administrator wants to run when new certificates lie in place.
//!
//! A hook is an argument vector, never a line for a shell, so that nothing in a name or path is ever
//! interpreted. It runs with a clean environment, in a process group of its own that ends with it.

use std::{io, process::Stdio, time::Duration};

use domain::AuthorityType;
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

/// How long a hook may run when nothing else is said.
const DEFAULT_TIMEOUT_S: u64 = 30;
/// The longest limit that may be set: the agent waits for a hook, and the gate for the agent.
const MAX_TIMEOUT_S: u64 = 300;
/// Where a hook's own programs are found.
const CLEAN_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One `[[reload]]` entry of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program (an absolute path) and arguments.
    pub command: Vec<String>,
    /// The authority types whose files it cares for; all when empty.
    #[serde(default)]
    pub types: Vec<AuthorityType>,
    /// How long it may run, in seconds.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
}

fn default_timeout_s() -> u64 {
    DEFAULT_TIMEOUT_S
}

/// Why a hook failed, in words for the person who gets the report. The report stands in the log for ever: it names
/// the program and how it ended. Arguments and what it wrote may hold secrets, and are shown nowhere.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The program could not be started.
    #[error("`{program}` could not be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// It ran and said no.
    #[error("`{program}` {how}; run it by hand to see why")]
    Failed {
        /// The program.
        program: String,
        /// `exited 1`, `was ended by signal 9`.
        how: String,
    },
    /// It was still running at its limit and was ended.
    #[error("`{program}` was still running after {after_s} s and was ended; mend it or raise its timeout_s")]
    TimedOut {
        /// The program.
        program: String,
        /// The limit.
        after_s: u64,
    },
}

impl Hook {
    /// Can this hook run at all?
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        let Some(program) = self.command.first() else {
            return Err("its command is empty; write command = ['/path/to/program', 'argument']".into());
        };
        if !program.starts_with('/') {
            // Not quoted: a whole shell line in its place may hold a secret.
            return Err(
                "its command is not an absolute path; no shell and no PATH is used to find it".into(),
            );
        }
        if !(1..=MAX_TIMEOUT_S).contains(&self.timeout_s) {
            return Err(format!("its timeout_s is not between 1 and {MAX_TIMEOUT_S}"));
        }
        Ok(())
    }

    /// Does it care for one of these types?
    pub fn concerns(&self, changed: &[AuthorityType]) -> bool {
        self.types.is_empty() || changed.iter().any(|t| self.types.contains(t))
    }

    /// Runs it once and waits for its end.
    ///
    /// # Errors
    /// [`HookError`].
    pub async fn run(&self) -> Result<(), HookError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Ok(());
        };
        let program = program.clone();
        let mut child = Command::new(&program)
            .args(arguments)
            .env_clear()
            .env("PATH", CLEAN_PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: a signal for the agent is not one for what it reloads.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| HookError::Start {
                program: program.clone(),
                source,
            })?;
        match timeout(Duration::from_secs(self.timeout_s), child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(HookError::Failed {
                program,
                how: words(status),
            }),
            Ok(Err(source)) => Err(HookError::Start { program, source }),
            Err(_elapsed) => {
                end_group(&child);
                // A child that cannot be killed is the kernel's business; it is reaped when it ends.
                let _ = child.start_kill();
                Err(HookError::TimedOut {
                    program,
                    after_s: self.timeout_s,
                })
            }
        }
    }
}

/// Ends the hook with everything that it started, which is all in the group that it leads.
fn end_group(child: &tokio::process::Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let leader = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(leader) = leader {
        // Nothing is left to do about one that has ended in this moment.
        let _ = kill_process_group(leader, Signal::KILL);
    }
}

fn words(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended without a status".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(command: &[&str], timeout_s: u64) -> Hook {
        Hook {
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            types: vec![],
            timeout_s,
        }
    }

    #[tokio::test]
    async fn a_hook_that_succeeds_is_quiet_and_one_that_fails_says_how_and_nothing_that_may_be_secret() {
        assert!(hook(&["/bin/true"], 30).run().await.is_ok());
        let failed = hook(&["/bin/sh", "-c", "echo hunter2 >&2; exit 7"], 30)
            .run()
            .await;
        let error = failed.expect_err("it exits 7");
        let message = format!("{error} {error:?}");
        assert!(message.contains("`/bin/sh` exited 7"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        let missing = hook(&["/no/such/program"], 30)
            .run()
            .await
            .expect_err("it is missing");
        assert!(
            missing
                .to_string()
                .contains("`/no/such/program` could not be started")
        );
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_ended_at_its_limit() {
        let hung = hook(&["/bin/sleep", "600"], 1).run().await.expect_err("it hangs");
        assert!(matches!(hung, HookError::TimedOut { after_s: 1, .. }), "{hung}");
    }

    #[tokio::test]
    async fn nothing_of_the_environment_and_no_shell_reaches_a_hook() {
        // `test` gets the text as it stands; a shell would have expanded it.
        assert!(
            hook(&["/usr/bin/test", "$HOME", "=", "$HOME"], 30)
                .run()
                .await
                .is_ok()
        );
        let has_home = hook(&["/bin/sh", "-c", "test -z \"$CARGO_MANIFEST_DIR\""], 30)
            .run()
            .await;
        assert!(
            has_home.is_ok(),
            "a variable of the agent's environment reached the hook"
        );
    }

    #[test]
    fn a_hook_cares_for_the_types_it_names() {
        let mut db = hook(&["/bin/true"], 30);
        assert!(db.concerns(&[AuthorityType::Host]));
        db.types = vec![AuthorityType::Db];
        assert!(
            !db.concerns(&[AuthorityType::Host]) && db.concerns(&[AuthorityType::Host, AuthorityType::Db])
        );
        assert!(hook(&["/bin/true"], 0).check().is_err());
        assert!(hook(&[], 30).check().is_err());
    }
}
