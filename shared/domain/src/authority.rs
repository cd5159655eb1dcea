//! The authority types, as one table: adding a type is adding a row.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

mod by_hand;

pub use by_hand::ByHand;

use crate::{
    event::LeafUse,
    id::{AuthorityId, InvalidId, Position, RotationId, text_serde},
    time::{DAY_MS, HOUR_MS, Timestamp},
};

/// A kind of authority. Each rotates by itself; several may be in rotation at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "the table below says what each one is")]
pub enum AuthorityType {
    Host,
    User,
    Db,
    DbClient,
    Openssh,
    Jwt,
    SamlIdp,
    OidcIdp,
    Spiffe,
    Okta,
    Awsra,
    Windows,
}

/// What a key signs with, and so where it is understood.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// X.509 certificates (RFC 5280).
    #[default] // What is older than the other kinds does not name it.
    Tls,
    /// OpenSSH certificates.
    Ssh,
    /// Tokens (RFC 7519), verified by JWKS.
    Jwt,
}

impl KeyKind {
    /// The name in `status` and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Jwt => "jwt",
        }
    }

    /// Is it the kind that needs no naming?
    pub fn is_tls(&self) -> bool {
        *self == Self::Tls
    }
}

/// One row of the table of authority types (rotation.md section 5).
pub struct AuthorityRow {
    /// Which type.
    pub authority_type: AuthorityType,
    /// Its name in commands, JSON, events and subjects.
    pub name: &'static str,
    /// Its name in a sentence: `Host CA`.
    pub title: &'static str,
    /// The keys it consists of.
    pub keys: &'static [KeyKind],
    /// What it signs, in words.
    pub signs: &'static str,
    /// Who verifies against it, in words.
    pub verifiers: &'static str,
    /// What people have to do outside the agents' reach, in the order of the phases; empty when nothing.
    pub by_hand: &'static [ByHand],
    /// The life of a leaf that a holder gets when nothing else is said, in milliseconds.
    pub leaf_ttl_ms: u64,
    /// What a leaf of it may be used for that `auth sign` makes.
    pub usage_by_hand: LeafUse,
    /// Are its leaves or tokens held by people or programs without an agent? Then the final standby
    /// waits for the last of them to expire (the time condition).
    pub held_without_agent: bool,
}

use AuthorityType as T;
use KeyKind::{Jwt, Ssh, Tls};

/// The table of authority types, in the order in which screens list them.
pub static AUTHORITY_TYPES: [AuthorityRow; 12] = [
    row(
        T::Host,
        "host",
        "Host CA",
        &[Tls, Ssh],
        "node and control-plane certificates, SSH host certificates",
        "every node and every TLS client; holders of a CA pin",
        by_hand::HOST,
        DAY_MS,
        LeafUse::Server,
        false,
    ),
    row(
        T::User,
        "user",
        "User CA",
        &[Tls, Ssh],
        "user TLS and SSH certificates",
        "gateways, nodes, sshd",
        by_hand::USER,
        12 * HOUR_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::Db,
        "db",
        "Database CA",
        &[Tls],
        "server certificates of databases",
        "database clients",
        by_hand::DB,
        90 * DAY_MS,
        LeafUse::Server,
        true,
    ),
    row(
        T::DbClient,
        "db_client",
        "Database client CA",
        &[Tls],
        "client certificates presented to databases",
        "self-hosted databases",
        by_hand::DB_CLIENT,
        HOUR_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::Openssh,
        "openssh",
        "OpenSSH CA",
        &[Ssh],
        "short-lived user certificates for agentless sshd",
        "sshd",
        by_hand::OPENSSH,
        HOUR_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::Jwt,
        "jwt",
        "JWT CA",
        &[Jwt],
        "tokens for applications",
        "JWKS readers",
        by_hand::JWT,
        15 * crate::time::MINUTE_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::SamlIdp,
        "saml_idp",
        "SAML IdP CA",
        &[Tls],
        "SAML assertions",
        "service providers",
        by_hand::SAML_IDP,
        90 * DAY_MS,
        LeafUse::Signing,
        true,
    ),
    row(
        T::OidcIdp,
        "oidc_idp",
        "OIDC IdP CA",
        &[Jwt],
        "OIDC tokens",
        "relying parties (JWKS)",
        &[],
        15 * crate::time::MINUTE_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::Spiffe,
        "spiffe",
        "SPIFFE CA",
        &[Tls, Jwt],
        "X.509 and JWT SVIDs",
        "workloads, federated domains",
        by_hand::SPIFFE,
        HOUR_MS,
        LeafUse::Both,
        true,
    ),
    row(
        T::Okta,
        "okta",
        "Okta CA",
        &[Jwt],
        "tokens for Okta",
        "Okta",
        by_hand::OKTA,
        15 * crate::time::MINUTE_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::Awsra,
        "awsra",
        "AWS Roles Anywhere CA",
        &[Tls],
        "client certificates for AWS Roles Anywhere",
        "the AWS trust anchor",
        by_hand::AWSRA,
        HOUR_MS,
        LeafUse::Client,
        true,
    ),
    row(
        T::Windows,
        "windows",
        "Windows CA",
        &[Tls],
        "client certificates for Windows desktops",
        "Active Directory",
        by_hand::WINDOWS,
        HOUR_MS,
        LeafUse::Client,
        true,
    ),
];

