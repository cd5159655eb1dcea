//! Identifiers: one newtype each, with one parsing constructor, so that no two can be swapped.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Why a text is not the identifier it should be. The message says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidId {
    /// What was given, cut to 80 characters so that hostile input cannot flood a log.
    pub text: String,
    /// What would have been right, in words.
    pub expected: &'static str,
}

impl InvalidId {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(s).map(Self).map_err(|_| InvalidId::new(s, "a UUID"))
            }
        }
    )*};
}

uuid_ids! {
    /// A node, for as long as its data directory lives (it survives renewals, recovery and rejoining).
    NodeId;
    /// A running control-plane service that speaks TLS, stable over restarts (kept in its data directory).
    MemberId;
    /// One start of an agent or of a member: facts of an older boot never count.
    BootId;
    /// A join token (the secret itself is never known to the control plane, only its digest).
    TokenId;
    /// One rotation of one authority type, from `init` to the final `standby`.
    RotationId;
    /// A command, made by whoever sends it (UUIDv7); with its principal the key of idempotency.
    CommandId;
    /// An event in the log (UUIDv7).
    EventId;
    /// A permission to sign exactly one certificate.
    AuthorizationId;
}

impl CommandId {
    /// The creation time inside a version 7 UUID (RFC 9562, section 5.7), or `None` for other versions.
    pub fn created_ms(&self) -> Option<i64> {
        (self.0.get_version_num() == 7).then(|| (self.0.as_u128() >> 80) as i64)
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Every event names several digests: one call of the formatter for each of their bytes was an eighth of the time
    // that a rotation takes.
    bytes.chunks(32).try_for_each(|chunk| {
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(chunk) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        let text = std::str::from_utf8(&text[..2 * chunk.len()]).expect("digits are ASCII");
        f.write_str(text)
    })
}

fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    if hex.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Serialises by `Display` and reads by `FromStr`, with a string schema.
macro_rules! text_serde {
    ($($name:ident: $pattern:expr;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )*};
}
pub(crate) use text_serde;

macro_rules! sha256_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sha256:")?;
                write_hex(f, &self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sha256:")?;
                write_hex(f, &self.0[..6])
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                s.strip_prefix("sha256:").and_then(parse_hex).map(Self)
                    .ok_or_else(|| InvalidId::new(s, "`sha256:` and 64 hexadecimal digits"))
            }
        }
        text_serde! { $name: "^sha256:[0-9a-f]{64}$"; }
    )*};
}

sha256_ids! {
    /// SHA-256 of a DER SubjectPublicKeyInfo (RFC 5280, section 4.1): names a key, and so an authority.
    SpkiPin;
    /// SHA-256 of a whole certificate in DER: names that one certificate.
    CertDigest;
    /// SHA-256 of a join token's 32 bytes.
    TokenHash;
    /// SHA-256 of a command's method, path and body, to tell a repeated command from a reused id.
    BodyDigest;
}

impl SpkiPin {
    /// `sha256:9f2c…e1`: enough to recognise a pin on a screen.
    pub fn short(&self) -> String {
        format!("sha256:{:02x}{:02x}…{:02x}", self.0[0], self.0[1], self.0[31])
    }
}

/// An authority is named by its key.
pub type AuthorityId = SpkiPin;

/// A certificate's serial number (RFC 5280, section 4.1.2.2): 16 random bytes, positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub [u8; 16]);

impl Serial {
    /// Makes a serial of random bytes: the first byte is forced to 0x40..=0x7f, so that the DER integer
    /// is positive and always 16 bytes long.
    pub fn of_random(mut bytes: [u8; 16]) -> Self {
        bytes[0] = (bytes[0] & 0x7f) | 0x40;
        Self(bytes)
    }

    /// A serial of an SSH certificate, which has 64 bits and is not 0: nothing stands in its upper half.
    pub fn of_random_ssh(mut bytes: [u8; 16]) -> Self {
        bytes[..8].fill(0);
        if bytes == [0; 16] {
            bytes[15] = 1;
        }
        Self(bytes)
    }

    /// The number that an SSH certificate bears; none for the serials of others.
    pub fn ssh(self) -> Option<u64> {
        let (upper, lower) = self.0.split_at(8);
        let number = u64::from_be_bytes(lower.try_into().ok()?);
        (upper == [0; 8]).then_some(number)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}
impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}
impl FromStr for Serial {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        parse_hex(s)
            .map(Self)
            .ok_or_else(|| InvalidId::new(s, "a serial of 32 hexadecimal digits"))
    }
}

/// Is this a DNS name of letters, digits and hyphens (RFC 1123, section 2.1), lower case, at most 253 long?
fn is_dns_name(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= 253
        && s.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
        && !s.rsplit('.').next().is_some_and(is_number)
}

/// A name whose last label is a number reads as an IPv4 address: `127.0.0.1`, `2130706433`, `0x7f.1`, `0x7f000001`.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x");
    hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        || label.bytes().all(|b| b.is_ascii_digit())
}

fn is_user_name(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && s.as_bytes()[0].is_ascii_alphanumeric()
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident($check:ident, $expected:expr, $pattern:expr);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                let lower = s.to_ascii_lowercase();
                if $check(&lower) { Ok(Self(lower)) } else { Err(InvalidId::new(s, $expected)) }
            }
        }
        text_serde! { $name: $pattern; }
    )*};
}

