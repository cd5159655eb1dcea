//! The routes, as data: what is not in this table does not exist, and who is not named may not.
//!
//! `schemas/openapi.yaml` is held equal to this table by a test, in paths, methods, actions and principals.

use api::route as path;
use domain::{Principal, access::Action};
use http::Method;

/// What a route leads to; each has its function in `answer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    Trust,
    Jwks,
    SpiffeBundle,
    Crl,
    Join,
    Recover,
    NodeStream,
    NodeDesired,
    NodeCertificates,
    NodeFacts,
    Status,
    Nodes,
    Authorities,
    Rotations,
    Tokens,
    Certificates,
    Users,
    Consumers,
    Plan,
    Whoami,
    Check,
    Watch,
    Events,
    EventsFollow,
    AuditReplay,
    AuditDiff,
    AuditEvent,
    AuditVerify,
    Rotate,
    NodeExclude,
    NodeInclude,
    NodeRemove,
    TokenAdd,
    TokenRemove,
    UserAdd,
    UserRemove,
    UserRenew,
    ConsumerAdd,
    ConsumerAttest,
    ConsumerProbe,
    ConsumerWithdraw,
    Sign,
    SignToken,
    UserSsh,
    CertificatesRevoke,
    OidcDiscovery,
    ClockAccept,
    Probe,
}

/// Which principals a route accepts at all; roles are looked up in the log beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accepts {
    /// Everybody, without a certificate too.
    Public,
    /// Nodes: host certificates with a node's URI.
    Nodes,
    /// People and programs: user certificates.
    Users,
}

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// The path; a part in braces stands for one segment.
    pub(crate) path: &'static str,
    /// What the table of permissions calls it.
    pub(crate) action: Action,
    /// Who may come.
    pub(crate) accepts: Accepts,
    /// Where it leads.
    pub(crate) endpoint: Endpoint,
}

const fn get(path: &'static str, action: Action, accepts: Accepts, endpoint: Endpoint) -> Route {
    Route {
        method: "GET",
        path,
        action,
        accepts,
        endpoint,
    }
}

const fn post(path: &'static str, action: Action, accepts: Accepts, endpoint: Endpoint) -> Route {
    Route {
        method: "POST",
        path,
        action,
        accepts,
        endpoint,
    }
}

impl Route {
    /// Does it become a command of its caller, which is decided, and refused, in the log?
    pub(crate) fn is_command(&self) -> bool {
        let changes = match self.action {
            Action::Rotate | Action::Administer | Action::Sign | Action::RenewOwn => true,
            // A node's certificates are commands too; nobody but a node is let in there in the first place.
            Action::NodeSelf => self.endpoint == Endpoint::NodeCertificates,
            Action::Read | Action::MemberSelf | Action::System | Action::Public => false,
        };
        // A probe needs the role of an operator and changes nothing.
        changes && self.endpoint != Endpoint::Probe
    }
}

