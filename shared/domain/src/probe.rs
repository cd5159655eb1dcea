//! Probes of external consumers: where one looks, what can be seen there, and what that proves.
//!
//! The gateway looks; what it saw ([`Sight`]) holds nothing but authorities of ours and counts of others', so that nothing
//! that a stranger wrote comes into the log. Whether that is what the row asks for is decided here, by whoever decides the
//! attestation and again by whoever reads the log.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use address::{ProbeAddress, Scheme};

use crate::{
    authority::{AuthorityType, KeyKind},
    event::LeafUse,
    id::AuthorityId,
    state::{ClusterState, TypeState},
    time::Timestamp,
    trust::published,
};

mod address;

/// What was seen of a consumer, as far as it concerns one authority type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Sight {
    /// A TLS server.
    Tls {
        /// Whose clients it says that it accepts; none if it asks for no certificate, or names no authority of the type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accepts: Option<Accepted>,
        /// The certificate that it presents, if one of the type's authorities signed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        presents: Option<Presented>,
    },
    /// An SSH server: its host certificates that one of the type's authorities signed.
    Ssh {
        /// One for each kind of host key at most.
        presents: Vec<Presented>,
    },
    /// A reader of the key set, which says what it holds.
    Jwks {
        /// The type's keys that it holds, retired ones too.
        holds: BTreeSet<AuthorityId>,
        /// How many keys of others it holds.
        others: u32,
    },
}

/// The authorities that a TLS server names when it asks for a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// Those of the type.
    pub authorities: BTreeSet<AuthorityId>,
    /// How many it names that are no authorities of this cluster.
    pub others: u32,
}

/// A certificate that a server presents.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Presented {
    /// Who signed it.
    pub issuer: AuthorityId,
    /// The end of its life.
    pub not_after: Timestamp,
}

/// The fact that is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unproven {
    /// The type has no keys, or the new ones are not made yet.
    #[error("the authority's own new key is not in the log yet")]
    NoKey,
    /// It was looked at in another way than the address says.
    #[error("what was seen is not what stands at such an address")]
    OtherKind,
    /// Nothing at the address is about this type.
    #[error("{0}")]
    Nothing(&'static str),
    /// It trusts too little.
    #[error("it does not trust {0}")]
    Lacks(AuthorityId),
    /// It trusts what the row does not.
    #[error("it still trusts {0}")]
    Extra(AuthorityId),
    /// It trusts somebody else as well, so that what it trusts is not what the row says.
    #[error("it names {0} authorities that are not of this cluster")]
    Others(u32),
    /// Its certificate comes from another authority of the type.
    #[error("its certificate was issued by {found}, and the row names {wanted}")]
    Issuer {
        /// Who signed it.
        found: AuthorityId,
        /// Who should have.
        wanted: AuthorityId,
    },
    /// Its certificate is no longer good.
    #[error("its certificate expired {0}")]
    Expired(Timestamp),
}

/// Does what was seen prove that the consumer is where the current row of the type asks it to be?
///
/// # Errors
/// The first fact that is missing.
pub fn proves(
    state: &ClusterState,
    authority_type: AuthorityType,
    address: &ProbeAddress,
    sight: &Sight,
    now: Timestamp,
) -> Result<(), Unproven> {
    let of = state.types.get(&authority_type).ok_or(Unproven::NoKey)?;
    // Before the new key is there the row is still the old one, and trust in it says nothing about the new.
    if of.rotation.is_some() && !of.prepared_is_complete() {
        return Err(Unproven::NoKey);
    }
    match (address.scheme(), sight) {
        (Scheme::Tls, Sight::Tls { accepts, presents }) => {
            tls((authority_type, of), accepts.as_ref(), presents.as_ref(), now)
        }
        (Scheme::Ssh, Sight::Ssh { presents }) => ssh((authority_type, of), presents, now),
        (Scheme::Http, Sight::Jwks { holds, .. }) => {
            let may: BTreeSet<_> = published(state, authority_type, now).map(|key| key.id).collect();
            jwks(of, holds, &may)
        }
        (Scheme::Tls | Scheme::Ssh | Scheme::Http, _) => Err(Unproven::OtherKind),
    }
}

