//! What is asked for by hand: credentials of parties without an agent, and what is to count no more.

use std::{fmt, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KeyRequest;
use crate::{
    authority::AuthorityType,
    event::Form,
    id::{Hostname, NodeId, Serial, TokenId, UserName},
};

/// What a party without an agent is to get. The order is its grant: nothing else names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sign {
    /// Of which authority.
    pub authority_type: AuthorityType,
    /// The party's name: the last part of the URI in what it gets, and its common name.
    pub holder: UserName,
    /// The form, with what stands in it. The principals of an SSH host are its names and addresses.
    pub form: Form,
    /// DNS names, of servers only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Hostname>,
    /// Addresses, of servers only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Its life in milliseconds, where that is to be shorter than what the type gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The key to certify; of a token the one that it is sealed to.
    pub key: KeyRequest,
}

/// Which certificates are revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", content = "of", rename_all = "kebab-case")]
pub enum Revocable {
    /// The one with this serial number.
    Serial(Serial),
    /// All of a node's; it needs a new join token.
    Node(NodeId),
    /// All of a person's; somebody has to make a new identity.
    User(UserName),
    /// All that a party without an agent got.
    External(UserName),
    /// All of every node that joined with this token, removed or not.
    IssuedByToken(TokenId),
}

impl fmt::Display for Revocable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial {serial}"),
            Self::Node(node) => write!(f, "node/{node}"),
            Self::User(user) => write!(f, "user/{user}"),
            Self::External(name) => write!(f, "external/{name}"),
            Self::IssuedByToken(token) => write!(f, "token {token}"),
        }
    }
}