#[allow(
    clippy::too_many_arguments,
    reason = "one row of a table; the call sites read as columns"
)]
const fn row(
    authority_type: AuthorityType,
    name: &'static str,
    title: &'static str,
    keys: &'static [KeyKind],
    signs: &'static str,
    verifiers: &'static str,
    by_hand: &'static [ByHand],
    leaf_ttl_ms: u64,
    usage_by_hand: LeafUse,
    held_without_agent: bool,
) -> AuthorityRow {
    AuthorityRow {
        authority_type,
        name,
        title,
        keys,
        signs,
        verifiers,
        by_hand,
        leaf_ttl_ms,
        usage_by_hand,
        held_without_agent,
    }
}

impl AuthorityType {
    /// All types, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        AUTHORITY_TYPES.iter().map(|row| row.authority_type)
    }

    /// This type's row of the table.
    pub fn row(self) -> &'static AuthorityRow {
        &AUTHORITY_TYPES[self as usize]
    }

    /// The name in commands, JSON, events and subjects.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Does the type have keys of this kind?
    pub fn has(self, kind: KeyKind) -> bool {
        self.row().keys.contains(&kind)
    }

    /// The valid names, for a usage error.
    pub fn names() -> String {
        AUTHORITY_TYPES
            .iter()
            .map(|r| r.name)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl fmt::Display for AuthorityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AuthorityType {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        AUTHORITY_TYPES.iter().find(|r| r.name == s).map(|r| r.authority_type).ok_or_else(|| {
            InvalidId::new(
                s,
                "an authority type: host, user, db, db_client, openssh, jwt, saml_idp, oidc_idp, spiffe, okta, awsra, windows",
            )
        })
    }
}

text_serde! { AuthorityType: "^[a-z_]+$"; }

/// The public half of one generation of an authority's key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuthorityKey {
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub id: AuthorityId,
    /// What it signs with.
    pub kind: KeyKind,
    /// 1 for the key made at `init`, one more for each rotation that made a key.
    pub generation: u32,
    /// The self-signed CA certificate, DER, base64; empty for SSH and JWT keys, which have none.
    pub certificate: String,
    /// The SubjectPublicKeyInfo (RFC 5480), DER, base64, of a key without a certificate; empty for one with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public_key: String,
    /// `ECDSA P-256`.
    pub algorithm: String,
    /// Where the private half is kept: `software` or `pkcs11`.
    pub storage: String,
    /// The end of the CA certificate's life; a key without one lives as long.
    pub not_after: Timestamp,
    /// The rotation that made it; none for the first generation.
    pub rotation: Option<RotationId>,
    /// Where in the log it was made.
    pub position: Position,
}
