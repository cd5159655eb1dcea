//! The probe endpoint: mTLS, one question and one answer for each connection.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mtls::{Epochs, SessionRegistry};
use runtime::ratelimit::source_of;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::gateway::in_words;

/// Connections at a time. A probe takes milliseconds, so that this many are a flood.
const MAX_CONNECTIONS: usize = 512;
/// Of them from one other host: it must not keep the rest out.
const MAX_PER_SOURCE: usize = 64;
/// Further ones from this host itself: the agent proves by its own listener what it installed, and a flood from
/// outside must not make that fail.
const RESERVED: usize = 16;
/// After an error of the operating system (no descriptors left) nothing is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped; its connections end with it.
pub(crate) async fn serve(listener: TcpListener, epochs: Epochs, sessions: SessionRegistry) {
    let places = Places::new();
    let mut connections = JoinSet::new();
    loop {
        // Finished ones are let go, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, from)) => {
                // Whoever finds no place is hung up on at once: one that waited would hold up those behind it.
                let at = tcp.local_addr().ok();
                let Some(place) = places.take(from, at) else {
                    tracing::debug!(?from, "too many connections to the probe endpoint");
                    continue;
                };
                let (epochs, sessions) = (epochs.clone(), sessions.clone());
                connections.spawn(async move {
                    answer(tcp, &epochs, &sessions).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the probe endpoint cannot accept connections for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How many connections each source has.
type Sources = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Who may be connected.
struct Places {
    anyone: Arc<Semaphore>,
    this_host: Arc<Semaphore>,
    /// Connections of each other host; as many entries as there are places at most.
    sources: Sources,
}

/// One connection's place; given back when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    source: Option<(IpAddr, Sources)>,
}

impl Places {
    fn new() -> Self {
        Self {
            anyone: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            this_host: Arc::new(Semaphore::new(RESERVED)),
            sources: Arc::default(),
        }
    }

    /// A place for a connection from there, accepted here; none if there is none left.
    fn take(&self, from: SocketAddr, at: Option<SocketAddr>) -> Option<Place> {
        let anyone = self.anyone.clone().try_acquire_owned().ok();
        if at.is_some_and(|at| at.ip() == from.ip()) {
            let permit = anyone.or_else(|| self.this_host.clone().try_acquire_owned().ok())?;
            return Some(Place {
                _permit: permit,
                source: None,
            });
        }
        let (permit, source) = (anyone?, source_of(from.ip()));
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= MAX_PER_SOURCE {
            return None;
        }
        *count += 1;
        Some(Place {
            _permit: permit,
            source: Some((source, self.sources.clone())),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((source, sources)) = &self.source else {
            return;
        };
        let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(source);
            }
        }
    }
}

async fn answer(tcp: TcpStream, epochs: &Epochs, sessions: &SessionRegistry) {
    let from = tcp.peer_addr().ok();
    let mut accepted = match mtls::accept(tcp, epochs, sessions).await {
        Ok(accepted) => accepted,
        Err(error) => {
            // Strangers knock at every open port; the reason is of use only to who looks for it.
            tracing::debug!(?from, error = in_words(&error), "a caller was refused");
            return;
        }
    };
    let closed = accepted.session.close_token();
    tokio::select! {
        () = closed.cancelled() => {}
        answered = mtls::answer_probe(&mut accepted) => {
            if let Err(error) = answered {
                tracing::debug!(?from, error = in_words(&error), "a probe was not answered");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), 1)
    }

    #[test]
    fn one_host_takes_its_share_many_take_them_all_and_this_host_still_finds_a_place() {
        let (places, here) = (Places::new(), at("10.0.0.1"));
        let mut taken = Vec::new();
        let mut fill = |from: &str| {
            let before = taken.len();
            taken.extend(std::iter::from_fn(|| places.take(at(from), Some(here))));
            taken.len() - before
        };
        assert_eq!(fill("10.0.0.2"), MAX_PER_SOURCE);
        assert_eq!(fill("2001:db8::1"), MAX_PER_SOURCE);
        assert_eq!(fill("2001:db8::2"), 0, "the same network");
        let rest: usize = (3..=20).map(|n| fill(&format!("10.0.0.{n}"))).sum();
        assert_eq!(rest, MAX_CONNECTIONS - 2 * MAX_PER_SOURCE);
        assert_eq!(fill("10.0.0.1"), RESERVED);
        taken.clear();
        assert!(places.take(at("10.0.0.2"), Some(here)).is_some());
        assert!(places.sources.lock().expect("not poisoned").is_empty());
    }
}
