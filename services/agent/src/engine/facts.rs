//! Reports: what was measured of a generation that passed, and what keeps the node from the next one.

use domain::{
    AuthorityType, Position,
    fact::{FactReport, Failure, REPORT_INTERVAL_MS},
    reconcile::{Generation, Proof, Step, facts},
};
use std::time::Duration;

use tokio::time::Instant;

use super::{Done, Engine, host_revision};
use crate::{attempt::Attempt, config::Pace, gateway::Trouble};

/// How long a new session on the retiring issuer stands before it is reported.
const RISE_COUNTS_AFTER: Duration = Duration::from_secs(1);

/// What one report says, apart from its number: to know later what a gateway has taken.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Reportable {
    generation: Generation,
    on_retiring: bool,
    of_excluded: bool,
    failure: Option<Failure>,
    unsynced: bool,
    /// Measured now, or what was measured when this generation passed.
    is_current: bool,
}

/// What was reported, and when the next report may leave.
#[derive(Debug)]
pub(crate) struct Reporter {
    taken: Option<Reportable>,
    attempt: Attempt,
    /// What a gateway refused as said too often: the pause after it is not for changed facts.
    limited: Option<Reportable>,
    seq: u64,
    /// Since when sessions stand on the retiring issuer again after a gateway was told there were none.
    risen: Option<Instant>,
    /// Since when the report waits for a certificate.
    held: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(pace: &Pace) -> Self {
        Self {
            taken: None,
            attempt: Attempt::new(pace),
            limited: None,
            seq: 0,
            risen: None,
            held: None,
        }
    }

    /// What the plan needs to know: the generation and the flag that a gateway has taken.
    pub(super) fn reported(&self) -> Option<(Generation, bool)> {
        let taken = self.taken.as_ref().filter(|t| t.is_current)?;
        Some((taken.generation.clone(), taken.on_retiring))
    }

    /// The newest row whose facts a gateway has taken.
    pub(super) fn position(&self) -> Option<Position> {
        self.taken.as_ref().and_then(|t| host_revision(&t.generation))
    }

    /// Everything is to be said again: something changed that the plan does not see (labels).
    pub(super) fn again(&mut self) {
        self.taken = None;
    }
}

impl Reportable {
    /// Does it bring facts that the other does not? A gateway takes those at once; a failure alone has time.
    fn brings_news_since(&self, other: &Self) -> bool {
        let facts = |of: &Self| (of.on_retiring, of.of_excluded, of.unsynced);
        self.generation != other.generation || facts(self) != facts(other)
    }
}

impl Engine {
    /// Is the plan about to change what a report would say? A node that was given a new row asks for a certificate at
    /// once; where it comes as quickly, one report tells of both.
    pub(super) fn report_waits(&mut self, plan: &[Step]) -> bool {
        let is_asking = !self.asking.is_empty() || self.sshd.is_asking();
        let is_change = |step: &Step| {
            matches!(
                step,
                Step::Request { .. } | Step::CertifySshd { .. } | Step::Install(_)
            )
        };
        if !is_asking && !plan.iter().any(is_change) {
            self.report.held = None;
            return false;
        }
        let since = self.report.held.get_or_insert_with(Instant::now);
        since.elapsed() < self.config.pace.certificate_wait
    }

    /// Reports the facts of the installed generation, if it passed and a gateway can be reached.
    pub(super) fn send_report(&mut self) {
        let Some(what) = self.reportable() else { return };
        // A peer that lags may connect with its old certificate for a moment, again and again. Such a session
        // is worth a report only if it lasts; that it is gone is reported at once.
        let is_rise = self.report.taken.as_ref().is_some_and(|taken| {
            !taken.on_retiring
                && what.on_retiring
                && *taken
                    == Reportable {
                        on_retiring: false,
                        ..what.clone()
                    }
        });
        if is_rise && self.report.risen.get_or_insert_with(Instant::now).elapsed() < RISE_COUNTS_AFTER {
            return;
        }
        self.report.risen = None;
        self.send(what);
    }

