//! The signer's own judgement of an authorisation, before it signs.
//!
//! The orchestrator has decided it; whoever could write the log in its place is stopped here. The rules
//! are asked again, from the log alone and without the code that granted it.

use domain::{
    AuthorityType, ClusterState, Principal, Timestamp,
    authority::{AuthorityKey, KeyKind},
    decide::access::names,
    event::{AuthorizationGranted, Form, LeafUse, Occasion},
    state::{Node, Pending, RowStamp, TypeState},
    time::{DAY_MS, MINUTE_MS},
};

/// How far before the grant a certificate's life may begin, with something to spare for the grant itself.
const BACKDATE_MS: u64 = 6 * MINUTE_MS;

/// The longest life of a host's certificate where no agent renews it.
const HOST_BY_HAND_MS: u64 = 90 * DAY_MS;

/// Why an authorisation is not signed. The words stand in `certificate.refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// The authority signs nothing (any more).
    #[error("its authority is neither active nor prepared")]
    Authority,
    /// The row gives the holder's role to the other authority.
    #[error("its phase gives certificates of this usage to the other authority")]
    Phase,
    /// It says that it was decided under another row than it stands under in the log.
    #[error("its phase or rotation is not that of its place in the log; ask again")]
    Row,
    /// The holder may not have a certificate of this type or usage.
    #[error("its holder may not have a certificate of this type and usage")]
    Profile,
    /// The holder is not there (any more).
    #[error("its holder is unknown or was removed")]
    Holder,
    /// It names what was not granted.
    #[error("it bears a name or an address that its holder was not granted")]
    Names,
    /// The common name is another's.
    #[error("its common name is not its holder's")]
    CommonName,
    /// The URI is another's.
    #[error("its URI is not its holder's")]
    Uri,
    /// It lives too long, or not at all.
    #[error("its life is longer than the profile allows, or over")]
    Life,
    /// An SSH certificate or a token that would be misread.
    #[error("what would stand in it cannot be certified")]
    Form,
    /// The key is somebody else's.
    #[error("its key belongs to another holder or to an authority")]
    Key,
}

impl Objection {
    /// A stable name for the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Phase => "phase",
            Self::Row => "row",
            Self::Profile => "profile",
            Self::Holder => "holder",
            Self::Names => "names",
            Self::CommonName => "common_name",
            Self::Uri => "uri",
            Self::Life => "life",
            Self::Form => "form",
            Self::Key => "key",
        }
    }
}

/// May this be signed, by the log as it is now?
///
/// # Errors
/// The first [`Objection`].
pub fn recheck(state: &ClusterState, pending: &Pending, now: Timestamp) -> Result<(), Objection> {
    let granted = &pending.granted;
    let of = state
        .types
        .get(&granted.authority_type)
        .ok_or(Objection::Authority)?;
    let kind = granted.form.kind();
    let authority = of.live(granted.issuer).filter(|key| key.kind == kind);
    let authority = authority.ok_or(Objection::Authority)?;
    check_row(of, pending)?;
    check_holder(state, granted)?;
    check_common_name(state, granted)?;
    check_life(state, authority, granted, now)?;
    let cluster = state.cluster_name().ok_or(Objection::Authority)?;
    let uri = match (&granted.holder, granted.authority_type) {
        (Principal::External(name), AuthorityType::Spiffe) => format!("spiffe://{cluster}/{name}"),
        (holder, _) => holder.uri(cluster),
    };
    if granted.uri != uri {
        return Err(Objection::Uri);
    }
    granted.form.check().map_err(|_| Objection::Form)?;
    // The bundle key is in no list of keys, and a leaf with it would let its holder say whom to trust.
    let is_bundle_key = state
        .cluster
        .as_ref()
        .is_some_and(|c| c.bundle_key == granted.spki);
    // What a token is sealed to is certified by nobody.
    let is_holders = kind == KeyKind::Jwt || state.keys.get(&granted.spki) == Some(&granted.holder);
    if is_bundle_key || !is_holders {
        return Err(Objection::Key);
    }
    Ok(())
}

/// Does the row of its place in the log, or the row now, name this issuer? What the authorisation says about its own
/// row is part of what is judged: an old phase in it would let it choose any live authority.
fn check_row(of: &TypeState, pending: &Pending) -> Result<(), Objection> {
    let (granted, then, now) = (&pending.granted, pending.row, of.row(pending.granted.form.kind()));
    let names = |row: RowStamp| row.issuer(granted.usage) == Some(granted.issuer);
    let named = match &granted.holder {
        // Gateways hold certificates of both authorities; the row binds them only in what they present.
        Principal::Gateway(_) => return Ok(()),
        // A row that has changed since is judged by the agent that installs, or throws away.
        Principal::Node(_) => names(then) || names(now),
        // Nobody throws away what a person holds: the end of a rotation would wait for its whole life.
        Principal::External(_) => {
            let by_hand = now.issuer_by_hand(granted.authority_type, granted.usage);
            by_hand == Some(granted.issuer)
        }
        Principal::User(_) | Principal::System(_) | Principal::Anonymous => names(now),
    };
    if (granted.phase, granted.rotation) != (then.phase, then.rotation) {
        return Err(Objection::Row);
    }
    if named { Ok(()) } else { Err(Objection::Phase) }
}

