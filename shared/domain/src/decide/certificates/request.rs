//! Requests for a certificate of one's own: renewals, and what a phase asks for.
//!
//! The asker says which issuer it expects; the row decides. An agent that asks with an old view is sent back to
//! look, instead of getting a certificate that it would have to discard.
//!
//! Crash point: between `authorization.granted` and the answer. The agent asks again with the same key, which
//! it made durable first, and finds the first result; no second certificate is made for it.

use crate::{
    authority::{AuthorityType, KeyKind},
    command::{Answer, Command, Given, KeyRequest},
    decide::{Decided, Decision, access::names},
    event::{Form, LeafUse, Occasion},
    id::{AuthorityId, MemberId, NodeId, Principal, SpkiPin, UserName},
    refusal::{Code, Refusal},
    rules::{Rule, holds},
    state::{ClusterState, Node, Pending},
};

use super::{
    Leaf, authorize, check_holder_of_key, check_key, earlier, not_in_service, sign::host_form, type_state,
};

/// What somebody asks for of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Of which authority.
    pub authority_type: AuthorityType,
    /// What it wants to do with it.
    pub usage: LeafUse,
    /// The issuer that it saw; none leaves it to the row.
    pub issuer: Option<SpkiPin>,
    /// For TLS or for SSH.
    pub form: KeyKind,
}

impl Wanted {
    /// All of it.
    pub fn new(
        authority_type: AuthorityType,
        usage: LeafUse,
        issuer: Option<SpkiPin>,
        form: KeyKind,
    ) -> Self {
        Self {
            authority_type,
            usage,
            issuer,
            form,
        }
    }
}

/// Decides a request of a node, member or user for a certificate of its own.
///
/// # Errors
/// `stale_view` if the row no longer names the asked issuer, `type_not_granted`, `type_not_in_service`, `key_reused`,
/// `name_taken`, `node_removed`, `member_unknown`.
pub fn request(
    state: &ClusterState,
    command: &Command,
    wanted: &Wanted,
    key: &KeyRequest,
    given: &Given,
) -> Decided {
    let leaf = match &command.principal {
        Principal::Node(id) => of_node(state, *id, wanted, given)?,
        Principal::Gateway(id) => of_member(state, *id, wanted)?,
        Principal::User(name) => of_user(state, name, wanted)?,
        Principal::External(_) | Principal::System(_) | Principal::Anonymous => {
            let text = format!("{} has no certificate of its own to ask for", command.principal);
            return Err(Refusal::new(Code::NotPermitted, text));
        }
    };
    if wanted.form == KeyKind::Tls {
        // The row was checked before this: a repetition whose issuer the row names no more is stale like any other.
        // The same key again for the same certificate: a request that was repeated after its answer was lost.
        if let Some(earlier) = earlier(state, &leaf.holder, key.spki)
            && (earlier.authority_type, earlier.issuer, earlier.usage)
                == (wanted.authority_type, leaf.issuer, leaf.usage)
        {
            return Ok(earlier.repeated(Answer::Authorized {
                authorization: earlier.authorization,
            }));
        }
        check_key(state, &leaf.holder, key)?;
    } else {
        check_holder_of_key(state, &leaf.holder, key, wanted.form, given.now)?;
        // Whoever asks again, and again, while the signer is away waits for one certificate.
        if let Some(waiting) = waiting(state, &leaf, key.spki).filter(|p| p.granted.not_after > given.now) {
            let authorization = waiting.granted.authorization;
            return Ok(Decision {
                facts: vec![],
                answer: Answer::Authorized { authorization },
                repeats: Some(waiting.position),
            });
        }
    }
    let granted = authorize(state, leaf, key, given.fresh[0], given)?;
    let answer = Answer::Authorized {
        authorization: granted.authorization,
    };
    Ok(Decision::new(vec![granted.into()], answer))
}

/// The authorisation of just this for just this key that waits for the signer.
fn waiting<'a>(state: &'a ClusterState, leaf: &Leaf, spki: SpkiPin) -> Option<&'a Pending> {
    let pending = state.pending.get(state.pending_keys.get(&spki)?)?;
    let granted = &pending.granted;
    let is_it = granted.holder == leaf.holder
        && (granted.authority_type, granted.issuer, granted.usage)
            == (leaf.authority_type, leaf.issuer, leaf.usage)
        && granted.form == leaf.form;
    is_it.then_some(pending)
}

