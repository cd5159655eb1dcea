//! How nodes come in, and come back: a token and a name, or the key of an old certificate.
//!
//! Both doors are open to callers without a certificate, so everything they say is checked against the log:
//! the name against the token's grant, the node id against the keys once certified for it.
//!
//! Crash point: between the append and the answer. The joiner made its key durable first and asks again with
//! it; the log then holds the use of the token by that key, and the first result is given again.

use crate::{
    access::{Grant, Uses},
    authority::AuthorityType,
    command::{Answer, Given, Join, KeyRequest},
    decide::{
        Decided, Decision,
        access::names::{self, bearers},
        certificates::{self, Leaf, authorize, check_key},
    },
    event::{AccessTokenUsed, AuthorizationGranted, Fact, NodeJoined, NodeRecovered, NodeRejoined, Occasion},
    id::{CertDigest, NodeId, Principal},
    identity,
    refusal::{Code, Refusal},
    state::{ClusterState, Node, Token},
    time::Timestamp,
};

/// Decides a join or a rejoin: the use of the token, the node and its first authorisation, as one.
///
/// The same token with the same key again gives the first result, whatever became of the token since; where there is
/// none any more, the token must still be good.
///
/// # Errors
/// `token_unknown`, `token_expired`, `token_used`, `name_not_granted`, `name_reserved`, `name_taken`,
/// `key_reused`, `node_removed`.
pub fn join(state: &ClusterState, join: &Join, given: &Given) -> Decided {
    let token = state
        .token_hashes
        .get(&join.token)
        .and_then(|id| state.tokens.get(id))
        .ok_or_else(|| {
            Refusal::new(
                Code::TokenUnknown,
                "no such join token: it was mistyped or removed; ask for a new one",
            )
        })?;
    if let Some(node) = token.used.get(&join.key.spki) {
        return joined_before(state, token, *node, &join.key, given);
    }
    check_token(token, given.now)?;
    if !token
        .grant
        .names
        .iter()
        .any(|pattern| pattern.grants(&join.hostname))
    {
        let text = format!(
            "the token does not grant the name {}: ask for one that does",
            join.hostname
        );
        return Err(Refusal::new(Code::NameNotGranted, text));
    }
    // Who is it? A fresh id is used only for somebody new.
    let standing = standing(state, join, given)?;
    let names = token.grant.names_for(&join.hostname, token.uses == 1);
    // Only a proof lets a node keep a name that is still borne: without one, being it is what is in question.
    let own = match standing {
        Standing::New(_) | Standing::Unproven(_) => None,
        Standing::Proven(node, _) => Some(node),
    };
    names::check_names(state, &names, own.map(Principal::Node).as_ref(), given.now)?;
    // A gateway may have taken one of the addresses since the token was made.
    names::check_addresses(state, &token.grant.addresses)?;
    let node = standing.node();
    check_key(state, &Principal::Node(node), &join.key)?;
    let addresses = token.grant.addresses.clone();
    let leaf = Leaf::first_of_node(
        state,
        node,
        names,
        addresses,
        host_uses(&token.grant),
        Occasion::Join,
    )?;
    let leaf = Leaf {
        common_name: join.hostname.to_string(),
        ..leaf
    };
    let granted = authorize(state, leaf, &join.key, given.fresh[1], given)?;
    let answer = Answer::Joined {
        node,
        authorization: granted.authorization,
    };
    Ok(Decision::new(facts(token, join, &standing, granted), answer))
}

