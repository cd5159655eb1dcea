//! One suite for every store: what the trait promises, tried on a real one.
//!
//! `suite!(start)` makes one test of each check; `start` is a future of `Option<impl Store>`, `None` skips.

#![allow(clippy::unwrap_used, reason = "a check of a suite fails by panicking")]

use bytes::Bytes;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::{Append, NewEvent, SharedLog, Subject};

pub use self::{
    appending::*,
    doubt::*,
    following::*,
    leases::*,
    restarting::*,
    stores::{JetStreamStore, MemoryStore, SqliteStore},
};

mod appending;
mod doubt;
mod following;
mod leases;
mod restarting;
mod stores;

/// The cluster in whose name the suite writes.
pub const CLUSTER: &str = "conformance.test";

/// A place where a log is kept, fresh at the beginning of each check.
pub trait Store: Send + Sync {
    /// The log, and further handles on the same one.
    fn open(&self) -> BoxFuture<'_, SharedLog>;

    /// Ends what runs as hard as this store can be ended, and opens the log again.
    fn restart(&mut self, log: SharedLog) -> BoxFuture<'_, SharedLog>;
}

/// Makes a module's tests of all checks.
#[macro_export]
macro_rules! conformance_suite {
    ($start:expr) => {
        $crate::conformance::suite!($start;
            positions_are_gapless_and_bytes_come_back_unchanged
            a_condition_holds_or_nothing_is_stored
            conditions_stand_on_one_subject_only
            a_thousand_events_are_stored_together_or_not_at_all
            what_is_too_large_is_refused_and_leaves_nothing
            independent_appends_have_their_own_outcomes
            many_appends_at_once_keep_their_places
            concurrent_writers_have_one_winner_per_position
            a_lost_answer_is_cleared_up_without_a_second_copy
            following_begins_anywhere_and_goes_on_live
            a_follower_that_has_seen_more_than_there_is_stops
            a_restart_keeps_what_was_acknowledged
            a_follower_outlives_a_restart_or_says_that_it_ended
            a_closed_log_refuses_everything
            leases_are_renewed_and_vanish
        );
    };
    ($start:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                if let Some(mut store) = $start.await {
                    $crate::conformance::$check(&mut store).await;
                }
            }
        )*
    };
}
pub use crate::conformance_suite as suite;

/// An event with a new id, which stands in its data.
pub fn event(subject: &str, n: u64) -> NewEvent {
    let id = Uuid::from_u128(rand::random());
    let data = Bytes::from(format!(r#"{{"id":"{id}","n":{n}}}"#));
    NewEvent {
        subject: Subject::parse(subject).expect("the tests' subjects are literal"),
        id,
        data,
    }
}

/// A subject below the suite's cluster.
fn at(holder: &str) -> Subject {
    let text = format!("{}{holder}", crate::event_prefix(CLUSTER));
    Subject::parse(text).expect("the suite's subjects are literal")
}

/// An append of `count` events on one subject.
fn on(holder: &str, expected: Option<u64>, count: u64) -> Append {
    let subject = at(holder);
    let events = (0..count).map(|n| event(subject.as_str(), n)).collect();
    Append {
        subject,
        expected,
        events,
    }
}
