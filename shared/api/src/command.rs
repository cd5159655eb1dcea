//! The bodies of state-changing requests, and what is answered.
//!
//! Every body carries an id that its sender made (UUIDv7): with the caller it is the key of idempotency,
//! and the SHA-256 of method, path and raw body tells a repeated command from a reused id.

use std::collections::BTreeMap;

use domain::{
    Answer, AuthorityType, Code, CommandId, ConsumerName, InvalidId, NodeId, Order, Phase, Position, Serial,
    SpkiPin, Timestamp, TokenHash, TokenId,
    access::{Grant, NamePattern, RoleName, Uses},
    command::{Expectation, LaggingPolicy, Revocable, Rotate},
    probe::ProbeAddress,
    trust::SignedBundle,
};
use serde::{Deserialize, Serialize};

use crate::problem::{Problem, TimeConditionDoc};

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Made by the sender, UUIDv7.
            pub id: CommandId,
            /// Why, for the audit log.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub reason: Option<String>,
            $($(#[$field_meta])* pub $field: $ty,)*
        }
    )*};
}

impl RotateRequest {
    /// The next step of a manual rotation, or its start where no phase is named, for whoever has not looked before.
    pub fn manual(id: CommandId, authority_type: AuthorityType, phase: Option<Phase>) -> Self {
        Self {
            id,
            reason: None,
            authority_type,
            phase,
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        }
    }
}

/// What a body asks for, where the body alone says it: alike whether it came over HTTP or over the bus.
impl RotateRequest {
    /// The phase command.
    pub fn order(&self) -> Rotate {
        Rotate {
            authority_type: self.authority_type,
            target: self.phase,
            manual: self.manual,
            grace_period_ms: self.grace_period_ms,
            on_lagging: self.on_lagging,
            force: self.force,
            expects: self.expects.clone(),
        }
    }
}

impl TokenRequest {
    /// The token. `host` in its usual roles is always among what it grants.
    ///
    /// # Errors
    /// `token_invalid` for a name that is none.
    pub fn order(self) -> Result<Order, Box<Problem>> {
        let names: Result<Vec<NamePattern>, _> = self.names.iter().map(|name| name.parse()).collect();
        let names = names.map_err(|error| Box::new(Problem::new(Code::TokenInvalid, error.to_string())))?;
        let mut uses: BTreeMap<AuthorityType, Uses> = self.types;
        uses.entry(AuthorityType::Host)
            .or_insert(Uses::usual(AuthorityType::Host));
        Ok(Order::CreateToken {
            hash: self.hash,
            grant: Grant {
                names,
                addresses: self.addresses,
                uses,
            },
            uses: self.uses,
            ttl_ms: self.ttl_ms,
        })
    }
}

impl ConsumerRequest {
    /// The consumer.
    ///
    /// # Errors
    /// `bad_request` for a name that is none.
    pub fn order(self) -> Result<Order, Box<Problem>> {
        let bad = |error: InvalidId| Box::new(Problem::new(Code::BadRequest, error.to_string()));
        Ok(Order::AddConsumer {
            authority_type: self.authority_type,
            consumer: self.name.parse().map_err(bad)?,
            owner: self.owner,
            contact: self.contact,
            probe: self.probe,
        })
    }
}

impl AttestRequest {
    /// A person's word for this consumer.
    pub fn order(self, consumer: ConsumerName) -> Order {
        Order::AttestConsumer {
            authority_type: self.authority_type,
            consumer,
            expects: self.expects,
            probed: false,
            saw: None,
        }
    }
}

impl WithdrawRequest {
    /// The end of this consumer.
    pub fn order(&self, consumer: ConsumerName) -> Order {
        Order::WithdrawConsumer {
            authority_type: self.authority_type,
            consumer,
        }
    }
}