/// Decides a recovery: certificates of the current row for a node that proves an old key, and nothing else.
///
/// # Errors
/// `recovery_refused`, `certificate_superseded`, `node_removed`, `name_taken`, `name_reserved`, `key_reused`.
pub fn recover(
    state: &ClusterState,
    node: &NodeId,
    proven_by: CertDigest,
    key: &KeyRequest,
    given: &Given,
) -> Decided {
    let known = identity::recoverable(state, *node, proven_by, given.now)?;
    let holder = Principal::Node(*node);
    // The same request again, after its answer was lost. What has expired meanwhile helps nobody: that falls
    // through to `key_reused`, and the node makes a new key. So does a request for the old key itself.
    let proof = state.certificates.get(&proven_by).map(|c| c.authorization);
    if let Some(earlier) = certificates::earlier(state, &holder, key.spki)
        && Some(earlier.authorization) != proof
        && earlier.not_after > given.now
    {
        let answer = Answer::Joined {
            node: *node,
            authorization: earlier.authorization,
        };
        return Ok(earlier.repeated(answer));
    }
    check_key(state, &holder, key)?;
    let granted = again(state, known, key, Occasion::Recovery, given)?;
    let answer = Answer::Joined {
        node: *node,
        authorization: granted.authorization,
    };
    // The node's subject carries the condition: a removal stands on it too, so that the two exclude each other.
    let recovered = NodeRecovered {
        node: *node,
        proven_by,
        spki: key.spki,
    };
    Ok(Decision::new(vec![recovered.into(), granted.into()], answer))
}

/// Who the joiner is to the log.
enum Standing {
    /// Somebody new, with a fresh id.
    New(NodeId),
    /// A known node that proved a key once certified for it.
    Proven(NodeId, CertDigest),
    /// A known node that lost its keys: all its names are free, so that nobody living is replaced.
    Unproven(NodeId),
}

impl Standing {
    fn node(&self) -> NodeId {
        match self {
            Self::New(node) | Self::Proven(node, _) | Self::Unproven(node) => *node,
        }
    }
}

/// A node keeps its id if it proves an old key, or if it asks for its own name and nothing of it is alive.
/// With another name and no proof it is somebody new: a token for one name must not take over a node of another.
fn standing(state: &ClusterState, join: &Join, given: &Given) -> Result<Standing, Refusal> {
    let fresh = Standing::New(NodeId(given.fresh[0]));
    let Some(rejoin) = &join.rejoin else {
        return Ok(fresh);
    };
    let Some(node) = state.nodes.get(&rejoin.node) else {
        return Ok(fresh);
    };
    let holder = Principal::Node(node.id);
    let proof = rejoin.proven_by.filter(|digest| {
        state
            .certificates
            .get(digest)
            .is_some_and(|c| c.holder == holder && !c.revoked)
    });
    if let Some(digest) = proof {
        return Ok(Standing::Proven(node.id, digest));
    }
    if node.hostname != join.hostname {
        return Ok(fresh);
    }
    match alive_until(state, node, given.now) {
        None => Ok(Standing::Unproven(node.id)),
        Some(until) => {
            let text = format!(
                "{} is a living node until {until} and this request is not signed with a key of it: restore its \
                 data directory, or remove it first with `carousel nodes rm {}`",
                node.hostname, node.hostname
            );
            Err(Refusal::new(Code::NameTaken, text))
        }
    }
}

/// Until when a certificate of the node counts; none if nothing of it is alive.
pub(super) fn alive_until(state: &ClusterState, node: &Node, now: Timestamp) -> Option<Timestamp> {
    let held = state.held.get(&Principal::Node(node.id)).into_iter().flatten();
    let issued = held
        .filter_map(|d| state.certificates.get(d))
        .filter(|c| !c.revoked)
        .map(|c| c.not_after);
    let named = node
        .names
        .iter()
        .flat_map(|name| bearers(state, name, now))
        .filter(|(holder, _)| **holder == Principal::Node(node.id));
    issued
        .chain(named.map(|(_, until)| until))
        .filter(|until| *until > now)
        .max()
}

