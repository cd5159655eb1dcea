//! Trust: who accepts whom (the oracle), and the signed document that says what to trust (the bundle).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    authority::{AuthorityKey, AuthorityType, KeyKind},
    id::{AuthorityId, CertDigest, ClusterName, Position, RotationId, Serial, SpkiPin},
    phase::{Generation, Phase},
    state::{ClusterState, RetiredKey, TypeState},
    time::{DAY_MS, Timestamp},
};

/// How long a signed bundle may be installed after it was made, in milliseconds; it is signed anew at half.
pub const BUNDLE_LIFE_MS: u64 = DAY_MS;

/// One side of a connection, as the oracle sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// The authorities it trusts.
    pub trusted: BTreeSet<SpkiPin>,
    /// The issuer of what it presents as a TLS client.
    pub client_issuer: Option<SpkiPin>,
    /// The issuer of what it presents as a TLS server.
    pub server_issuer: Option<SpkiPin>,
}

/// The oracle: two peers interoperate if and only if the client's issuer is in the server's trust and
/// the server's issuer is in the client's trust (measured over all pairs of phases with real TLS).
pub fn interoperate(client: &Side, server: &Side) -> bool {
    client
        .client_issuer
        .is_some_and(|issuer| server.trusted.contains(&issuer))
        && server
            .server_issuer
            .is_some_and(|issuer| client.trusted.contains(&issuer))
}

/// What an authority in a bundle is to its reader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityStatus {
    /// Signs what the phase's row does not give to the prepared one.
    Active,
    /// The new one of a rotation in progress.
    Prepared,
    /// Trusted no more.
    Retired,
}

/// One authority in a bundle. Only `active` and `prepared` ones are listed: what is not listed is not trusted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BundleAuthority {
    /// The pin of its key.
    pub id: AuthorityId,
    /// What it signs with.
    pub kind: KeyKind,
    /// Active or prepared.
    pub status: AuthorityStatus,
    /// Its generation.
    pub generation: u32,
    /// Its self-signed certificate, DER, base64; empty for SSH and JWT keys, which have none.
    pub certificate: String,
    /// The SubjectPublicKeyInfo, DER, base64, of a key without a certificate; empty for one with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public_key: String,
}

/// The content of a trust bundle: the newest desired row of one authority type, for everybody.
///
/// The signer signs its JSON bytes with the bundle key (ECDSA P-256, SHA-256); readers verify those
/// bytes before they parse them, and never take a revision lower than the one they have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Bundle {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// The authority type it describes.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// The rotation in progress, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The phase whose row it is.
    pub phase: Phase,
    /// The log position it describes: the order of rows.
    pub revision: Position,
    /// The trusted authorities.
    pub authorities: Vec<BundleAuthority>,
    /// Certificates of this type that no longer count although they have not expired.
    pub denied: Vec<Denied>,
    /// It may not be installed after this.
    pub expires: Timestamp,
}

/// An entry of the deny list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Denied {
    /// The certificate's serial.
    pub serial: Serial,
    /// Its digest.
    pub digest: CertDigest,
    /// After this it need not be listed.
    pub not_after: Timestamp,
}

/// A signed bundle as it travels: the exact signed bytes and the signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SignedBundle {
    /// The JSON text of a [`Bundle`], exactly as signed.
    pub document: String,
    /// ECDSA P-256/SHA-256 over `document`, ASN.1 DER, base64.
    pub signature: String,
    /// The pin of the bundle key that signed it.
    pub key: SpkiPin,
    /// The bundle key's SubjectPublicKeyInfo, DER, base64 (its digest must equal `key`).
    pub public_key: String,
    /// Documents that replaced the bundle key, oldest first: each signed with the old and the new key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replacements: Vec<KeyReplacement>,
}

/// A document that replaces the bundle key; it never expires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyReplacement {
    /// The key before, SubjectPublicKeyInfo, DER, base64.
    pub old_key: String,
    /// The key after, likewise.
    pub new_key: String,
    /// Signature of both keys' bytes by the old key, base64.
    pub by_old: String,
    /// The same by the new key.
    pub by_new: String,
}

/// The keys that verify a type's tokens now: those that sign or will sign, then retired ones for as long as a token that
/// they have signed may live. A key that came too late for its rotation has never signed any.
pub fn published(
    state: &ClusterState,
    t: AuthorityType,
    now: Timestamp,
) -> impl Iterator<Item = &AuthorityKey> {
    let token_life_ms = state.settings().jwt_ttl_ms;
    let of = state.types.get(&t);
    let current = of.into_iter().flat_map(TypeState::living);
    let retired = of.into_iter().flat_map(|of| of.retired.iter());
    let still_verifies =
        move |retired: &&RetiredKey| retired.outcome.is_some() && retired.at.plus_ms(token_life_ms) > now;
    let retired = retired.filter(still_verifies).map(|retired| &retired.key);
    current.chain(retired).filter(|key| key.kind == KeyKind::Jwt)
}

impl Bundle {
    /// The X.509 authority of this bundle with the given part in the rotation.
    pub fn authority(&self, generation: Generation) -> Option<&BundleAuthority> {
        self.authority_of(KeyKind::Tls, generation)
    }

    fn authority_of(&self, kind: KeyKind, generation: Generation) -> Option<&BundleAuthority> {
        let status = match generation {
            Generation::Active => AuthorityStatus::Active,
            Generation::Prepared => AuthorityStatus::Prepared,
        };
        self.authorities
            .iter()
            .find(|a| a.kind == kind && a.status == status)
    }

    /// The pins of all trusted X.509 authorities, or of a type without any those of its other keys: the row's trust set.
    pub fn trusted(&self) -> BTreeSet<SpkiPin> {
        let has_tls = self.authorities.iter().any(|a| a.kind == KeyKind::Tls);
        self.authorities
            .iter()
            .filter(|a| !has_tls || a.kind == KeyKind::Tls)
            .filter(|a| a.status != AuthorityStatus::Retired)
            .map(|a| a.id)
            .collect()
    }

    /// The issuer that the row names for a generation: until the prepared key exists, the active one.
    pub fn issuer(&self, generation: Generation) -> Option<SpkiPin> {
        self.issuer_of(KeyKind::Tls, generation)
    }

    fn issuer_of(&self, kind: KeyKind, generation: Generation) -> Option<SpkiPin> {
        self.authority_of(kind, generation)
            .or_else(|| self.authority_of(kind, Generation::Active))
            .map(|a| a.id)
    }

    /// The issuer of client certificates in this row.
    pub fn client_issuer(&self) -> Option<SpkiPin> {
        self.issuer(self.phase.row().client)
    }

    /// The issuer of server certificates in this row.
    pub fn server_issuer(&self) -> Option<SpkiPin> {
        self.issuer(self.phase.row().server)
    }

    /// The issuer of hosts' SSH certificates in this row.
    pub fn ssh_issuer(&self) -> Option<SpkiPin> {
        self.issuer_of(KeyKind::Ssh, self.phase.row().server)
    }

    /// The issuer that this row retires, if a rotation is past the point where both are equal:
    /// on the way forward the active one (from `update_servers` on), on the way back the prepared one.
    pub fn retiring_issuer(&self) -> Option<SpkiPin> {
        let generation = match self.phase {
            Phase::UpdateServers => Generation::Active,
            Phase::Rollback => Generation::Prepared,
            Phase::Standby | Phase::Init | Phase::UpdateClients => return None,
        };
        self.authority(generation).map(|a| a.id)
    }
}
