//! Who waits for a certificate is woken by its own event, and by no other: a fleet waits for thousands at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{AuthorizationId, Event, Fact};
use tokio::sync::oneshot;

type Waiting = HashMap<AuthorizationId, Vec<oneshot::Sender<Arc<Event>>>>;

/// Those who wait, by authorisation.
#[derive(Default)]
pub(crate) struct Settlements {
    waiting: Arc<Mutex<Waiting>>,
}

/// The event that will settle an authorisation. Dropped, it is waited for no more.
pub struct Settlement {
    authorization: AuthorizationId,
    event: oneshot::Receiver<Arc<Event>>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Settlements {
    pub(crate) fn of(&self, authorization: AuthorizationId) -> Settlement {
        let (sender, event) = oneshot::channel();
        lock(&self.waiting).entry(authorization).or_default().push(sender);
        Settlement {
            authorization,
            event,
            waiting: self.waiting.clone(),
        }
    }

    /// Called when the event is folded in.
    pub(crate) fn settle(&self, event: &Arc<Event>) {
        let authorization = match &event.fact {
            Fact::CertificateIssued(f) => f.authorization,
            Fact::CertificateRefused(f) => f.authorization,
            Fact::AuthorizationVoided(f) => f.authorization,
            _ => return,
        };
        for waiting in lock(&self.waiting).remove(&authorization).unwrap_or_default() {
            // Whoever does not wait any more is no error.
            let _ = waiting.send(event.clone());
        }
    }
}

impl Settlement {
    /// Waits for it; `None` when the fold has ended.
    pub async fn event(mut self) -> Option<Arc<Event>> {
        (&mut self.event).await.ok()
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.event.close();
        let mut waiting = lock(&self.waiting);
        if let Some(of) = waiting.get_mut(&self.authorization) {
            of.retain(|sender| !sender.is_closed());
            if of.is_empty() {
                waiting.remove(&self.authorization);
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // The map is whole at every moment: each change is one call.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