bodies! {
    /// `POST /v1/rotate`.
    RotateRequest {
        /// Which authority.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        /// The phase to enter; none starts a rotation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phase: Option<Phase>,
        /// `--manual`.
        #[serde(default)]
        manual: bool,
        /// `--grace-period` in milliseconds, only where a rotation starts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_period_ms: Option<u64>,
        /// `--on-lagging`, only where a semi-automatic rotation starts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_lagging: Option<LaggingPolicy>,
        /// Pass over lagging nodes, consumers and time conditions; needs a reason.
        #[serde(default)]
        force: bool,
        /// What the caller saw; another state now is `stale_view`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expects: Option<Expectation>,
    }
    /// The body of what needs no more than an id and a reason: exclude, include, remove, accept the clock, probe.
    PlainRequest {}
    /// `POST /v1/tokens`. The secret stays with its maker; only its digest travels.
    TokenRequest {
        /// SHA-256 of the token's bytes as text.
        hash: TokenHash,
        /// Names or suffix patterns (`*.db.example.com`).
        names: Vec<String>,
        /// Addresses that certificates may bear.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<std::net::IpAddr>,
        /// Authority types with the roles in each; `host` in all roles is always among them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        types: BTreeMap<AuthorityType, Uses>,
        /// How many nodes may join with it.
        uses: u32,
        /// How long it lives, in milliseconds.
        ttl_ms: u64,
    }
    /// `POST /v1/users`.
    UserRequest {
        /// The new operator's name.
        name: String,
        /// The roles.
        roles: Vec<RoleName>,
        /// The accounts that their SSH certificates are good for; none for the one of their own name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logins: Vec<String>,
        /// The certificate request for the first certificate, PEM.
        csr: String,
    }
    /// `POST /v1/consumers`: a party that trusts an exported authority and has no agent.
    ConsumerRequest {
        /// Its name, one of its type.
        name: String,
        /// Which authority it trusts.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        /// Who answers for it.
        owner: String,
        /// How to reach them.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        contact: String,
        /// Where it can be looked at instead of asked: `tls://HOST:PORT`, `ssh://HOST:PORT`, `http://HOST/PATH`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<ProbeAddress>,
    }
    /// `POST /v1/consumers/{name}/attest`.
    AttestRequest {
        /// Of which authority.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        /// The rotation and phase that it is ready for; another one now is `stale_view`.
        expects: Expectation,
    }
    /// `POST /v1/consumers/{name}/probe`.
    ConsumerProbeRequest {
        /// Of which authority.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
    }
    /// `POST /v1/consumers/{name}/withdraw`.
    WithdrawRequest {
        /// Of which authority.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
    }
    /// `POST /v1/sign`: a certificate for a party without an agent. The request is its grant.
    SignRequest {
        /// Of which authority.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        /// The party's name.
        name: String,
        /// A certificate request, PEM: only its key is taken. This or `ssh_key`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        csr: Option<String>,
        /// One line as in `id_ed25519.pub`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ssh_key: Option<String>,
        /// Of `windows` only: the user in its directory, `alice@corp.example.com`, who is to log in with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upn: Option<String>,
        /// DNS names, of servers only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
        /// Addresses, of servers only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<std::net::IpAddr>,
        /// The accounts of an SSH certificate of a person or a program.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        principals: Vec<String>,
        /// Its critical options.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        critical_options: BTreeMap<String, String>,
        /// Its extensions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        extensions: Vec<String>,
        /// Its life in milliseconds; none for what the type gives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    }
    /// `POST /v1/sign/token`.
    SignTokenRequest {
        /// Of which authority.
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        /// Whose it is: the claim `sub`.
        name: String,
        /// For whom: the claim `aud`.
        audience: Vec<String>,
        /// Its life in milliseconds; none for what the cluster gives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
        /// The key to seal the token to: the asker's, made for this one answer. SubjectPublicKeyInfo, DER, base64.
        public_key: String,
    }
    /// `POST /v1/users/self/ssh`: by the issuer that the current row names, with the accounts that the log gives.
    SshRequest {
        /// One line as in `id_ed25519.pub`.
        ssh_key: String,
    }
    /// `POST /v1/certificates/revoke`.
    RevokeRequest {
        /// Which certificates.
        target: RevokeTarget,
    }
    /// `POST /v1/users/self/certificate`.
    RenewRequest {
        /// The certificate request, PEM.
        csr: String,
    }
}

/// Which certificates are revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeTarget {
    /// The one with this serial number.
    Serial(Serial),
    /// All of a node's, by its host name or id.
    Node(String),
    /// All of a person's.
    User(String),
    /// All that a party without an agent got.
    External(String),
    /// All of every node that joined with this token.
    IssuedByToken(TokenId),
}

