//! A look at an external consumer: what it shows of the authorities that it trusts, and of its own certificate.
//!
//! The address is what an administrator registered, and nothing that the other side says leads elsewhere. Whatever it
//! sends is hostile: bounded, read by what is made for that, and no word of it goes further but as a quotation in an error.
//! What a look proves is decided in the core ([`domain::probe`]).

use std::time::Duration;

use domain::{
    AuthorityType, ClusterState, ConsumerName, Order,
    authority::{AuthorityKey, KeyKind},
    command::Expectation,
    plain,
    probe::{ProbeAddress, Scheme, Sight, proves},
    state::TypeState,
};
use pki::CaCert;
use tokio::time::timeout;

use crate::{app::App, places::places};

mod jwks;
mod ssh;
#[cfg(test)]
mod tests;
mod tls;

/// How long a look may take, with everything.
const LOOK: Duration = Duration::from_secs(10);

/// What was looked at, and what came of it.
pub(crate) struct Looked {
    pub(crate) address: ProbeAddress,
    /// The rotation and phase before the look.
    pub(crate) expects: Expectation,
    pub(crate) saw: Option<Sight>,
    /// The fact that is missing, or why nothing was seen.
    pub(crate) missing: Option<String>,
}

impl Looked {
    /// The attestation that follows, if the look proves it and there is a rotation to attest for.
    pub(crate) fn order(&self, authority_type: AuthorityType, consumer: &ConsumerName) -> Option<Order> {
        let proven = self.missing.is_none() && self.expects.rotation.is_some();
        let saw = self.saw.clone().filter(|_| proven)?;
        Some(attestation(
            authority_type,
            consumer,
            self.expects.clone(),
            Some(saw),
        ))
    }
}

/// A probe's attestation; of one that saw nothing the log only says why it is refused, or what was answered first.
pub(crate) fn attestation(
    authority_type: AuthorityType,
    consumer: &ConsumerName,
    expects: Expectation,
    saw: Option<Sight>,
) -> Order {
    Order::AttestConsumer {
        authority_type,
        consumer: consumer.clone(),
        expects,
        probed: true,
        saw,
    }
}

/// Looks at a consumer and holds it against the row as it is then. None if there is no such consumer with a probe.
pub(crate) async fn look(
    app: &App,
    authority_type: AuthorityType,
    consumer: &ConsumerName,
) -> Option<Looked> {
    let (address, expects) = known(app, authority_type, consumer)?;
    let (saw, missing) = match see(app, authority_type, &address).await {
        Err(why) => (None, Some(plain(why))),
        Ok(saw) => {
            let proven = app
                .fold
                .read(|state| proves(state, authority_type, &address, &saw, state.now(app.now())));
            (Some(saw), proven.err().map(|missing| missing.to_string()))
        }
    };
    Some(Looked {
        address,
        expects,
        saw,
        missing,
    })
}

/// Where a consumer is looked at, and the rotation and phase of now.
pub(crate) fn known(
    app: &App,
    authority_type: AuthorityType,
    consumer: &ConsumerName,
) -> Option<(ProbeAddress, Expectation)> {
    app.fold.read(|state| {
        let known = state.consumers.get(&(authority_type, consumer.clone()))?;
        let of = state.types.get(&authority_type)?;
        Some((known.probe.clone()?, of.expectation()))
    })
}

async fn see(app: &App, authority_type: AuthorityType, address: &ProbeAddress) -> Result<Sight, String> {
    let looking = async {
        let allowed = app.fold.read(|state| state.settings().allow_loopback);
        let places = places(&address.authority(), allowed || app.config.is_on_loopback()).await?;
        let known = app.fold.read(|state| Known::of(state, authority_type));
        let mut last = Err("nobody is there".to_owned());
        // An address that swallows what it is sent leaves time for the next one.
        let share = LOOK / u32::try_from(places.len()).unwrap_or(u32::MAX).max(1);
        for place in places {
            let looked = timeout(share, async {
                match address.scheme() {
                    Scheme::Tls => tls::look(place, &address.host(), &known).await,
                    Scheme::Ssh => ssh::look(place, &known).await,
                    Scheme::Http => jwks::look(place, address, &known).await,
                }
            });
            last = looked.await.unwrap_or_else(|_| Err(silent(address, share)));
            if last.is_ok() {
                break;
            }
        }
        last
    };
    match timeout(LOOK, looking).await {
        Ok(seen) => seen,
        Err(_) => Err(silent(address, LOOK)),
    }
}

fn silent(address: &ProbeAddress, waited: Duration) -> String {
    format!("{address} showed nothing within {:.0} s", waited.as_secs_f64())
}

/// The authorities that a look can come upon.
struct Known {
    /// Of the type: all that ever signed or will.
    own: Vec<AuthorityKey>,
    /// Likewise of the cluster's other types: a server that names those too says nothing about this one by it.
    others: Vec<AuthorityKey>,
}

impl Known {
    fn of(state: &ClusterState, authority_type: AuthorityType) -> Self {
        let own = state.types.get(&authority_type).into_iter();
        let others = state.types.iter().filter(|(t, _)| **t != authority_type);
        Self {
            own: own.flat_map(TypeState::ever).cloned().collect(),
            others: others.flat_map(|(_, of)| of.ever()).cloned().collect(),
        }
    }

    fn own_of(&self, kind: KeyKind) -> impl Iterator<Item = &AuthorityKey> {
        self.own.iter().filter(move |key| key.kind == kind)
    }
}

/// The certificates among them.
fn certificates<'a>(keys: impl IntoIterator<Item = &'a AuthorityKey>) -> Vec<CaCert> {
    let of_tls = keys.into_iter().filter(|key| key.kind == KeyKind::Tls);
    of_tls
        .filter_map(|key| CaCert::from_base64(&key.certificate).ok())
        .collect()
}
