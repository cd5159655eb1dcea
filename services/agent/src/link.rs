//! The link: one event stream to a gateway, held for as long as the agent runs.
//!
//! The link knows nothing of rotations. It dials with what it is given, dials anew at once when that
//! changes, passes on what it hears, and says in which of four ways it failed.

use std::time::Duration;

use api::node::{CERTIFICATE_EVENT, DESIRED_EVENT, DesiredUpdate, HEARTBEAT_S, PushedCertificate};
use domain::{ClusterName, SpkiPin};
use mtls::{Epochs, SessionRegistry};
use runtime::backoff::Backoff;
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
/// The pause before a good gateway is dialled again after it ended the stream.
const HURRY: Duration = Duration::from_millis(10);

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
    let mut may_hurry = true;
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
            trouble = follow(&servers[server], server, &current, &news, &mut heard) => trouble,
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
        // A gateway ends streams when its own certificate changes: then it is there, and is dialled at once.
        // Once only, until a stream has stood for a while: one that always hangs up is not to be hammered.
        may_hurry |= heard && began.elapsed() >= STANDING;
        let pause = if heard && may_hurry {
            HURRY
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

/// Follows one stream to its end and says why it ended.
async fn follow(
    server: &Server,
    index: usize,
    dial: &Dial,
    news: &mpsc::Sender<News>,
    heard: &mut bool,
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
