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
    /// Signing for parties without an agent; where the type is known, it is what [`Action::to_sign`] says.
    Sign,
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

impl Action {
    /// Signing a credential of this type for a party without an agent: databases are what operators run, the rest is for those
    /// who say who is who.
    pub fn to_sign(authority_type: AuthorityType) -> Self {
        match authority_type {
            AuthorityType::Db | AuthorityType::DbClient => Self::Rotate,
            _ => Self::Administer,
        }
    }
}

/// May a principal with these roles do this? The one table; tested route by route.
///
/// Roles are those that the log names now, never those of the certificate; only users have any.
pub fn permits(principal: &Principal, roles: &BTreeSet<RoleName>, action: Action) -> bool {
    let is_user = matches!(principal, Principal::User(_));
    // The schedule and the host itself act for the control plane.
    let is_system = matches!(principal, Principal::System(_));
    match action {
        Action::Public => true,
        Action::Read | Action::RenewOwn => is_user && !roles.is_empty(),
        Action::Rotate => is_system || (is_user && roles.contains(&RoleName::Operator)),
        Action::Sign => is_user && (roles.contains(&RoleName::Operator) || roles.contains(&RoleName::Admin)),
        Action::Administer => is_user && roles.contains(&RoleName::Admin),
        Action::NodeSelf => matches!(principal, Principal::Node(_)),
        Action::MemberSelf => is_system || matches!(principal, Principal::Gateway(_)),
        Action::System => is_system,
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
    pub const ALL: Self = Self {
        client: true,
        server: true,
        verifier: true,
    };
    /// Verifier only: what every other type is to a node unless its grant says more.
    pub const VERIFIER: Self = Self {
        client: false,
        server: false,
        verifier: true,
    };

    /// The roles that a node has in a type when its grant names just the type.
    pub fn usual(authority_type: AuthorityType) -> Self {
        if authority_type == AuthorityType::Host {
            Self::ALL
        } else {
            Self::VERIFIER
        }
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
            Self::Below(suffix) => name
                .as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|head| head.len() > 1 && head.ends_with('.')),
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

impl Grant {
    /// The names that the certificates of a node bear, its host name first: a token for one node gives it all
    /// exact names of the grant, a token for several gives each the name it asks for.
    pub fn names_for(&self, hostname: &Hostname, single_use: bool) -> Vec<Hostname> {
        let mut names = vec![hostname.clone()];
        for pattern in self.names.iter().filter(|_| single_use) {
            match pattern {
                NamePattern::Exact(name) if !names.contains(name) => names.push(name.clone()),
                NamePattern::Exact(_) | NamePattern::Below(_) => {}
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SystemActor;

    const ACTIONS: [Action; 9] = [
        Action::Read,
        Action::Rotate,
        Action::Administer,
        Action::Sign,
        Action::RenewOwn,
        Action::NodeSelf,
        Action::MemberSelf,
        Action::System,
        Action::Public,
    ];

    fn id<T: FromStr<Err: fmt::Debug>>() -> T {
        "01890000-0000-7000-8000-000000000001".parse().unwrap()
    }

    /// What each principal may do, in the order of `ACTIONS`: the table once more, as people read it.
    #[rustfmt::skip]
    fn table() -> Vec<(Principal, Vec<RoleName>, [u8; 9])> {
        use RoleName::{Admin, Auditor, Operator};
        let user = || Principal::User("alice".parse().unwrap());
        vec![
            //                                         read rot adm sign own node memb sys pub
            (user(), vec![],                           [0,  0,  0,  0,  0,  0,  0,  0,  1]),
            (user(), vec![Auditor],                    [1,  0,  0,  0,  1,  0,  0,  0,  1]),
            (user(), vec![Operator],                   [1,  1,  0,  1,  1,  0,  0,  0,  1]),
            (user(), vec![Admin],                      [1,  0,  1,  1,  1,  0,  0,  0,  1]),
            (user(), vec![Auditor, Operator],          [1,  1,  0,  1,  1,  0,  0,  0,  1]),
            (user(), vec![Auditor, Admin],             [1,  0,  1,  1,  1,  0,  0,  0,  1]),
            (user(), vec![Operator, Admin],            [1,  1,  1,  1,  1,  0,  0,  0,  1]),
            (user(), vec![Auditor, Operator, Admin],   [1,  1,  1,  1,  1,  0,  0,  0,  1]),
            (Principal::Node(id()), vec![],            [0,  0,  0,  0,  0,  1,  0,  0,  1]),
            (Principal::Gateway(id()), vec![],         [0,  0,  0,  0,  0,  0,  1,  0,  1]),
            (Principal::External("db".into()), vec![], [0,  0,  0,  0,  0,  0,  0,  0,  1]),
            (Principal::System(SystemActor::Clock), vec![],  [0,  1,  0,  0,  0,  0,  1,  1,  1]),
            (Principal::System(SystemActor::Signer), vec![], [0,  1,  0,  0,  0,  0,  1,  1,  1]),
            (Principal::System(SystemActor::Host), vec![],   [0,  1,  0,  0,  0,  0,  1,  1,  1]),
            (Principal::Anonymous, vec![],             [0,  0,  0,  0,  0,  0,  0,  0,  1]),
        ]
    }

    #[test]
    fn each_principal_may_do_what_the_table_says_and_nothing_else() {
        for (principal, roles, row) in table() {
            for (action, allowed) in ACTIONS.into_iter().zip(row) {
                let roles = roles.iter().copied().collect();
                assert_eq!(
                    permits(&principal, &roles, action),
                    allowed == 1,
                    "{principal} {roles:?} {action:?}"
                );
            }
        }
    }

    #[test]
    fn roles_of_anybody_but_a_user_count_for_nothing() {
        let all = BTreeSet::from([RoleName::Auditor, RoleName::Operator, RoleName::Admin]);
        for principal in [
            Principal::Node(id()),
            Principal::Gateway(id()),
            Principal::External("x".into()),
            Principal::Anonymous,
        ] {
            for action in [
                Action::Read,
                Action::Rotate,
                Action::Administer,
                Action::RenewOwn,
                Action::System,
            ] {
                assert!(!permits(&principal, &all, action), "{principal} {action:?}");
            }
        }
    }

    #[test]
    fn a_pattern_grants_names_below_its_suffix_and_not_the_suffix_itself() {
        let pattern: NamePattern = "*.db.example.com".parse().unwrap();
        let grants = |name: &str| pattern.grants(&name.parse().unwrap());
        assert!(grants("a.db.example.com") && grants("a.b.db.example.com"));
        assert!(
            !grants("db.example.com") && !grants("xdb.example.com") && !grants("a.db.example.com.evil.org")
        );
        for bad in ["*", "*.", "a.*.com", "**.com", "*.*.com", "*example.com"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }
}
