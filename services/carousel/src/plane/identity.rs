//! The administrator's identity file, which the control plane keeps usable.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use domain::Fact;
use execution::Fold;
use mtls::Now;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::PlaneError;

/// How often the administrator's identity is looked at without a phase event.
const IDENTITY_EVERY: Duration = Duration::from_secs(15 * 60);

/// Writes the address into the administrator's identity file.
pub(super) async fn name_server(path: &Path, url: &str) -> Result<(), PlaneError> {
    cli::identity::update(path, |found| {
        let differs = found.server != url;
        url.clone_into(&mut found.server);
        differs
    })
    .await?;
    Ok(())
}

/// Keeps the administrator's identity current: at each phase event of the types that it depends on, and at half
/// its life. Renewed and used once, so that a rotation of `user` does not wait for it.
pub(super) async fn keep(path: PathBuf, fold: Fold, now: Now, stop: CancellationToken) {
    let mut events = fold.events();
    loop {
        if let Err(error) = cli::connect::keep_alive(&path, now.clone()).await {
            tracing::warn!(%error, path = %path.display(), "the administrator's identity could not be renewed yet");
        }
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(IDENTITY_EVERY) => break,
                event = events.recv() => event,
            };
            match event {
                // A bundle follows each change of a row, and only then a new certificate can be asked for.
                Ok(event) if matches!(event.fact, Fact::AuthorityBundleSigned(_)) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}
