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

/// How often the administrator's identity is looked at without a phase event, at the least.
const IDENTITY_EVERY: Duration = Duration::from_secs(15 * 60);

/// Writes the address into the administrator's identity file. One that is not there is no reason not to serve:
/// it can be made anew, and only while a control plane or this host can be asked.
pub(super) async fn name_server(path: &Path, url: &str) -> Result<(), PlaneError> {
    if !path.exists() {
        let dir = path.parent().unwrap_or(Path::new(".")).display();
        let path = path.display();
        tracing::warn!("there is no {path}; make a new one with: carousel recover --data-dir {dir}");
        return Ok(());
    }
    cli::identity::update(path, |found| {
        let differs = found.server != url;
        url.clone_into(&mut found.server);
        differs
    })
    .await?;
    Ok(())
}

/// Often enough for the half of a short life to be noticed: a quarter of it, and never less than a second.
fn look_every(user_ttl_ms: u64) -> Duration {
    let quarter = Duration::from_millis(user_ttl_ms / 4);
    quarter.clamp(Duration::from_secs(1), IDENTITY_EVERY)
}

/// Keeps the administrator's identity current: at each phase event of the types that it depends on, and at half
/// its life. Renewed and used once, so that a rotation of `user` does not wait for it.
pub(super) async fn keep(path: PathBuf, fold: Fold, now: Now, stop: CancellationToken) {
    let mut events = fold.events();
    loop {
        // Moved away: there is nothing to keep until somebody makes a new one.
        if path.exists()
            && let Err(error) = cli::connect::keep_alive(&path, now.clone()).await
        {
            tracing::warn!(%error, path = %path.display(), "the administrator's identity could not be renewed yet");
        }
        let every = look_every(fold.read(|state| state.settings().user_ttl_ms));
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => break,
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

#[cfg(test)]
mod tests {
    use domain::time::{HOUR_MS, MINUTE_MS};

    use super::*;

    #[test]
    fn an_identity_is_looked_at_before_half_of_its_life_is_over() {
        assert_eq!(look_every(12 * HOUR_MS), Duration::from_secs(15 * 60));
        assert_eq!(look_every(2 * MINUTE_MS), Duration::from_secs(30));
        assert_eq!(look_every(0), Duration::from_secs(1));
    }
}
