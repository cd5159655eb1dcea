//! Renewals before joins: a node that works must not lose its certificate because others want to begin.
//!
//! Who asks for a certificate with one that the log knows is served at once. Who joins or recovers waits for as long as
//! such requests are served, though never without end, and no more than some are served together: each is a signature and
//! a durable write, and what waits here costs nothing but its connection.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, timeout_at},
};

/// Joins that are served together.
const TOGETHER: usize = 256;
/// How long a join waits for its turn. With what may follow it stays within the time for which an agent waits.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a join whose turn it is waits for renewals. Where these never end it goes on beside them.
const COURTESY: Duration = Duration::from_secs(4);

/// Who is served, and who waits.
#[derive(Debug)]
pub(crate) struct Precedence {
    renewals: watch::Sender<usize>,
    joins: Semaphore,
}

/// A renewal that is served.
#[derive(Debug)]
pub(crate) struct Renewal<'a>(&'a watch::Sender<usize>);

/// A join whose turn it is.
pub(crate) type Turn<'a> = SemaphorePermit<'a>;

impl Default for Precedence {
    fn default() -> Self {
        Self {
            renewals: watch::Sender::new(0),
            joins: Semaphore::new(TOGETHER),
        }
    }
}

impl Precedence {
    /// A node renews, until this is dropped.
    pub(crate) fn renewal(&self) -> Renewal<'_> {
        self.renewals.send_modify(|count| *count += 1);
        Renewal(&self.renewals)
    }

    /// Waits for the turn of a join; none if it does not come in time.
    pub(crate) async fn join(&self) -> Option<Turn<'_>> {
        let began = Instant::now();
        let turn = timeout_at(began + PATIENCE, self.joins.acquire()).await.ok()?;
        let turn = turn.expect("it is never closed");
        let mut renewals = self.renewals.subscribe();
        let _ = timeout_at(Instant::now() + COURTESY, renewals.wait_for(|count| *count == 0)).await;
        Some(turn)
    }
}

impl Drop for Renewal<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_join_waits_for_the_renewals_that_are_served_and_not_without_end() {
        let precedence = Precedence::default();
        assert!(precedence.join().now_or_never().is_some(), "nobody renews");
        let renewal = precedence.renewal();
        let mut join = std::pin::pin!(precedence.join());
        assert!(join.as_mut().now_or_never().is_none(), "the renewal goes first");
        drop(renewal);
        assert!(join.now_or_never().is_some());
        let (_renewal, began) = (precedence.renewal(), Instant::now());
        assert!(precedence.join().await.is_some());
        assert_eq!(began.elapsed().as_secs(), COURTESY.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_joins_are_served_together_and_the_next_waits_its_time_out() {
        let precedence = Precedence::default();
        let mut served = vec![];
        for _ in 0..TOGETHER {
            served.extend(precedence.join().await);
        }
        assert_eq!(served.len(), TOGETHER);
        assert!(precedence.join().await.is_none());
        served.pop();
        assert!(precedence.join().await.is_some());
        let _renewal = precedence.renewal();
    }
}