    /// Reports what the plan does not know of: a failure that came or went, serving unsynced.
    pub(super) fn report_failure(&mut self) {
        let Some(what) = self.reportable() else { return };
        let is_said = match &self.report.taken {
            Some(taken) => {
                taken.failure == what.failure
                    && taken.unsynced == what.unsynced
                    && taken.of_excluded == what.of_excluded
            }
            None => what.failure.is_none(),
        };
        if !is_said {
            self.send(what);
        }
    }

    /// What a report would say now. Facts come only from a generation that passed: where the installed one
    /// did not, they are those of the last one that did, under the row that it was measured under.
    fn reportable(&self) -> Option<Reportable> {
        let is_current = self.proof == Proof::Passed;
        let generation = if is_current {
            self.installed.material.generation.clone()
        } else if self.failure.is_some() {
            let passed = self.passed.as_ref();
            passed.map(|p| p.material.generation.clone()).unwrap_or_default()
        } else {
            return None;
        };
        let have = self.have();
        let row = self.told.desired.authorities.get(&AuthorityType::Host);
        let retiring = row.and_then(|row| row.retiring);
        let stands = |issuer| have.sessions_on.contains(&issuer);
        let only_excluded = |issuer| have.only_excluded_on.contains(&issuer);
        Some(Reportable {
            generation,
            on_retiring: retiring.is_some_and(|issuer| stands(issuer) && !only_excluded(issuer)),
            of_excluded: retiring.is_some_and(|issuer| stands(issuer) && only_excluded(issuer)),
            failure: self.complaint(),
            unsynced: self.serving && !self.synced,
            is_current,
        })
    }

    /// What keeps the node from the desired state; else what keeps its applications from what they count on.
    pub(super) fn complaint(&self) -> Option<Failure> {
        let uses = || {
            let names: Vec<_> = self.ungranted.iter().map(|t| t.name()).collect();
            (!names.is_empty()).then(|| Failure {
                step: "uses".into(),
                detail: format!(
                    "the configuration uses {}, which the node's token did not grant",
                    names.join(", ")
                ),
                count: 1,
            })
        };
        self.failure
            .clone()
            .or_else(uses)
            .or_else(|| self.complaint_of_sshd())
    }

    fn send(&mut self, what: Reportable) {
        let Some(dial) = self.dial.borrow().clone() else {
            return;
        };
        let limited = self.report.limited.as_ref();
        if limited.is_some_and(|refused| what.brings_news_since(refused)) {
            self.report.attempt.hurry();
        }
        if !self.report.attempt.is_due() {
            return;
        }
        self.report.limited = None;
        self.report.attempt.start();
        self.report.seq += 1;
        let report = FactReport {
            boot: self.boot,
            seq: self.report.seq,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            addr: self.advertised(),
            authorities: facts(&what.generation, what.on_retiring, what.of_excluded),
            failure: what.failure.clone(),
            unsynced: what.unsynced,
            labels: self.config.settings.labels.clone(),
        };
        let client = dial.client(&self.config.servers[self.server]);
        self.tasks.spawn(async move {
            let result = client
                .post_only(api::route::NODE_FACTS, &report)
                .await
                .map_err(|e| Trouble::of(&e));
            Done::Reported {
                dial: dial.number,
                what: Box::new(what),
                result,
            }
        });
    }

    /// A report was taken, or not.
    pub(super) fn reported(&mut self, dial: u64, what: Reportable, result: Result<(), Trouble>) {
        match result {
            Ok(()) => {
                self.report.taken = Some(what);
                self.report.attempt.succeed();
            }
            Err(Trouble::No(domain::Code::ReportTooOften, _)) => {
                self.report.limited = Some(what);
                self.report
                    .attempt
                    .wait(Duration::from_millis(REPORT_INTERVAL_MS));
            }
            Err(trouble) => {
                self.report.attempt.fail();
                tracing::warn!(why = trouble.text(), "facts were not reported; trying again");
                self.refused_by(dial, &trouble);
            }
        }
    }

    /// Where others reach the probe endpoint: a listener on all addresses is known by the node's name.
    fn advertised(&self) -> Option<String> {
        let at = self.listen?;
        if at.ip().is_unspecified() {
            Some(format!("{}:{}", self.identity.hostname, at.port()))
        } else {
            Some(at.to_string())
        }
    }
}
