//! The link: one event stream to a gateway, held for as long as the agent runs.
//!
//! The link knows nothing of rotations. It dials with what it is given, dials anew at once when that
//! changes, passes on what it hears, and says in which of four ways it failed.

use std::time::Duration;

use api::node::{CERTIFICATE_EVENT, DESIRED_EVENT, DesiredUpdate, HEARTBEAT_S, PushedCertificate};
use domain::{ClusterName, SpkiPin};
use mtls::{Epochs, SessionRegistry};
use runtime::backoff::{Backoff, jitter, random_seed};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    config::{Pace, Server},
    gateway::{self, Trouble, Trust, in_words},
};

/// A stream on which nothing came for so long is dead; heartbeats come every five seconds.
const IDLE: Duration = Duration::from_secs(3 * HEARTBEAT_S);

/// A stream that stood for so long was a good one.
const STANDING: Duration = Duration::from_secs(1);
/// A good gateway ends the streams of a whole fleet at one moment, and says over which time they should come back. One
/// that did not say is dialled again within so many of the shortest pauses,
const HURRY: u32 = 4;
/// and none within less than this, on average half of it.
const SHORTEST: Duration = Duration::from_millis(20);

/// What to dial with.
#[derive(Clone)]
pub(crate) struct Dial {
    /// Counts changes, so that news of an earlier one are known as such.
    pub(crate) number: u64,
    /// The certificate that is presented, by its key.
    pub(crate) presents: SpkiPin,
    /// What is trusted and presented.
    pub(crate) epochs: Epochs,
    /// Whose gateway.
    pub(crate) cluster: ClusterName,
    /// Our sessions with gateways.
    pub(crate) registry: SessionRegistry,
}

impl Dial {
    /// A client for single requests to one gateway.
    pub(crate) fn client(&self, server: &Server) -> api::Client {
        let trust = Trust::Certified {
            epochs: self.epochs.clone(),
            cluster: self.cluster.clone(),
        };
        gateway::client(server, trust, &self.registry)
    }
}

/// What the link tells.
pub(crate) enum News {
    /// A gateway named the newest desired state.
    Desired {
        server: usize,
        update: Box<DesiredUpdate>,
    },
    /// A gateway pushed a certificate.
    Certificate(PushedCertificate),
    /// The stream is gone or never came, for this dial.
    Lost { dial: u64, trouble: Trouble },
}

/// Holds a stream for ever, to one server after the other.
pub(crate) async fn hold(
    servers: Vec<Server>,
    mut dial: watch::Receiver<Option<Dial>>,
    news: mpsc::Sender<News>,
    pace: Pace,
    seed: u64,
) {
    let mut backoff = Backoff::new(pace.retry_min, pace.retry_max, seed);
    let mut server = 0;
    let (mut may_hurry, mut asked) = (true, None);
    loop {
        let Some(current) = dial.borrow_and_update().clone() else {
            if dial.changed().await.is_err() {
                return; // The agent has ended.
            }
            continue;
        };
        let (mut heard, began) = (false, Instant::now());
        let trouble = tokio::select! {
            changed = dial.changed() => {
                if changed.is_err() {
                    return;
                }
                // Our own stream is re-dialled at once on every change, so that it never holds a gate.
                backoff.reset();
                may_hurry = true;
                continue;
            }
            trouble = follow(&servers[server], server, &current, &news, &mut heard, &mut asked) => trouble,
        };
        if heard {
            backoff.reset();
        }
        let lost = News::Lost {
            dial: current.number,
            trouble,
        };
        if news.send(lost).await.is_err() {
            return;
        }
        // A gateway ends streams when its own certificate changes: then it is there, and is dialled soon.
        // Once only, until a stream has stood for a while: one that always hangs up is not to be hammered.
        may_hurry |= heard && began.elapsed() >= STANDING;
        let pause = if heard && may_hurry {
            redial(&pace, asked, random_seed())
        } else {
            backoff.next_pause()
        };
        if heard && may_hurry {
            may_hurry = false;
        } else {
            server = (server + 1) % servers.len();
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = dial.changed() => {
                if changed.is_err() {
                    return;
                }
                // What has changed was looked at by nobody yet.
                dial.mark_changed();
                backoff.reset();
                may_hurry = true;
            }
        }
    }
}

/// The pause before a good gateway is dialled again: drawn from the time that it asked for, at most the longest pause.
fn redial(pace: &Pace, asked: Option<Duration>, seed: u64) -> Duration {
    let span = asked.unwrap_or(pace.retry_min * HURRY).max(SHORTEST);
    jitter(span.min(pace.retry_max), 0.0, 1.0, seed)
}

/// Follows one stream to its end and says why it ended.
async fn follow(
    server: &Server,
    index: usize,
    dial: &Dial,
    news: &mpsc::Sender<News>,
    heard: &mut bool,
    asked: &mut Option<Duration>,
) -> Trouble {
    let beat = Duration::from_secs(HEARTBEAT_S);
    let opening = dial.client(server);
    let opened = opening.sse_with_beats(api::route::NODE_STREAM, IDLE, beat).await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => return Trouble::of(&error),
    };
    loop {
        let event = match stream.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Trouble::NoAnswer(format!("{server} closed the stream")),
            Err(error) => return Trouble::of(&error),
        };
        let item = match event.name.as_str() {
            DESIRED_EVENT => event.json().map(|update| News::Desired {
                server: index,
                update: Box::new(update),
            }),
            CERTIFICATE_EVENT => event.json().map(News::Certificate),
            // Something of a later version.
            _ => continue,
        };
        match item {
            Ok(item) => {
                *heard = true;
                *asked = stream.retry();
                if news.send(item).await.is_err() {
                    return Trouble::NoAnswer("the agent stops".into());
                }
            }
            Err(error) => {
                let what = in_words(&error);
                return Trouble::NoAnswer(format!(
                    "{server} sent a `{}` event that cannot be read: {what}",
                    event.name
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_loses_its_gateway_at_one_moment_comes_back_over_the_time_that_it_asked_for() {
        let pace = Pace::default();
        let spread = |asked: Option<u64>| {
            let asked = asked.map(Duration::from_millis);
            let mut pauses: Vec<_> = (0..1_000).map(|seed| redial(&pace, asked, seed)).collect();
            pauses.sort_unstable();
            (pauses[0], pauses[500], pauses[999])
        };
        for (asked, span) in [
            (None, 1_000),
            (Some(0), 20),
            (Some(8_000), 8_000),
            (Some(3_600_000), 10_000),
        ] {
            let (first, half, last) = spread(asked);
            let span = Duration::from_millis(span);
            assert!(
                first < span / 20 && last > span * 19 / 20 && last <= span,
                "{first:?} to {last:?}"
            );
            assert!(half > span * 4 / 10 && half < span * 6 / 10, "{half:?}");
        }
    }
}
