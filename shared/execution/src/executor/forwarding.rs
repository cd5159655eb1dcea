//! The executor of a process that may not write the log: it sends each command to where it is decided.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::command::Answered;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{ExecuteError, Trouble, Waiting};
use crate::{Fold, Now, forward::Forwarder};

/// Letters under way at a time; more commands wait in the queue, as they do where they are decided.
const UNDER_WAY: usize = 1_024;
/// How long this process may take to fold what was stored elsewhere.
const FOLDS_WITHIN: Duration = Duration::from_secs(5);

/// Sends commands, many at a time.
#[derive(Clone)]
pub(super) struct Forwarding {
    pub(super) fold: Fold,
    pub(super) now: Now,
    pub(super) forwarder: Forwarder,
    pub(super) clock_suspect: Arc<AtomicBool>,
    pub(super) trouble: Trouble,
}

impl Forwarding {
    /// Until the last handle is gone or shutdown; what is under way is waited for.
    pub(super) async fn run(self, mut commands: mpsc::Receiver<Waiting>, shutdown: CancellationToken) {
        let mut under_way = JoinSet::new();
        loop {
            let is_full = under_way.len() >= UNDER_WAY;
            let waiting = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = under_way.join_next(), if !under_way.is_empty() => continue,
                waiting = commands.recv(), if !is_full => waiting,
            };
            let Some(waiting) = waiting else { break };
            let own = self.clone();
            under_way.spawn(async move {
                let answered = own.deliver(&waiting).await;
                // Whoever asked may have gone: what was decided stands in the log all the same.
                let _ = waiting.answer.send(answered);
            });
        }
        commands.close();
        while under_way.join_next().await.is_some() {}
    }

    async fn deliver(&self, waiting: &Waiting) -> Result<Answered, ExecuteError> {
        let trace = waiting.traceparent.as_deref();
        let (answered, is_suspect) = self.forwarder.deliver(&waiting.command, trace).await;
        if let Some(is_suspect) = is_suspect {
            self.clock_suspect.store(is_suspect, Ordering::Relaxed);
        }
        let trouble = match &answered {
            Err(ExecuteError::Unavailable(why)) => Some(((self.now)(), why.clone())),
            Ok(_) | Err(ExecuteError::Refused(_)) => None,
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        let answered = answered?;
        // Durable, but the caller reads its own writes here: repeating the command gives the same answer later.
        let folded = self.fold.wait_for(answered.position, FOLDS_WITHIN).await;
        folded.map_err(|behind| ExecuteError::Unavailable(format!("{behind}; repeat the same command")))?;
        Ok(answered)
    }
}
