//! While a rotation waits for a consumer with a probe, the gateway looks at it again and again: a rotation goes on by
//! itself as soon as the consumer has followed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use domain::{AuthorityType, ClusterState, ConsumerName, Principal, command::Expectation};
use execution::ExecuteError;
use runtime::backoff::{Backoff, random_seed};
use tokio::{task::JoinSet, time::Instant};

use crate::{app::App, look};

/// How often it is looked whether a look is due.
const TICK: Duration = Duration::from_secs(1);
/// The first pause between two looks at one consumer, and the longest. sshd (from 9.8 on) shuts out whoever often connects
/// and leaves again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How many are looked at at once: one that hangs must not keep the others waiting.
const AT_ONCE: usize = 8;

type Consumer = (AuthorityType, ConsumerName);

/// When to look at a consumer next.
struct Pace {
    /// For which rotation and phase: with another one it begins anew.
    expects: Expectation,
    pauses: Backoff,
    due: Instant,
    /// What was said the last time, so that the same is not said again and again.
    said: Option<String>,
}

/// Looks until the shutdown.
pub(crate) async fn run(app: Arc<App>) {
    let mut tick = tokio::time::interval(TICK);
    let mut looks = JoinSet::new();
    let mut busy: HashSet<Consumer> = HashSet::new();
    let mut paces: HashMap<Consumer, Pace> = HashMap::new();
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            Some(done) = looks.join_next() => {
                // One that panicked is looked at again when the rest are through.
                let Ok((consumer, said)) = done else {
                    busy.clear();
                    continue;
                };
                busy.remove(&consumer);
                if let Some(pace) = paces.get_mut(&consumer) {
                    pace.due = Instant::now() + pace.pauses.next_pause();
                    tell(&consumer, &mut pace.said, said);
                }
            }
            _ = tick.tick() => {
                // A gateway that fell behind would look with yesterday's eyes.
                if app.serving.check().is_err() {
                    continue;
                }
                for consumer in due(&app, &mut paces) {
                    if looks.len() < AT_ONCE && busy.insert(consumer.clone()) {
                        let app = app.clone();
                        looks.spawn(async move {
                            let said = look_and_attest(&app, &consumer).await;
                            (consumer, said)
                        });
                    }
                }
            }
        }
    }
}

/// Whose turn it is; whoever is waited for no more is forgotten.
fn due(app: &App, paces: &mut HashMap<Consumer, Pace>) -> Vec<Consumer> {
    let now = Instant::now();
    let waited_for = app.fold.read(waited_for);
    paces.retain(|consumer, pace| {
        waited_for
            .iter()
            .any(|(other, expects)| other == consumer && *expects == pace.expects)
    });
    let mut due = vec![];
    for (consumer, expects) in waited_for {
        let pace = paces.entry(consumer.clone()).or_insert_with(|| Pace {
            expects,
            pauses: Backoff::new(PAUSES.0, PAUSES.1, random_seed()),
            due: now,
            said: None,
        });
        if pace.due <= now {
            due.push(consumer);
        }
    }
    due
}

/// The consumers with a probe that a forward step waits for, once there is a new key that they can follow.
fn waited_for(state: &ClusterState) -> Vec<(Consumer, Expectation)> {
    let probed = state.consumers.iter().filter(|(_, c)| c.probe.is_some());
    let waited_for = probed.filter_map(|((t, name), consumer)| {
        let of = state.types.get(t)?;
        let is_due = of.waits_for(consumer) && of.prepared_is_complete();
        is_due.then(|| ((*t, name.clone()), of.expectation()))
    });
    waited_for.collect()
}

/// One look; gives what is missing, or nothing if the log has it.
async fn look_and_attest(app: &App, (authority_type, name): &Consumer) -> Option<String> {
    let looked = look::look(app, *authority_type, name).await?;
    let Some(order) = looked.order(*authority_type, name) else {
        return looked.missing;
    };
    let command = app
        .executor
        .own_command(Principal::Gateway(app.config.member), order);
    match app.executor.execute(command).await {
        Ok(_) => None,
        // The rotation moved on while it was looked at.
        Err(ExecuteError::Refused(refusal)) => Some(refusal.text),
        Err(ExecuteError::Unavailable(why)) => Some(why),
    }
}

fn tell((authority_type, name): &Consumer, last: &mut Option<String>, said: Option<String>) {
    if *last != said {
        match &said {
            Some(missing) => {
                tracing::info!(%authority_type, consumer = %name, missing, "a consumer has not followed yet");
            }
            None => tracing::info!(%authority_type, consumer = %name, "a consumer has followed"),
        }
        *last = said;
    }
}
