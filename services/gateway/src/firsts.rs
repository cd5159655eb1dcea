//! The first use of each certificate, on record: from it on its holder's earlier ones stop counting.
//!
//! A node's report says it by itself. But whoever has a stolen key need not report: it reads the desired state,
//! or asks for certificates, and would stay unseen for as long as it wrote nothing. So any request of a node
//! counts, and what no report has said after some seconds is written down by the gateway.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{CertDigest, ClusterState, NodeId, Order, Principal};
use execution::ExecuteError;

use crate::app::App;

/// How long a node's report may take to say it, so that an honest node costs no event of its own.
const BY_REPORT: Duration = Duration::from_secs(5);
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(1);

/// Nodes' certificates that were seen and are not on record yet. Each is one that the log knows, so there are
/// never more than certificates that nodes were given and have not used.
#[derive(Debug, Default)]
pub(crate) struct Firsts {
    seen: Mutex<HashMap<CertDigest, First>>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    node: NodeId,
    due: Duration,
}

impl Firsts {
    /// A node presented this certificate.
    pub(crate) fn saw(&self, app: &App, node: NodeId, certificate: CertDigest) {
        if app.fold.read(|state| is_new(state, certificate)) {
            let due = app.clock.monotonic().saturating_add(BY_REPORT);
            self.lock().entry(certificate).or_insert(First { node, due });
        }
    }

    /// Writes down what no report says in time, until the shutdown; then all that is left.
    ///
    /// Crash point: what was seen and is not on record is forgotten by a crash. The next request says it again.
    pub(crate) async fn run(app: Arc<App>) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = app.shutdown.cancelled() => break,
                _ = look.tick() => app.firsts.record(&app, app.clock.monotonic()).await,
            }
        }
        app.firsts.record(&app, Duration::MAX).await;
    }

    async fn record(&self, app: &App, now: Duration) {
        let due: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, first)| first.due <= now)
            .map(|(certificate, first)| (*certificate, *first))
            .collect();
        for (certificate, First { node, .. }) in due {
            if record(app, &Principal::Node(node), certificate).await {
                self.lock().remove(&certificate);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CertDigest, First>> {
        // The map is whole at every moment: each change is one call.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records that a certificate is in use, unless that is on record. False if the log did not take it: then it is
/// to be said again.
pub(crate) async fn record(app: &App, holder: &Principal, certificate: CertDigest) -> bool {
    if !app.fold.read(|state| is_new(state, certificate)) {
        return true;
    }
    let order = Order::PresentCredential {
        holder: holder.clone(),
        certificate,
    };
    let command = app
        .executor
        .own_command(Principal::Gateway(app.config.member), order);
    match app.executor.execute(command).await {
        Ok(_) => true,
        // Revoked or forgotten meanwhile: it ends nothing any more.
        Err(ExecuteError::Refused(refusal)) => {
            tracing::debug!(%refusal, %holder, "the first use of a certificate is of no account");
            true
        }
        Err(error) => {
            tracing::warn!(%error, %holder, "the first use of a certificate could not be recorded");
            false
        }
    }
}

fn is_new(state: &ClusterState, certificate: CertDigest) -> bool {
    let known = state.certificates.get(&certificate);
    known.is_some_and(|c| c.presented.is_none())
}