impl RevokeTarget {
    /// The same with the node that is called so.
    ///
    /// # Errors
    /// `node_unknown`, and `bad_request` for a name that is none.
    pub fn resolve(self, node: &dyn Fn(&str) -> Option<NodeId>) -> Result<Revocable, Box<Problem>> {
        let bad = |error: InvalidId| Box::new(Problem::new(Code::BadRequest, error.to_string()));
        Ok(match self {
            Self::Serial(serial) => Revocable::Serial(serial),
            Self::Node(name) => Revocable::Node(node_called(node, &name)?),
            Self::User(name) => Revocable::User(name.parse().map_err(bad)?),
            Self::External(name) => Revocable::External(name.parse().map_err(bad)?),
            Self::IssuedByToken(token) => Revocable::IssuedByToken(token),
        })
    }
}

/// The node of this name or id.
///
/// # Errors
/// `node_unknown`.
pub fn node_called(node: &dyn Fn(&str) -> Option<NodeId>, name: &str) -> Result<NodeId, Box<Problem>> {
    node(name).ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        Box::new(Problem::new(
            Code::NodeUnknown,
            format!("no node is called {name:?}"),
        ))
    })
}

/// A command as its sender wrote it down.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// Made by the sender, UUIDv7.
    pub id: CommandId,
    /// Why, for the audit log.
    pub reason: Option<String>,
    /// What is asked for.
    pub order: Order,
}

/// The answer to `POST /v1/sign`, `/v1/sign/token` and `/v1/users/self/ssh`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignAnswer {
    /// PEM, one line as in `id_ed25519-cert.pub`, or a token that is sealed to the asker (RFC 7516, compact).
    pub credential: String,
    /// Its serial number.
    pub serial: Serial,
    /// The end of its life.
    pub not_after: Timestamp,
    /// Of which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// The key that signed it.
    pub issuer: SpkiPin,
    /// Its generation.
    pub generation: u32,
    /// Is the rotation in progress retiring it? Then this is to be signed again before that rotation ends.
    pub retiring: bool,
    /// The phase of the type.
    pub phase: Phase,
    /// The authority's own certificate, PEM, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// The position of `certificate.issued`.
    pub position: Position,
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// A read that has seen this position sees the command's effect.
    pub position: Position,
    /// What was done.
    pub answer: Answer,
    /// Accepted, but the control plane's own parts were not there within 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Whom a forced step locked out: until when they would have held their certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_out: Option<TimeConditionDoc>,
}

/// The answer to `POST /v1/tokens`: what a join line needs beside the secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token's id, for `tokens rm`.
    pub id: TokenId,
    /// When it ends.
    pub expires: Timestamp,
    /// The pin of each trusted host authority; either works during a rotation.
    pub ca_pins: Vec<SpkiPin>,
    /// The pin of the bundle key.
    pub bundle_pin: SpkiPin,
    /// The position of the event.
    pub position: Position,
}

/// The answer to `POST /v1/users` and to a renewal: all that an identity file needs beside its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserCertificateAnswer {
    /// The leaf, PEM.
    pub certificate: String,
    /// The end of its life.
    pub not_after: Timestamp,
    /// The authority that signed it.
    pub issuer: SpkiPin,
    /// The signed host bundle: what to trust.
    pub bundle: SignedBundle,
    /// The pin of the bundle key.
    pub bundle_pin: SpkiPin,
    /// The position of `certificate.issued`.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_field_is_refused_and_not_silently_ignored() {
        let body = r#"{"id":"0198f3c2-77aa-7d01-9b1e-5c2f6a10e9d3","type":"host","fase":"init"}"#;
        assert!(serde_json::from_str::<RotateRequest>(body).is_err());
        let body = r#"{"id":"0198f3c2-77aa-7d01-9b1e-5c2f6a10e9d3","type":"host","phase":"init"}"#;
        assert_eq!(
            serde_json::from_str::<RotateRequest>(body).unwrap().phase,
            Some(Phase::Init)
        );
    }
}
