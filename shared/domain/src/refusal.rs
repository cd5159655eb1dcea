//! The domain's "no": a stable code used alike in HTTP problems, the CLI, metrics and docs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{gate::Gate, id::InvalidId};

macro_rules! codes {
    ($($variant:ident = $name:literal, $status:literal, $short:literal;)*) => {
        /// Why a command is refused. The names are stable; scripts match on them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(missing_docs, reason = "each variant's meaning is its short text, see `Code::meaning`")]
        pub enum Code { $($variant,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The stable snake-case name.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
            /// The HTTP status of a problem with this code (RFC 9457).
            pub fn http_status(self) -> u16 { match self { $(Self::$variant => $status,)* } }
            /// One sentence: what it means. `explain` says more.
            pub fn meaning(self) -> &'static str { match self { $(Self::$variant => $short,)* } }
        }
    };
}

codes! {
    RotationInProgress = "rotation_in_progress", 409, "a rotation of this type is in progress";
    IllegalTransition = "illegal_transition", 409, "there is no way from the current phase to the asked one";
    StaleView = "stale_view", 409, "the rotation has moved on since the caller looked";
    NodesLagging = "nodes_lagging", 409, "a required node has not reached the current phase";
    MembersLagging = "members_lagging", 409, "a running control-plane service has not reached the current phase";
    KeyMissing = "key_missing", 409, "the new key is not in the log yet";
    ConsumersLagging = "consumers_lagging", 409, "an external consumer has not attested for this phase";
    TimeCondition = "time_condition", 409, "certificates of the retiring authority are still held by parties without an agent";
    PublicationTime = "publication_time", 409, "the new key has not been published long enough for caches to know it";
    TypeNotInService = "type_not_in_service", 422, "the type has no keys of this kind in this cluster";
    GracePeriodInvalid = "grace_period_invalid", 422, "the grace period must be longer than nothing";
    CommandIdReused = "command_id_reused", 409, "the same command id came with another request";
    CommandIdStale = "command_id_stale", 422, "the command id is too old, from the future, or not a UUIDv7";
    ClockSuspect = "clock_suspect", 503, "the control plane's clock disagrees with its log";
    ReasonRequired = "reason_required", 422, "this needs a reason for the audit log";
    NotPermitted = "not_permitted", 403, "the caller's roles do not allow this";
    CertificateUnknown = "certificate_unknown", 403, "the certificate verifies but was never issued by this control plane, or no longer counts";
    Unauthenticated = "unauthenticated", 401, "this needs a client certificate";
    TokenUnknown = "token_unknown", 403, "no such join token";
    TokenExpired = "token_expired", 403, "the join token has expired";
    TokenUsed = "token_used", 403, "the join token has no uses left";
    NameNotGranted = "name_not_granted", 403, "the token does not grant this name";
    NameTaken = "name_taken", 409, "another node bears this name";
    NameReserved = "name_reserved", 422, "this name belongs to the control plane";
    AddressNotGranted = "address_not_granted", 403, "the grant does not include this address";
    TypeNotGranted = "type_not_granted", 403, "the grant does not include this authority type or role";
    KeyReused = "key_reused", 409, "this key is already certified for another holder, or is an authority's";
    SignInvalid = "sign_invalid", 422, "what is to be signed is not what its authority type gives";
    CsrInvalid = "csr_invalid", 422, "the certificate request cannot be used";
    NodeUnknown = "node_unknown", 404, "no such node";
    NodeRemoved = "node_removed", 403, "this node was removed";
    NotExcluded = "not_excluded", 409, "the node is not excluded from a rotation in progress";
    NoRotation = "no_rotation", 409, "nothing is in rotation";
    UserExists = "user_exists", 409, "a user of this name exists";
    UserUnknown = "user_unknown", 404, "no such user";
    LastAdmin = "last_admin", 409, "the last administrator cannot be removed";
    RolesInvalid = "roles_invalid", 422, "the roles are not usable";
    TokenInvalid = "token_invalid", 422, "the token that is asked for would be of no use";
    ConsumerUnknown = "consumer_unknown", 404, "no such external consumer";
    ConsumerExists = "consumer_exists", 409, "an external consumer of this name is registered for this type";
    ReportInvalid = "report_invalid", 422, "the fact report cannot be used";
    ReportTooOften = "report_too_often", 429, "facts were reported less than five seconds ago and nothing changed";
    RecoveryRefused = "recovery_refused", 403, "the certificate does not allow a recovery";
    CertificateSuperseded = "certificate_superseded", 403, "a later certificate of this node has been in use";
    MemberUnknown = "member_unknown", 404, "no such control-plane member";
    ClusterExists = "cluster_exists", 409, "the log holds a cluster already";
    NoCluster = "no_cluster", 409, "the log holds no cluster yet";
    NothingSuspect = "nothing_suspect", 409, "the clock is not suspect";
    NotFound = "not_found", 404, "no such thing";
    BadRequest = "bad_request", 400, "the request cannot be read";
    TooLarge = "too_large", 413, "the request is too large";
    RateLimited = "rate_limited", 429, "too many requests; try again later";
    ViewsLagging = "views_lagging", 503, "the views have not read the log to its end";
    NotServing = "not_serving", 503, "this control-plane service does not hold the current phase yet";
    LogUnavailable = "log_unavailable", 503, "the event log cannot be reached or written";
    SignerUnavailable = "signer_unavailable", 503, "the certificate was authorised but is not signed yet";
    Internal = "internal", 500, "a bug";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}
impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
impl std::str::FromStr for Code {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        Self::ALL
            .iter()
            .copied()
            .find(|c| c.name() == s)
            .ok_or_else(|| InvalidId::new(s, "a refusal code"))
    }
}
impl schemars::JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z_]+$" })
    }
}

/// The answer "no", with what to say about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// One sentence for people, without the code: names the obstacle.
    pub text: String,
    /// The closed gate, when that is the obstacle: who lags and what is missing.
    pub gate: Option<Box<Gate>>,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            gate: None,
        }
    }

    /// A refusal because of a closed gate.
    pub fn closed(code: Code, text: impl Into<String>, gate: Gate) -> Self {
        Self {
            code,
            text: text.into(),
            gate: Some(Box::new(gate)),
        }
    }
}
