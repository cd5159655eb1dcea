//! Waiting with a deadline, and skipping with a reason.

use std::thread;
use std::time::{Duration, Instant};

/// The pause between two looks; short against everything that is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something, at most `within`.
///
/// # Panics
/// When the time is over; `what` says what never came.
pub fn deadline<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// Like [`deadline`] for a condition, with the usual patience.
///
/// # Panics
/// When it does not come true in time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    deadline(crate::PATIENCE, what, || holds().then_some(()));
}

/// Says that `test` is skipped and why, in the form that `tests/run` counts. Return from the test after it.
///
/// # Panics
/// Under `CI=true`: there every test must run.
#[expect(
    clippy::print_stdout,
    reason = "tests/run reads the line from the test's output"
)]
pub fn skip(test: &str, why: &str) {
    assert!(
        !runtime::config::in_ci(),
        "{test} would be skipped, and CI skips nothing: {why}"
    );
    println!("SKIPPED: {test}: {why}");
}
