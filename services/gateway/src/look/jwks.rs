//! A reader of the key set, which says over HTTP which keys it holds: a key set, or an array of key ids.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use api::{Client, Connect, ConnectError, client::Io};
use domain::{
    authority::KeyKind,
    probe::{ProbeAddress, Sight},
};
use futures::future::BoxFuture;
use pki::{PublicKey, jwt::thumbprint};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{Known, LOOK};

/// The most that is read of its answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) async fn look(at: SocketAddr, address: &ProbeAddress, known: &Known) -> Result<Sight, String> {
    let authority = address.authority();
    // No redirect is followed: the client knows none.
    let client = Client::new(Arc::new(Plain { at, authority }))
        .with_timeout(LOOK)
        .with_limit(MAX_ANSWER_BYTES);
    let answer = client
        .get_bytes(address.path())
        .await
        .map_err(|e| e.to_string())?;
    sight(&answer, known)
}

/// One address, in the clear.
struct Plain {
    at: SocketAddr,
    authority: String,
}

impl Connect for Plain {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async move {
            let unreachable = |error: std::io::Error| ConnectError::Unreachable(error.to_string());
            let stream = TcpStream::connect(self.at).await.map_err(unreachable)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn authority(&self) -> String {
        self.authority.clone()
    }
}

/// What a reader may answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Set { keys: Vec<Key> },
    Ids(Vec<String>),
}

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    kid: Option<String>,
}

fn sight(answer: &[u8], known: &Known) -> Result<Sight, String> {
    let answer: Answer = serde_json::from_slice(answer).map_err(
        |_| "the answer is neither a key set ({\"keys\": [{\"kid\": …}]}) nor an array of key ids in JSON",
    )?;
    let ids: Vec<Option<String>> = match answer {
        Answer::Set { keys } => keys.into_iter().map(|key| key.kid).collect(),
        Answer::Ids(ids) => ids.into_iter().map(Some).collect(),
    };
    let ours: Vec<_> = known
        .own_of(KeyKind::Jwt)
        .filter_map(|key| Some((thumbprint(&PublicKey::from_base64(&key.public_key).ok()?), key.id)))
        .collect();
    let mut holds = BTreeSet::new();
    let mut others = 0_u32;
    for id in ids {
        match ours.iter().find(|(kid, _)| id.as_ref() == Some(kid)) {
            Some((_, authority)) => drop(holds.insert(*authority)),
            None => others = others.saturating_add(1),
        }
    }
    Ok(Sight::Jwks { holds, others })
}