/// A type with its state.
type Of<'a> = (AuthorityType, &'a TypeState);

/// What it shows of trust, and what it shows of its own certificate: one at least, and nothing against the row.
fn tls(
    of: Of<'_>,
    accepts: Option<&Accepted>,
    presents: Option<&Presented>,
    now: Timestamp,
) -> Result<(), Unproven> {
    if accepts.is_none() && presents.is_none() {
        return Err(Unproven::Nothing(
            "it names no authority of this type when it asks for a certificate, and presents none of this type",
        ));
    }
    if let Some(Accepted { authorities, others }) = accepts {
        let row = of.1.trusted();
        is_within(authorities, &row, &row)?;
        if *others > 0 {
            return Err(Unproven::Others(*others));
        }
    }
    presents.map_or(Ok(()), |presented| is_by_row(of, KeyKind::Tls, presented, now))
}

fn ssh(of: Of<'_>, presents: &[Presented], now: Timestamp) -> Result<(), Unproven> {
    if presents.is_empty() {
        return Err(Unproven::Nothing(
            "it presents no host certificate of this type: see HostCertificate in sshd_config",
        ));
    }
    presents
        .iter()
        .try_for_each(|presented| is_by_row(of, KeyKind::Ssh, presented, now))
}

/// All keys that sign or will sign, and no other but retired ones whose tokens may still live.
fn jwks(of: &TypeState, holds: &BTreeSet<AuthorityId>, may: &BTreeSet<AuthorityId>) -> Result<(), Unproven> {
    let sign = of.living().filter(|key| key.kind == KeyKind::Jwt);
    let must: BTreeSet<_> = sign.map(|key| key.id).collect();
    is_within(holds, &must, may)?;
    // Two empty sets are equal and prove nothing.
    if must.is_empty() {
        return Err(Unproven::NoKey);
    }
    Ok(())
}

/// All of what must be, and nothing beside what may be.
fn is_within(
    found: &BTreeSet<AuthorityId>,
    must: &BTreeSet<AuthorityId>,
    may: &BTreeSet<AuthorityId>,
) -> Result<(), Unproven> {
    match (must.difference(found).next(), found.difference(may).next()) {
        (Some(lacks), _) => Err(Unproven::Lacks(*lacks)),
        (None, Some(extra)) => Err(Unproven::Extra(*extra)),
        (None, None) => Ok(()),
    }
}

/// Was it signed by the issuer that the row names for servers, or already by the one that signs by hand, and is it still good?
fn is_by_row(
    (authority_type, of): Of<'_>,
    kind: KeyKind,
    presented: &Presented,
    now: Timestamp,
) -> Result<(), Unproven> {
    let row = of.row(kind);
    let wanted = row.server.ok_or(Unproven::NoKey)?;
    let by_hand = row.issuer_by_hand(authority_type, LeafUse::Server);
    if presented.issuer != wanted && Some(presented.issuer) != by_hand {
        let found = presented.issuer;
        return Err(Unproven::Issuer { found, wanted });
    }
    if presented.not_after <= now {
        return Err(Unproven::Expired(presented.not_after));
    }
    Ok(())
}

impl Sight {
    /// In one line, for the log's readers.
    pub fn in_words(&self) -> String {
        let presented = |p: &Presented| format!("a certificate by {} until {}", p.issuer, p.not_after);
        let parts: Vec<String> = match self {
            Self::Tls { accepts, presents } => {
                let accepts = accepts.as_ref().map(|accepted| {
                    let names = names(&accepted.authorities);
                    format!("clients of {names}{}", and_others(accepted.others))
                });
                accepts
                    .into_iter()
                    .chain(presents.iter().map(presented))
                    .collect()
            }
            Self::Ssh { presents } => presents.iter().map(presented).collect(),
            Self::Jwks { holds, others } => vec![format!("the keys {}{}", names(holds), and_others(*others))],
        };
        if parts.is_empty() {
            "nothing of this type".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

fn names(of: &BTreeSet<AuthorityId>) -> String {
    if of.is_empty() {
        return "none of ours".to_owned();
    }
    let names: Vec<String> = of.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

fn and_others(others: u32) -> String {
    match others {
        0 => String::new(),
        _ => format!(" and {others} of others"),
    }
}