/// A node's: a type and role of its grant, by the row's issuer, with the names and addresses of its grant.
fn of_node(state: &ClusterState, id: NodeId, wanted: &Wanted, given: &Given) -> Result<Leaf, Refusal> {
    let (authority_type, usage, asked) = (wanted.authority_type, wanted.usage, wanted.issuer);
    let Some(node) = state.nodes.get(&id) else {
        let text = "this node was removed: it needs a new join token";
        return Err(Refusal::new(Code::NodeRemoved, text));
    };
    check_role(node, authority_type, usage)?;
    let of = type_state(state, authority_type)?;
    let is_ssh = match wanted.form {
        KeyKind::Tls => false,
        // OpenSSH's hosts are servers; what a node does as a client it does with TLS.
        KeyKind::Ssh if (authority_type, usage) == (AuthorityType::Host, LeafUse::Server) => true,
        KeyKind::Ssh | KeyKind::Jwt => {
            let text = "a node may ask for SSH certificates of `host` as a server, and for no tokens";
            return Err(Refusal::new(Code::TypeNotGranted, text));
        }
    };
    if !of.active.contains_key(&wanted.form) {
        return Err(not_in_service(authority_type, wanted.form));
    }
    let row_issuer = of.row(wanted.form).issuer(usage);
    // A renewal is a request like any other: a timer must not bring back what a phase has just replaced.
    let issuer = if holds(Rule::RenewalFollowsTheRow) {
        same_issuer(row_issuer, asked)?
    } else {
        asked
            .filter(|i| of.trusted().contains(i))
            .or(row_issuer)
            .ok_or_else(stale)?
    };
    // A node that slept past its expiry may have lost its name to another one meanwhile.
    for name in &node.names {
        names::check_free(state, name, Some(&Principal::Node(id)), given.now)?;
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
        form: if is_ssh {
            host_form(&node.names, &node.grant.addresses)
        } else {
            Form::Tls
        },
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
fn of_member(state: &ClusterState, id: MemberId, wanted: &Wanted) -> Result<Leaf, Refusal> {
    let (authority_type, usage, asked) = (wanted.authority_type, wanted.usage, wanted.issuer);
    if authority_type != AuthorityType::Host || wanted.form != KeyKind::Tls {
        let text =
            format!("a control-plane service holds TLS certificates of `host`, none of `{authority_type}`");
        return Err(Refusal::new(Code::TypeNotGranted, text));
    }
    let Some(member) = state.members.get(&id) else {
        let text = format!("no member {id} is recorded: it must report its start first");
        return Err(Refusal::new(Code::MemberUnknown, text));
    };
    let of = type_state(state, authority_type)?;
    let issuer = asked
        .or(of.row(KeyKind::Tls).issuer(usage))
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
        form: Form::Tls,
        ttl_ms: state.settings().node_ttl_ms,
    })
}

/// A person's: client certificates of type `user`, without names; what may be done with them says the log. For SSH with
/// the accounts that the log gives to them.
fn of_user(state: &ClusterState, user: &UserName, wanted: &Wanted) -> Result<Leaf, Refusal> {
    let (authority_type, usage) = (wanted.authority_type, wanted.usage);
    if authority_type != AuthorityType::User || usage != LeafUse::Client || wanted.form == KeyKind::Jwt {
        let text = format!("{user} may ask for client certificates of `user` alone");
        return Err(Refusal::new(Code::TypeNotGranted, text));
    }
    let mut leaf = Leaf::of_user(state, user, Occasion::Renewal)?;
    if wanted.form == KeyKind::Ssh {
        let issuer = type_state(state, authority_type)?.row(KeyKind::Ssh).issuer(usage);
        leaf.issuer = issuer.ok_or_else(|| not_in_service(authority_type, KeyKind::Ssh))?;
        leaf.form = person_form(state, user);
    }
    same_issuer(Some(leaf.issuer), wanted.issuer)?;
    Ok(leaf)
}

/// What a person may do over SSH: log in to the accounts that the log gives to them, with a terminal and with forwarded
/// ports. Whoever needs more is given it by `auth sign`.
fn person_form(state: &ClusterState, user: &UserName) -> Form {
    Form::Ssh {
        principals: state.logins_of(user),
        critical_options: Default::default(),
        extensions: vec!["permit-port-forwarding".into(), "permit-pty".into()],
    }
}

/// Both roles in one leaf need both in the grant.
fn check_role(node: &Node, authority_type: AuthorityType, usage: LeafUse) -> Result<(), Refusal> {
    let granted = node
        .uses(authority_type)
        .is_some_and(|uses| (uses.client || !usage.client()) && (uses.server || !usage.server()));
    if granted && usage != LeafUse::Signing {
        return Ok(());
    }
    let role = match usage {
        LeafUse::Client => "client",
        LeafUse::Server => "server",
        LeafUse::Both => "client and server",
        LeafUse::Signing => "signer",
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
