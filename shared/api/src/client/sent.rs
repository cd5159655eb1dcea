//! What a request carries: a document, nothing, or a byte now and then beside a stream.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// The body of a request.
pub(super) enum Sent {
    /// All of it at once.
    Whole(Full<Bytes>),
    /// A line feed at every tick, until the connection is dropped.
    Beats(Interval),
}

impl Sent {
    /// A document, or nothing.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }

    /// Beats, the first one after this time.
    pub(super) fn beats(every: Duration) -> Self {
        let mut interval = tokio::time::interval_at(Instant::now() + every, every);
        // One that comes late stands for those that were missed.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Beats(interval)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Pin::new(bytes).poll_frame(cx),
            Self::Beats(interval) => interval
                .poll_tick(cx)
                .map(|_| Some(Ok(Frame::data(Bytes::from_static(b"\n"))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_end_stream(),
            Self::Beats(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => bytes.size_hint(),
            Self::Beats(_) => SizeHint::new(),
        }
    }
}
