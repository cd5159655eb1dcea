//! Whom other gateways see: each is asked over the bus, where there is one, and answers for itself.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use api::message::{self, PresenceAnswer, PresenceQuestion};
use domain::{ClusterName, MemberId, Timestamp, schedule::SETTLING_IN_MS};
use eventlog::bus::{Answer, Bus, Desk, Offer, OfferError, Question};
use execution::Fold;
use futures::future::join_all;
use runtime::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use super::Presences;

/// How long another gateway may take: whoever looks at a list waits for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions that are answered at a time.
const AT_A_TIME: usize = 8;

/// The other gateways of the cluster.
#[derive(Clone)]
pub(crate) struct Others {
    pub(crate) bus: Bus,
    pub(crate) cluster: ClusterName,
    pub(crate) own: MemberId,
}

impl Others {
    /// Begins to take questions about whom this gateway sees.
    pub(crate) async fn open(&self) -> Result<Desk, OfferError> {
        let offer = Offer {
            name: "carousel-presence".into(),
            description: "Whom one gateway of a Carousel cluster sees".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            metadata: HashMap::from([("cluster".into(), self.cluster.to_string())]),
            subject: message::presence_subject(&self.cluster, self.own),
            group: self.own.to_string(),
        };
        self.bus.offer(offer).await
    }

    /// What this gateway knows together with what the others say now. One that does not answer in time is left out: what is
    /// shown is then what the rest knows.
    pub(crate) async fn with(&self, presences: &Presences, fold: &Fold) -> Presences {
        let others: Vec<MemberId> = fold.read(|state| {
            let gateways = state.gateways().filter(|member| *member != self.own);
            gateways.collect()
        });
        let asked = others.into_iter().map(|other| self.ask(other));
        let heard: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        presences.and(heard)
    }

    async fn ask(&self, other: MemberId) -> Option<PresenceAnswer> {
        let subject = message::presence_subject(&self.cluster, other);
        let question = PresenceQuestion { since: None };
        let body = serde_json::to_vec(&question).expect("plain data");
        let answer = self.bus.ask(&subject, &[], body, PATIENCE).await;
        let found = match answer {
            Ok(Answer { body, no: None }) => serde_json::from_slice(&body).map_err(|e| e.to_string()),
            Ok(Answer {
                no: Some((_, why)), ..
            }) => Err(why),
            Err(error) => Err(error.to_string()),
        };
        found
            .inspect_err(
                |why| tracing::warn!(gateway = %other, why, "another gateway does not say whom it sees"),
            )
            .ok()
    }
}

/// Has this gateway run for long enough to say who is not there? A fresh one knows nobody yet, whose agents may be on their way
/// back to it: what the schedule's own patience is for one process, this is for a gateway apart.
fn may_judge(clock: &SharedClock, began: Duration, since: Timestamp) -> bool {
    let ran = clock.monotonic().saturating_sub(began);
    let asked_of = Timestamp(clock.now_ms()).since_ms(since);
    ran >= Duration::from_millis(asked_of.min(SETTLING_IN_MS))
}

/// Answers until shutdown.
pub(crate) async fn answer(
    desk: Desk,
    presences: Presences,
    clock: SharedClock,
    shutdown: CancellationToken,
) {
    let began = clock.monotonic();
    let answer = |question: Question| {
        let (presences, clock) = (presences.clone(), clock.clone());
        async move {
            let answer = match serde_json::from_slice::<PresenceQuestion>(question.body()) {
                Ok(PresenceQuestion { since: Some(since) }) if !may_judge(&clock, began, since) => Answer {
                    body: vec![],
                    no: Some((503, "this gateway was started a short time ago".into())),
                },
                Ok(PresenceQuestion { since }) => {
                    let (since, now) = (since.unwrap_or_default(), Timestamp(clock.now_ms()));
                    let seen: BTreeMap<_, _> = presences.heard_since(since, now);
                    Answer {
                        body: serde_json::to_vec(&seen).expect("ids are keys"),
                        no: None,
                    }
                }
                Err(error) => Answer {
                    body: vec![],
                    no: Some((400, format!("no such question: {}", domain::plain(error)))),
                },
            };
            question.answer(answer).await;
        }
    };
    desk.serve(AT_A_TIME, shutdown.cancelled_owned(), answer).await;
}

#[cfg(test)]
mod tests {
    use runtime::clock::{Clock, ManualClock};

    use super::*;

    #[test]
    fn a_gateway_judges_who_is_not_there_only_once_it_has_run_as_long_as_it_is_asked_of_or_five_minutes() {
        let clock = ManualClock::new(1_790_000_000_000);
        let shared: SharedClock = clock.clone();
        let (began, start) = (clock.monotonic(), Timestamp(clock.now_ms()));
        assert!(!may_judge(&shared, began, start.minus_ms(1)));
        clock.advance(Duration::from_secs(60));
        assert!(may_judge(&shared, began, start), "it has run since then");
        assert!(!may_judge(&shared, began, start.minus_ms(1)));
        clock.advance(Duration::from_millis(SETTLING_IN_MS - 60_000 - 1));
        assert!(!may_judge(&shared, began, start.minus_ms(3_600_000)));
        clock.advance(Duration::from_millis(1));
        assert!(may_judge(&shared, began, start.minus_ms(3_600_000)));
    }
}