/// The first result of a token and key, found in the state.
fn joined_before(
    state: &ClusterState,
    token: &Token,
    node: NodeId,
    key: &KeyRequest,
    given: &Given,
) -> Decided {
    let Some(known) = state.nodes.get(&node) else {
        let text = "the node that joined with this token was removed: ask for a new token";
        return Err(Refusal::new(Code::NodeRemoved, text));
    };
    if let Some(earlier) = certificates::earlier(state, &Principal::Node(node), key.spki) {
        let answer = Answer::Joined {
            node,
            authorization: earlier.authorization,
        };
        return Ok(earlier.repeated(answer));
    }
    // The authorisation was voided before it was signed (its authority went): the same node gets another one, while
    // the token is good. A node that ever got a certificate is not asking again: its first one was forgotten long
    // after its end, and who has this key and token now has an old copy of the node's disk.
    check_expiry(token, given.now)?;
    if state
        .held
        .get(&Principal::Node(node))
        .is_some_and(|held| !held.is_empty())
    {
        let text = format!(
            "{} joined with this token and key and has got certificates since: ask for a new token",
            known.hostname
        );
        return Err(Refusal::new(Code::TokenUsed, text));
    }
    check_key(state, &Principal::Node(node), key)?;
    let granted = again(state, known, key, Occasion::Join, given)?;
    let answer = Answer::Joined {
        node,
        authorization: granted.authorization,
    };
    Ok(Decision::new(vec![granted.into()], answer))
}

/// An authorisation for a known node with the names it has, if nobody took them meanwhile: neither another node nor
/// a gateway, which may have begun with a name or an address of a node that was not alive.
fn again(
    state: &ClusterState,
    node: &Node,
    key: &KeyRequest,
    occasion: Occasion,
    given: &Given,
) -> Result<AuthorizationGranted, Refusal> {
    names::check_names(state, &node.names, Some(&Principal::Node(node.id)), given.now)?;
    names::check_addresses(state, &node.grant.addresses)?;
    let (names, addresses) = (node.names.clone(), node.grant.addresses.clone());
    let leaf = Leaf::first_of_node(state, node.id, names, addresses, host_uses(&node.grant), occasion)?;
    let leaf = Leaf {
        common_name: node.hostname.to_string(),
        ..leaf
    };
    authorize(state, leaf, key, given.fresh[1], given)
}

/// Is the token good for one more node? Equal keys count once, so that a retry does not use it up.
fn check_token(token: &Token, now: Timestamp) -> Result<(), Refusal> {
    check_expiry(token, now)?;
    if token.used.len() >= token.uses as usize {
        let text = "the join token has no uses left: ask for a new one";
        return Err(Refusal::new(Code::TokenUsed, text));
    }
    Ok(())
}

fn check_expiry(token: &Token, now: Timestamp) -> Result<(), Refusal> {
    if token.expires > now {
        return Ok(());
    }
    let text = format!("the join token expired at {}: ask for a new one", token.expires);
    Err(Refusal::new(Code::TokenExpired, text))
}

/// The roles in `host`; every grant has it, see `create_token`.
fn host_uses(grant: &Grant) -> Uses {
    grant.uses.get(&AuthorityType::Host).copied().unwrap_or(Uses::ALL)
}

/// The facts of a join, in the order of their condition: the access subject comes first, because names and
/// uses of tokens are decided there.
fn facts(token: &Token, join: &Join, standing: &Standing, granted: AuthorizationGranted) -> Vec<Fact> {
    let (node, hostname, spki) = (standing.node(), join.hostname.clone(), join.key.spki);
    let grant = token.grant.clone();
    let used = AccessTokenUsed {
        token: token.id,
        node,
        hostname: hostname.clone(),
        spki,
    };
    let rejoined = |proven_by| -> Fact {
        NodeRejoined {
            node,
            hostname: hostname.clone(),
            grant: grant.clone(),
            token: token.id,
            spki,
            proven_by,
        }
        .into()
    };
    let entered = match standing {
        Standing::New(_) => NodeJoined {
            node,
            hostname,
            grant,
            token: token.id,
            spki,
        }
        .into(),
        Standing::Proven(_, digest) => rejoined(Some(*digest)),
        Standing::Unproven(_) => rejoined(None),
    };
    vec![used.into(), entered, granted.into()]
}
