//! Does the log hold together? Everything in it is read again and decided again, twice through: first the
//! records as records, then the state that they make.

use std::{collections::BTreeSet, path::Path, time::Instant};

use api::audit::{VerifyCheck, VerifyOutcome, VerifyReport};
use domain::{Position, evolve::apply};
use eventlog::EventLog;
use execution::checkpoint;

pub(super) use single::event;

use self::{ahead::Ahead, decisions::Decisions, issuance::Issuance, judge::Judge, survey::Survey};
use super::ReplayError;

mod actors;
mod ahead;
mod decisions;
mod issuance;
mod judge;
mod phases;
mod single;
mod survey;

/// Records read at once.
const BATCH: usize = 1_000;

/// Reads the whole log and checks everything in it; the file of checkpoints is the signer's, where it is at hand.
///
/// A log that does not hold together is a report, not an error.
///
/// # Errors
/// When the log cannot be read at all at this moment.
pub async fn verify(log: &dyn EventLog, checkpoints: Option<&Path>) -> Result<VerifyReport, ReplayError> {
    let began = Instant::now();
    let known = checkpoints.map(checkpoint::read_file);
    let mut survey = Survey::read(log, known).await?;
    let mut judge = Judge::new(std::mem::take(&mut survey.phases));
    let mut decisions = Decisions::new(std::mem::take(&mut survey.decisions));
    let mut issuance = Issuance::default();
    let mut state = domain::ClusterState::default();
    // What cannot be decoded ends the second reading: no state follows it.
    let mut log = Ahead::new(log, survey.decodable);
    while state.position < survey.decodable {
        decisions
            .on(&state, &mut log, &mut judge.decisions, &mut issuance)
            .await?;
        let next = Position(state.position.0 + 1);
        let Some(event) = log.from(next).await?.first() else {
            break;
        };
        judge.before(&state, event);
        issuance.before(&state, event);
        apply(&mut state, event);
        log.forget_before(next);
        if next.0.is_multiple_of(BATCH as u64) {
            issuance.check_batch().await;
        }
    }
    let (issuance, bundles) = issuance.finish().await;
    let (decisions, phases) = judge.finish(&decisions);
    let Survey {
        order,
        schema,
        writers,
        checkpoints,
        attested,
        end,
        ..
    } = survey;
    let checks: Vec<VerifyCheck> = [
        order,
        schema,
        writers,
        decisions,
        phases,
        issuance,
        bundles,
        checkpoints,
    ]
    .into_iter()
    .chain(attestations(attested))
    .map(Check::report)
    .collect();
    Ok(VerifyReport {
        cluster: state.cluster_name().map(ToString::to_string).unwrap_or_default(),
        position: end,
        seconds: began.elapsed().as_secs_f64(),
        verified: checks.iter().all(|check| check.outcome != VerifyOutcome::Failed),
        checks,
    })
}

/// Attestations are somebody's word, unsigned: that there were some is said.
fn attestations(attested: u64) -> Option<Check> {
    let text = format!("not checked: signatures of external consumers' attestations ({attested})");
    (attested > 0).then(|| Check {
        checked: attested,
        skipped: Some(text),
        ..Check::new("attestations")
    })
}

/// One check while it counts. The first failure stays; what is after it may be its consequence.
#[derive(Debug)]
struct Check {
    name: &'static str,
    checked: u64,
    failed: Option<(Option<Position>, String)>,
    skipped: Option<String>,
    text: String,
}

impl Check {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            checked: 0,
            failed: None,
            skipped: None,
            text: String::new(),
        }
    }

    /// Counts one thing that was looked at.
    fn take(&mut self, position: Position, outcome: Result<(), String>) {
        self.checked += 1;
        if let Err(why) = outcome {
            self.fail(Some(position), why);
        }
    }

    fn fail(&mut self, position: Option<Position>, why: impl Into<String>) {
        let is_earlier = self
            .failed
            .as_ref()
            .is_none_or(|(first, _)| match (position, first) {
                (Some(new), Some(old)) => new < *old,
                _ => false,
            });
        if is_earlier {
            self.failed = Some((position, why.into()));
        }
    }

    fn report(self) -> VerifyCheck {
        let (outcome, text, position) = match (self.failed, self.skipped) {
            (Some((at, why)), _) => (VerifyOutcome::Failed, why, at),
            (None, Some(why)) => (VerifyOutcome::Skipped, why, None),
            (None, None) => (VerifyOutcome::Ok, self.text, None),
        };
        VerifyCheck {
            name: self.name.into(),
            outcome,
            checked: self.checked,
            text,
            position,
        }
    }
}

/// `1 rotation`, `1,611 events`.
fn count(number: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        thousands(number),
        if number == 1 { "" } else { "s" }
    )
}

/// `1,611`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let cut: BTreeSet<usize> = (1..digits.len())
        .filter(|at| (digits.len() - at).is_multiple_of(3))
        .collect();
    digits
        .char_indices()
        .flat_map(|(at, digit)| cut.contains(&at).then_some(',').into_iter().chain([digit]))
        .collect()
}

#[cfg(test)]
mod tests;
