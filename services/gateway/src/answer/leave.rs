//! What lets a stream go on. A request is over in a moment; a stream outlives whatever was true when it began.

use std::sync::Arc;

use mtls::PeerIdentity;
use tokio_util::sync::CancellationToken;

use super::Asked;
use crate::{app::App, caller::still_counts};

/// The leave that a stream was given.
pub(super) struct Leave {
    app: Arc<App>,
    peer: Option<PeerIdentity>,
    drain: CancellationToken,
    term: CancellationToken,
}

impl Leave {
    /// That of the request which opens the stream.
    pub(super) fn of(asked: &Asked) -> Self {
        Self {
            app: asked.app.clone(),
            peer: asked.caller.peer.clone(),
            drain: asked.connection.drain.clone(),
            term: asked.term.clone(),
        }
    }

    /// Resolves when the stream should end: its connection is asked to, or this gateway may not serve any more.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.term.cancelled() => {}
        }
    }

    /// May something be said now? Asked of everything that is said: what was found out before a lapse may be old.
    pub(super) fn stands(&self) -> bool {
        self.app.serving.still(&self.term).is_ok()
    }

    /// Does the reader's certificate still count? Asked at each heartbeat: users are removed, certificates are
    /// superseded.
    pub(super) fn reader_counts(&self) -> bool {
        still_counts(&self.app, self.peer.as_ref())
    }
}