fn check_holder(state: &ClusterState, granted: &AuthorizationGranted) -> Result<(), Objection> {
    let t = granted.authority_type;
    match &granted.holder {
        Principal::Node(id) => check_node(state.nodes.get(id).ok_or(Objection::Holder)?, granted),
        Principal::Gateway(id) => {
            if t != AuthorityType::Host || granted.form != Form::Tls {
                return Err(Objection::Profile);
            }
            // `gateway` leaves are for recorded members alone.
            let member = state.members.get(id).ok_or(Objection::Holder)?;
            let names = granted.names.iter().all(|name| member.names.contains(name));
            let addresses = granted
                .addresses
                .iter()
                .all(|address| member.addresses.contains(address));
            if names && addresses {
                Ok(())
            } else {
                Err(Objection::Names)
            }
        }
        Principal::User(name) => {
            if t != AuthorityType::User || granted.usage != LeafUse::Client {
                return Err(Objection::Profile);
            }
            let accounts = match &granted.form {
                Form::Tls => true,
                Form::Ssh { principals, .. } => *principals == state.logins_of(name),
                Form::Logon { .. } | Form::Jwt { .. } => false,
            };
            if !accounts || !granted.names.is_empty() || !granted.addresses.is_empty() {
                return Err(Objection::Names);
            }
            state
                .users
                .get(name)
                .filter(|roles| !roles.is_empty())
                .map(|_| ())
                .ok_or(Objection::Holder)
        }
        Principal::External(_) => check_external(state, granted),
        Principal::System(_) | Principal::Anonymous => Err(Objection::Profile),
    }
}

/// A party without an agent has what somebody ordered for it, as far as the type gives that to anybody.
fn check_external(state: &ClusterState, granted: &AuthorizationGranted) -> Result<(), Objection> {
    let t = granted.authority_type;
    let usage = match granted.form {
        Form::Logon { .. } if t != AuthorityType::Windows => return Err(Objection::Profile),
        Form::Tls | Form::Logon { .. } | Form::Ssh { .. } => t.row().usage_by_hand,
        Form::Jwt { .. } => LeafUse::Client,
    };
    if granted.usage != usage || granted.occasion != Occasion::Signing {
        return Err(Objection::Profile);
    }
    let bears_names = usage.server() && granted.form.kind() != KeyKind::Jwt;
    let is_named = !granted.names.is_empty() || !granted.addresses.is_empty();
    let is_reserved = granted.names.iter().any(|name| names::is_reserved(state, name))
        || granted
            .addresses
            .iter()
            .any(|a| names::address_is_reserved(state, *a));
    // What an SSH host may be called is what the log says that it is called.
    let principals_are_names = match &granted.form {
        Form::Ssh { principals, .. } if usage == LeafUse::Server => {
            let named = granted.names.iter().map(ToString::to_string);
            let named = named.chain(granted.addresses.iter().map(ToString::to_string));
            named.eq(principals.iter().cloned())
        }
        Form::Tls | Form::Logon { .. } | Form::Ssh { .. } | Form::Jwt { .. } => true,
    };
    if (is_named && !bears_names) || is_reserved || !principals_are_names {
        return Err(Objection::Names);
    }
    Ok(())
}

/// Software that maps the subject to a role (PostgreSQL does) takes the common name for its holder's.
fn check_common_name(state: &ClusterState, granted: &AuthorizationGranted) -> Result<(), Objection> {
    let expected = match &granted.holder {
        Principal::Node(id) => state.nodes.get(id).map(|node| node.hostname.as_str()),
        Principal::Gateway(id) => state.members.get(id).map(|member| member.service.as_str()),
        Principal::User(name) => Some(name.as_str()),
        Principal::External(name) => Some(name.as_str()),
        Principal::System(_) | Principal::Anonymous => None,
    };
    if expected == Some(granted.common_name.as_str()) {
        Ok(())
    } else {
        Err(Objection::CommonName)
    }
}

fn check_node(node: &Node, granted: &AuthorizationGranted) -> Result<(), Objection> {
    let uses = node.uses(granted.authority_type).ok_or(Objection::Profile)?;
    if (granted.usage.client() && !uses.client) || (granted.usage.server() && !uses.server) {
        return Err(Objection::Profile);
    }
    if granted.form.kind() == KeyKind::Jwt || granted.usage == LeafUse::Signing {
        return Err(Objection::Profile);
    }
    let is_granted = |name| node.names.contains(name) && node.grant.names.iter().any(|p| p.grants(name));
    let addresses = granted
        .addresses
        .iter()
        .all(|address| node.grant.addresses.contains(address));
    let principals = match &granted.form {
        Form::Ssh { principals, .. } => principals.iter().all(|principal| {
            granted.names.iter().any(|name| name.as_str() == principal)
                || granted.addresses.iter().any(|a| a.to_string() == *principal)
        }),
        Form::Tls | Form::Jwt { .. } => true,
        Form::Logon { .. } => false,
    };
    if granted.names.iter().all(is_granted) && addresses && principals {
        Ok(())
    } else {
        Err(Objection::Names)
    }
}

fn check_life(
    state: &ClusterState,
    authority: &AuthorityKey,
    granted: &AuthorizationGranted,
    now: Timestamp,
) -> Result<(), Objection> {
    let settings = state.settings();
    let ttl_ms = match (granted.authority_type, &granted.form, &granted.holder) {
        (_, Form::Jwt { .. }, _) => settings.jwt_ttl_ms,
        (AuthorityType::Host, _, Principal::External(_)) => HOST_BY_HAND_MS,
        (AuthorityType::Host, ..) => settings.node_ttl_ms,
        (AuthorityType::User, ..) => settings.user_ttl_ms,
        (other, ..) => other.row().leaf_ttl_ms,
    };
    let within = granted.not_after <= authority.not_after
        && granted.not_after.since_ms(granted.not_before) <= ttl_ms + BACKDATE_MS;
    let is_now = granted.not_before <= now && granted.not_after > now;
    // The genesis is signed before its log exists: whatever claims to be one later is not.
    let is_later = granted.occasion != Occasion::Genesis;
    if within && is_now && is_later {
        Ok(())
    } else {
        Err(Objection::Life)
    }
}

#[cfg(test)]
mod tests;
