//! The probe endpoint: mTLS, one question and one answer for each connection.

use std::{sync::Arc, time::Duration};

use mtls::{Epochs, SessionRegistry};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::gateway::in_words;

/// Connections at a time. A probe takes milliseconds, so that this many are a flood and may wait.
const MAX_CONNECTIONS: usize = 512;
/// After an error of the operating system (no descriptors left) nothing is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped; its connections end with it.
pub(crate) async fn serve(listener: TcpListener, epochs: Epochs, sessions: SessionRegistry) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // Finished ones are let go, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, _)) => {
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