names! {
    /// The cluster's name, a DNS name: it stands in every certificate and every subject of the log.
    ClusterName(is_dns_name, "a DNS name (letters, digits, hyphens and dots)", "^[a-z0-9.-]{1,253}$");
    /// A host name that a certificate may bear: a DNS name, never a wildcard.
    Hostname(is_dns_name, "a DNS host name (letters, digits, hyphens and dots; no wildcard)", "^[a-z0-9.-]{1,253}$");
    /// A person's or a program's name as an operator.
    UserName(is_user_name, "a user name (1 to 64 of a-z, 0-9, `.`, `_`, `-`)", "^[a-z0-9][a-z0-9._-]{0,63}$");
    /// An external consumer's name.
    ConsumerName(is_user_name, "a consumer name (1 to 64 of a-z, 0-9, `.`, `_`, `-`)", "^[a-z0-9][a-z0-9._-]{0,63}$");
}

impl ClusterName {
    /// The name as one token of a subject: dots become underscores (contract: NATS).
    pub fn as_token(&self) -> String {
        self.0.replace('.', "_")
    }
}

/// A place in the log, 1 for the first event; 0 means "before everything".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// Who holds a certificate or asks for something. Text form: `user/alice`, `node/<id>`, `gateway/<id>`,
/// `system/clock`: the last two path segments of the URI in its certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// An agent.
    Node(NodeId),
    /// A control-plane service with a TLS listener.
    Gateway(MemberId),
    /// An operator, auditor or administrator: a person or a program.
    User(UserName),
    /// A party without an agent, served by `auth sign`; never a principal of a route.
    External(String),
    /// The orchestrator's own schedule, or a tool on the control-plane host.
    System(SystemActor),
    /// Nobody: a caller without a client certificate, on the public routes.
    Anonymous,
}

/// The parts of the control plane that act by themselves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SystemActor {
    /// The orchestrator's schedule.
    Clock,
    /// The signer.
    Signer,
    /// `carousel recover` and the first start, run on the control-plane host.
    Host,
}

impl Principal {
    /// The URI subject alternative name of this holder's certificates.
    pub fn uri(&self, cluster: &ClusterName) -> String {
        format!("carousel://{cluster}/{self}")
    }

    /// Reads the URI of a certificate; `None` if it is another cluster's or malformed.
    pub fn of_uri(cluster: &ClusterName, uri: &str) -> Option<Self> {
        let path = uri
            .strip_prefix("carousel://")?
            .strip_prefix(cluster.as_str())?
            .strip_prefix('/')?;
        let principal: Self = path.parse().ok()?;
        let in_certificates = matches!(
            principal,
            Self::Node(_) | Self::Gateway(_) | Self::User(_) | Self::External(_)
        );
        in_certificates.then_some(principal)
    }

    /// The last token of the subject that this holder's events stand on; no two holders share one.
    pub fn holder_token(&self) -> String {
        match self {
            Self::Node(id) => id.to_string(),
            Self::Gateway(id) => id.to_string(),
            // A user may be called `cluster` or `clock`.
            Self::User(name) => format!("user-{}", token_of(name.as_str())),
            Self::External(name) => format!("external-{}", token_of(name)),
            Self::System(SystemActor::Clock) => "clock".into(),
            Self::System(SystemActor::Signer) => "signer".into(),
            Self::System(SystemActor::Host) => "host".into(),
            Self::Anonymous => "anonymous".into(),
        }
    }
}

/// A name as one token: `.` is `_`, and `_` is `U`, which no name has, so that `a.b` and `a_b` stay two.
fn token_of(name: &str) -> String {
    name.replace('_', "U").replace('.', "_")
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Gateway(id) => write!(f, "gateway/{id}"),
            Self::User(name) => write!(f, "user/{name}"),
            Self::External(name) => write!(f, "external/{name}"),
            Self::System(SystemActor::Clock) => f.write_str("system/clock"),
            Self::System(SystemActor::Signer) => f.write_str("system/signer"),
            Self::System(SystemActor::Host) => f.write_str("system/host"),
            Self::Anonymous => f.write_str("anonymous/-"),
        }
    }
}
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Principal {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let bad = || InvalidId::new(s, "a principal such as `user/alice` or `node/<id>`");
        let (kind, id) = s.split_once('/').ok_or_else(bad)?;
        Ok(match kind {
            "node" => Self::Node(id.parse()?),
            "gateway" => Self::Gateway(id.parse()?),
            "user" => Self::User(id.parse()?),
            "external" if is_user_name(id) => Self::External(id.into()),
            "system" => Self::System(match id {
                "clock" => SystemActor::Clock,
                "signer" => SystemActor::Signer,
                "host" => SystemActor::Host,
                _ => return Err(bad()),
            }),
            "anonymous" => Self::Anonymous,
            _ => return Err(bad()),
        })
    }
}

text_serde! {
    Serial: "^[0-9a-f]{32}$";
    Principal: "^(node|gateway|user|external|system|anonymous)/.+$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_reads_as_an_address_is_no_host_name() {
        for address in [
            "127.0.0.1",
            "10.0.0.5",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "127.0.0.0x1",
            "db.7",
            "0x",
        ] {
            assert!(address.parse::<Hostname>().is_err(), "{address}");
        }
        for name in [
            "n1.example",
            "10.0.0.5.example",
            "0x7f.example",
            "db-7",
            "0xg",
            "7b",
        ] {
            assert!(name.parse::<Hostname>().is_ok(), "{name}");
        }
    }
}