/// Every route there is.
pub(crate) const ROUTES: &[Route] = {
    use Accepts::{Nodes, Public, Users};
    use Action::{Administer, NodeSelf, Public as Anybody, Read, RenewOwn, Rotate, Sign};
    &[
        get(path::TRUST, Anybody, Public, Endpoint::Trust),
        get(path::JWKS, Anybody, Public, Endpoint::Jwks),
        get(path::SPIFFE_BUNDLE, Anybody, Public, Endpoint::SpiffeBundle),
        get(path::CRL, Anybody, Public, Endpoint::Crl),
        get(path::OIDC_DISCOVERY, Anybody, Public, Endpoint::OidcDiscovery),
        post(path::JOIN, Anybody, Public, Endpoint::Join),
        post(path::RECOVER, Anybody, Public, Endpoint::Recover),
        get(path::NODE_STREAM, NodeSelf, Nodes, Endpoint::NodeStream),
        get(path::NODE_DESIRED, NodeSelf, Nodes, Endpoint::NodeDesired),
        post(
            path::NODE_CERTIFICATES,
            NodeSelf,
            Nodes,
            Endpoint::NodeCertificates,
        ),
        post(path::NODE_FACTS, NodeSelf, Nodes, Endpoint::NodeFacts),
        get(path::STATUS, Read, Users, Endpoint::Status),
        get(path::NODES, Read, Users, Endpoint::Nodes),
        get(path::AUTHORITIES, Read, Users, Endpoint::Authorities),
        get(path::ROTATIONS, Read, Users, Endpoint::Rotations),
        get(path::TOKENS, Read, Users, Endpoint::Tokens),
        get(path::CERTIFICATES, Read, Users, Endpoint::Certificates),
        get(path::USERS, Read, Users, Endpoint::Users),
        get(path::CONSUMERS, Read, Users, Endpoint::Consumers),
        get(path::PLAN, Read, Users, Endpoint::Plan),
        get(path::WHOAMI, Read, Users, Endpoint::Whoami),
        get(path::CHECK, Read, Users, Endpoint::Check),
        get(path::WATCH, Read, Users, Endpoint::Watch),
        get(path::EVENTS, Read, Users, Endpoint::Events),
        get(path::EVENTS_FOLLOW, Read, Users, Endpoint::EventsFollow),
        get(path::AUDIT_REPLAY, Read, Users, Endpoint::AuditReplay),
        get(path::AUDIT_DIFF, Read, Users, Endpoint::AuditDiff),
        get(path::AUDIT_EVENT, Read, Users, Endpoint::AuditEvent),
        get(path::AUDIT_VERIFY, Read, Users, Endpoint::AuditVerify),
        post(path::ROTATE, Rotate, Users, Endpoint::Rotate),
        post(path::NODE_EXCLUDE, Rotate, Users, Endpoint::NodeExclude),
        post(path::NODE_INCLUDE, Rotate, Users, Endpoint::NodeInclude),
        post(path::NODE_REMOVE, Administer, Users, Endpoint::NodeRemove),
        post(path::TOKENS, Administer, Users, Endpoint::TokenAdd),
        post(path::TOKEN_REMOVE, Administer, Users, Endpoint::TokenRemove),
        post(path::USERS, Administer, Users, Endpoint::UserAdd),
        post(path::USER_REMOVE, Administer, Users, Endpoint::UserRemove),
        post(path::USER_RENEW, RenewOwn, Users, Endpoint::UserRenew),
        post(path::USER_SSH, RenewOwn, Users, Endpoint::UserSsh),
        post(path::SIGN, Sign, Users, Endpoint::Sign),
        post(path::SIGN_TOKEN, Administer, Users, Endpoint::SignToken),
        post(
            path::CERTIFICATES_REVOKE,
            Administer,
            Users,
            Endpoint::CertificatesRevoke,
        ),
        post(path::CONSUMERS, Administer, Users, Endpoint::ConsumerAdd),
        post(path::CONSUMER_ATTEST, Rotate, Users, Endpoint::ConsumerAttest),
        post(path::CONSUMER_PROBE, Rotate, Users, Endpoint::ConsumerProbe),
        post(
            path::CONSUMER_WITHDRAW,
            Administer,
            Users,
            Endpoint::ConsumerWithdraw,
        ),
        post(path::CLOCK_ACCEPT, Rotate, Users, Endpoint::ClockAccept),
        post(path::PROBE, Rotate, Users, Endpoint::Probe),
    ]
};

/// A request's route, and what stands in place of the part in braces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matched {
    pub(crate) route: &'static Route,
    /// Percent-decoded; empty where the path has no such part.
    pub part: String,
}

impl Matched {
    /// The path as the description of the API has it.
    pub fn path(&self) -> &'static str {
        self.route.path
    }
}

/// Why there is no route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmatched {
    /// No such path.
    NoPath,
    /// The path is there, but not for this method.
    NoMethod,
}

/// Finds the route of a request.
///
/// # Errors
/// [`Unmatched`].
pub fn find(method: &Method, path: &str) -> Result<Matched, Unmatched> {
    let mut path_exists = false;
    for route in ROUTES {
        if let Some(part) = matches(route.path, path) {
            if route.method == method.as_str() {
                return Ok(Matched { route, part });
            }
            path_exists = true;
        }
    }
    Err(if path_exists {
        Unmatched::NoMethod
    } else {
        Unmatched::NoPath
    })
}

/// The methods that a path takes, as the header `Allow` lists them.
pub fn methods(path: &str) -> String {
    let routes = ROUTES.iter().filter(|route| matches(route.path, path).is_some());
    let methods: Vec<_> = routes.map(|route| route.method).collect();
    methods.join(", ")
}

impl Accepts {
    /// Does it accept a principal of this kind?
    pub(crate) fn kind(self, principal: &Principal) -> bool {
        match self {
            Self::Public => true,
            Self::Nodes => matches!(principal, Principal::Node(_)),
            Self::Users => matches!(principal, Principal::User(_)),
        }
    }
}

/// The filled part of a pattern if the path fits it (empty for a pattern without one).
///
/// `/v1/users/{name}/remove` and `/v1/users/self/certificate` differ in their last segment, so no path fits two
/// patterns of one method; a test holds that.
fn matches(pattern: &str, path: &str) -> Option<String> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut part = String::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(part),
            (Some(p), Some(given)) if p.starts_with('{') => {
                part = decode(given).filter(|g| !g.is_empty())?;
            }
            (Some(p), Some(given)) if p == given => {}
            _ => return None,
        }
    }
}

/// Percent-decodes one segment; `None` for a broken escape or what is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            (digit()? * 16 + digit()?) as u8
        } else {
            byte
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

/// A value of a query string, decoded as forms are; `None` where it is not there, broken, or no UTF-8.
pub fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    decode(&value.replace('+', " "))
}

#[cfg(test)]
mod tests;
