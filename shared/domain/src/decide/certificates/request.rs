//! Requests for a certificate of one's own: renewals, and what a phase asks for.
//!
//! The asker says which issuer it expects; the row decides. An agent that asks with an old view is sent back to
//! look, instead of getting a certificate that it would have to discard.
//!
//! Crash point: between `authorization.granted` and the answer. The agent asks again with the same key, which
//! it made durable first, and finds the first result; no second certificate is made for it.

use crate::{
    authority::AuthorityType,
    command::{Answer, Command, Given, KeyRequest},
    decide::{Decided, Decision, access::names},
    event::{LeafUse, Occasion},
    id::{AuthorityId, MemberId, NodeId, Principal, SpkiPin, UserName},
    refusal::{Code, Refusal},
    rules::{Rule, holds},
    state::{ClusterState, Node},
};

use super::{Leaf, authorize, check_key, earlier, row_issuer, type_state};

/// Decides a request of a node, member or user for a certificate of its own.
///
/// # Errors
/// `stale_view` if the row no longer names the asked issuer, `type_not_granted`, `key_reused`,
/// `name_taken`, `node_removed`, `member_unknown`.
pub fn request(
    state: &ClusterState,
    command: &Command,
    authority_type: AuthorityType,
    usage: LeafUse,
    issuer: Option<SpkiPin>,
    key: &KeyRequest,
    given: &Given,
) -> Decided {
    let leaf = match &command.principal {
        Principal::Node(id) => of_node(state, *id, authority_type, usage, issuer, given)?,
        Principal::Gateway(id) => of_member(state, *id, authority_type, usage, issuer)?,
        Principal::User(name) => of_user(state, name, authority_type, usage, issuer)?,
        Principal::External(_) | Principal::System(_) | Principal::Anonymous => {
            let text = format!("{} has no certificate of its own to ask for", command.principal);
            return Err(Refusal::new(Code::NotPermitted, text));
        }
    };
    // The row was checked before this: a repetition whose issuer the row names no more is stale like any other.
    // The same key again for the same certificate: a request that was repeated after its answer was lost.
    if let Some(earlier) = earlier(state, &leaf.holder, key.spki)
        && (earlier.authority_type, earlier.issuer, earlier.usage)
            == (authority_type, leaf.issuer, leaf.usage)
    {
        return Ok(earlier.repeated(Answer::Authorized {
            authorization: earlier.authorization,
        }));
    }
    check_key(state, &leaf.holder, key)?;
    let granted = authorize(state, leaf, key, given.fresh[0], given)?;
    let answer = Answer::Authorized {
        authorization: granted.authorization,
    };
    Ok(Decision::new(vec![granted.into()], answer))
}

/// A node's: a type and role of its grant, by the row's issuer, with the names and addresses of its grant.
fn of_node(
    state: &ClusterState,
    id: NodeId,
    authority_type: AuthorityType,
    usage: LeafUse,
    asked: Option<SpkiPin>,
    given: &Given,
) -> Result<Leaf, Refusal> {
    let Some(node) = state.nodes.get(&id) else {
        let text = "this node was removed: it needs a new join token";
        return Err(Refusal::new(Code::NodeRemoved, text));
    };
    check_role(node, authority_type, usage)?;
    let of = type_state(state, authority_type)?;
    // A renewal is a request like any other: a timer must not bring back what a phase has just replaced.
    let issuer = if holds(Rule::RenewalFollowsTheRow) {
        same_issuer(row_issuer(of, usage), asked)?
    } else {
        asked
            .filter(|i| of.trusted().contains(i))
            .or(row_issuer(of, usage))
            .ok_or_else(stale)?
    };
    // A node that slept past its expiry may have lost its name to another one meanwhile.
    for name in &node.names {
        names::check_free(state, name, Some(id), given.now)?;
    }
    // Other types have lives of their own: a database's certificate lives longer than a node's.
    let is_host = authority_type == AuthorityType::Host;
    Ok(Leaf {
        holder: Principal::Node(id),
        authority_type,
        issuer,
        usage,
        occasion: Occasion::Renewal,
        common_name: node.hostname.to_string(),
        names: node.names.clone(),
        addresses: node.grant.addresses.clone(),
        ttl_ms: if is_host {
            state.settings().node_ttl_ms
        } else {
            authority_type.row().leaf_ttl_ms
        },
    })
}

/// A member's: names and addresses are those that it recorded at its start, and that are reserved for it.
///
/// A gateway holds certificates of every trusted authority while there are two, so the row does not bind it.
fn of_member(
    state: &ClusterState,
    id: MemberId,
    authority_type: AuthorityType,
    usage: LeafUse,
    asked: Option<SpkiPin>,
) -> Result<Leaf, Refusal> {
    if authority_type != AuthorityType::Host {
        let text = format!("a control-plane service holds certificates of `host`, not of `{authority_type}`");
        return Err(Refusal::new(Code::TypeNotGranted, text));
    }
    let Some(member) = state.members.get(&id) else {
        let text = format!("no member {id} is recorded: it must report its start first");
        return Err(Refusal::new(Code::MemberUnknown, text));
    };
    let of = type_state(state, authority_type)?;
    let issuer = asked
        .or(row_issuer(of, usage))
        .filter(|i| of.trusted().contains(i))
        .ok_or_else(stale)?;
    Ok(Leaf {
        holder: Principal::Gateway(id),
        authority_type,
        issuer,
        usage,
        occasion: Occasion::Renewal,
        common_name: member.service.clone(),
        names: member.names.clone(),
        addresses: member.addresses.clone(),
        ttl_ms: state.settings().node_ttl_ms,
    })
}

/// A person's: client certificates of type `user`, without names; what may be done with them says the log.
fn of_user(
    state: &ClusterState,
    user: &UserName,
    authority_type: AuthorityType,
    usage: LeafUse,
    asked: Option<SpkiPin>,
) -> Result<Leaf, Refusal> {
    if authority_type != AuthorityType::User || usage != LeafUse::Client {
        let text = format!("{user} may ask for client certificates of `user` alone");
        return Err(Refusal::new(Code::TypeNotGranted, text));
    }
    let leaf = Leaf::of_user(state, user, Occasion::Renewal)?;
    same_issuer(Some(leaf.issuer), asked)?;
    Ok(leaf)
}

/// Both roles in one leaf need both in the grant.
fn check_role(node: &Node, authority_type: AuthorityType, usage: LeafUse) -> Result<(), Refusal> {
    let granted = node
        .uses(authority_type)
        .is_some_and(|uses| (uses.client || !usage.client()) && (uses.server || !usage.server()));
    if granted {
        return Ok(());
    }
    let role = match usage {
        LeafUse::Client => "client",
        LeafUse::Server => "server",
        LeafUse::Both => "client and server",
    };
    let text = format!(
        "the grant of {} does not include `{authority_type}` as {role}",
        node.hostname
    );
    Err(Refusal::new(Code::TypeNotGranted, text))
}

/// The row's issuer, if the asker saw the same one (or left it to the row).
fn same_issuer(row: Option<AuthorityId>, asked: Option<SpkiPin>) -> Result<AuthorityId, Refusal> {
    let row = row.ok_or_else(stale)?;
    if asked.is_none_or(|asked| asked == row) {
        Ok(row)
    } else {
        Err(stale())
    }
}

fn stale() -> Refusal {
    let text = "the row names another issuer for this role now: ask again with the newest desired state";
    Refusal::new(Code::StaleView, text)
}
