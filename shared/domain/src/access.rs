//! Who may do what: roles, actions, and what a join token grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    authority::AuthorityType,
    id::{Hostname, InvalidId, Principal, text_serde},
};

/// A role of a person or program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// All reads.
    Auditor,
    /// Rotates, plans, excludes, attests, probes; reads.
    Operator,
    /// Users, tokens, removals, clusters, recovery; reads. Not rotation: that is the operator's.
    Admin,
}

impl FromStr for RoleName {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        match s {
            "auditor" => Ok(Self::Auditor),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidId::new(s, "a role: admin, operator, auditor")),
        }
    }
}

/// What a route or command does, as the table of permissions knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Any read of a person: status, nodes, certificates, audit, plan, explain.
    Read,
    /// Phase commands, mode changes, excluding and including nodes, attesting, probing, accepting the clock.
    Rotate,
    /// Users, tokens, removals of nodes, external consumers.
    Administer,
    /// A person renewing the own identity.
    RenewOwn,
    /// A node reading its own desired state, reporting its own facts, asking for its own certificates.
    NodeSelf,
    /// A member's own certificates and reports.
    MemberSelf,
    /// What only the control plane itself does: the schedule, the first start, recovery on the host.
    System,
    /// Joining and recovering: without a client certificate.
    Public,
}

/// May a principal with these roles do this? The one table; tested route by route.
pub fn permits(principal: &Principal, roles: &BTreeSet<RoleName>, action: Action) -> bool {
    match (action, principal) {
        (Action::Public, _) => true,
        (Action::Read, Principal::User(_)) => !roles.is_empty(),
        (Action::Rotate, Principal::User(_)) => roles.contains(&RoleName::Operator),
        (Action::Administer, Principal::User(_)) => roles.contains(&RoleName::Admin),
        (Action::RenewOwn, Principal::User(_)) => !roles.is_empty(),
        (Action::NodeSelf, Principal::Node(_)) => true,
        (Action::MemberSelf, Principal::Gateway(_)) => true,
        // The schedule rotates; everything else of the control plane's own is `System`.
        (Action::System | Action::Rotate | Action::MemberSelf, Principal::System(_)) => true,
        _ => false,
    }
}

/// The roles in which a node uses an authority type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Uses {
    /// Presents certificates of the type as a TLS client.
    #[serde(default)]
    pub client: bool,
    /// Serves certificates of the type.
    #[serde(default)]
    pub server: bool,
    /// Trusts the type.
    #[serde(default)]
    pub verifier: bool,
}

impl Uses {
    /// Client, server and verifier: what `host` is to a node.
    pub const ALL: Self = Self { client: true, server: true, verifier: true };
    /// Verifier only: what every other type is to a node unless its grant says more.
    pub const VERIFIER: Self = Self { client: false, server: false, verifier: true };

    /// The roles that a node has in a type when its grant names just the type.
    pub fn usual(authority_type: AuthorityType) -> Self {
        if authority_type == AuthorityType::Host { Self::ALL } else { Self::VERIFIER }
    }
}

/// A host name or a suffix pattern `*.example.com`, which stands for any one name below it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(Hostname),
    /// Any name that ends in `.suffix`.
    Below(Hostname),
}

impl NamePattern {
    /// Does the pattern grant the name?
    pub fn grants(&self, name: &Hostname) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => {
                name.as_str().strip_suffix(suffix.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}
impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for NamePattern {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        match s.strip_prefix("*.") {
            Some(suffix) => suffix.parse().map(Self::Below),
            None => s.parse().map(Self::Exact),
        }
        .map_err(|_| InvalidId::new(s, "a host name or a pattern such as *.db.example.com"))
    }
}
text_serde! { NamePattern: "^(\\*\\.)?[a-z0-9.-]+$"; }

/// What a node may be: granted by a token, never claimed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    /// The names that its certificates may bear.
    pub names: Vec<NamePattern>,
    /// The addresses that its certificates may bear and its probe endpoint may listen on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The authority types it uses, with the roles in each.
    pub uses: BTreeMap<AuthorityType, Uses>,
}
