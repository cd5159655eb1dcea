//! `auth sign` and `auth token`: certificates and tokens for parties without an agent.
//!
//! The order of a person is the grant: what stands in it is what the party gets, as far as its type gives such a thing.
//! Always of the kind `external`, so that nobody becomes a principal of the control plane by it.

use crate::{
    authority::{AuthorityType, KeyKind},
    command::{Answer, Given, Sign},
    decide::{Decided, Decision, access::names},
    event::{Form, LeafUse, Occasion},
    gate,
    id::{AuthorityId, Principal},
    refusal::{Code, Refusal},
    state::{ClusterState, Consumer, TypeState},
    time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS},
};

use super::{Leaf, authorize, check_holder_of_key, not_in_service, type_state};

/// The longest life of a host's certificate where no agent renews it, in milliseconds: as long as a database's.
pub(super) const HOST_BY_HAND_MS: u64 = 90 * DAY_MS;

/// Decides what a party without an agent gets.
///
/// # Errors
/// `type_not_in_service`, `sign_invalid`, `name_reserved`, `name_taken`, `key_reused`; `nodes_lagging` where the new
/// authority of databases is not trusted by all their clients yet.
pub fn sign(state: &ClusterState, sign: &Sign, given: &Given) -> Decided {
    let (authority_type, kind) = (sign.authority_type, sign.form.kind());
    let of = type_state(state, authority_type).ok();
    let of = of
        .filter(|of| of.active.contains_key(&kind))
        .ok_or_else(|| not_in_service(authority_type, kind))?;
    let usage = match kind {
        KeyKind::Tls | KeyKind::Ssh => authority_type.row().usage_by_hand,
        KeyKind::Jwt => LeafUse::Client,
    };
    if matches!(sign.form, Form::Logon { .. }) && authority_type != AuthorityType::Windows {
        return Err(invalid(
            "users of a directory are named in certificates of `windows` alone",
        ));
    }
    let holder = Principal::External(sign.holder.to_string());
    let form = check_contents(state, sign, usage, &holder, given)?;
    let issuer = of.row(kind).issuer_by_hand(authority_type, usage);
    let issuer = issuer.ok_or_else(|| not_in_service(authority_type, kind))?;
    if authority_type == AuthorityType::Db {
        check_verifiers(state, of, issuer)?;
    }
    // A token certifies no key: what it is sealed to is the asker's affair.
    if kind != KeyKind::Jwt {
        check_holder_of_key(state, &holder, &sign.key, kind, given.now)?;
    }
    let leaf = Leaf {
        holder,
        authority_type,
        issuer,
        usage,
        occasion: Occasion::Signing,
        common_name: sign.holder.to_string(),
        names: sign.names.clone(),
        addresses: sign.addresses.clone(),
        form,
        ttl_ms: life_ms(state, sign)?,
    };
    let granted = authorize(state, leaf, &sign.key, given.fresh[0], given)?;
    let answer = Answer::Authorized {
        authorization: granted.authorization,
    };
    Ok(Decision::new(vec![granted.into()], answer))
}

/// The form as it will stand in the log, if the type gives such a thing with these names.
fn check_contents(
    state: &ClusterState,
    sign: &Sign,
    usage: LeafUse,
    holder: &Principal,
    given: &Given,
) -> Result<Form, Refusal> {
    let (is_host, is_named) = (
        sign.authority_type == AuthorityType::Host,
        !sign.names.is_empty() || !sign.addresses.is_empty(),
    );
    if sign.names.len() > names::MAX_NAMES || sign.addresses.len() > names::MAX_ADDRESSES {
        return Err(invalid(format!(
            "a certificate bears at most {} names and {} addresses",
            names::MAX_NAMES,
            names::MAX_ADDRESSES
        )));
    }
    let bears_names = usage.server() && sign.form.kind() != KeyKind::Jwt;
    if is_named && !bears_names {
        return Err(invalid(format!(
            "a credential of type `{}` bears no DNS names and no addresses: leave them out",
            sign.authority_type
        )));
    }
    if usage == LeafUse::Server && !is_named {
        return Err(invalid(
            "a server's certificate needs a name or an address that its clients connect to",
        ));
    }
    // A database's clients know its name from elsewhere, and it may be a node's; of hosts each has a name of its own.
    if is_host {
        names::check_names(state, &sign.names, Some(holder), given.now)?;
    } else if let Some(name) = sign.names.iter().find(|name| names::is_reserved(state, name)) {
        return Err(names::reserved_name(name));
    }
    names::check_addresses(state, &sign.addresses)?;
    let form = match &sign.form {
        Form::Ssh {
            principals,
            critical_options,
            extensions,
        } if is_host => {
            if !(principals.is_empty() && critical_options.is_empty() && extensions.is_empty()) {
                return Err(invalid(
                    "a host's SSH certificate has no options, and its principals are its names",
                ));
            }
            host_form(&sign.names, &sign.addresses)
        }
        form => form.clone(),
    };
    form.check().map_err(|what| invalid(format!("the {what}")))?;
    Ok(form)
}

/// The SSH form of a host: its principals are what its users connect to.
pub(super) fn host_form(names: &[crate::id::Hostname], addresses: &[std::net::IpAddr]) -> Form {
    let names = names.iter().map(ToString::to_string);
    Form::Ssh {
        principals: names.chain(addresses.iter().map(ToString::to_string)).collect(),
        critical_options: Default::default(),
        extensions: vec![],
    }
}

/// A database that presents the new authority before a client trusts it is a database that this client has lost.
fn check_verifiers(state: &ClusterState, of: &TypeState, issuer: AuthorityId) -> Result<(), Refusal> {
    let db = AuthorityType::Db;
    if !of.prepared.values().any(|key| key.id == issuer) {
        return Ok(());
    }
    let lacks = state.nodes.values().filter(|node| {
        let verifies = node.uses(db).is_some_and(|uses| uses.verifier) && !gate::is_excluded(node, db, of);
        let facts = node.report.as_ref().and_then(|r| r.report.authorities.get(&db));
        verifies && facts.is_none_or(|facts| !facts.trusted.contains(&issuer))
    });
    let mut names: Vec<String> = lacks.map(|node| node.hostname.to_string()).collect();
    let has_attested =
        |consumer: &Consumer| consumer.attested.map(|(rotation, _)| rotation) == of.rotation_id();
    let consumers = state
        .consumers
        .iter()
        .filter(|((t, _), consumer)| *t == db && !has_attested(consumer));
    names.extend(consumers.map(|((_, name), _)| format!("consumer {name}")));
    if names.is_empty() {
        return Ok(());
    }
    let text = format!(
        "the new database CA signs once every client of databases trusts it, and {} do not yet: {}{}",
        names.len(),
        names[..names.len().min(NAMED)].join(", "),
        if names.len() > NAMED { ", …" } else { "" }
    );
    Err(Refusal::new(Code::NodesLagging, text))
}

/// How many of those who lag a refusal names.
const NAMED: usize = 10;

/// The life that was asked for, or else what the type gives: more is refused rather than cut, so that nobody finds a
/// shorter one than they asked for.
fn life_ms(state: &ClusterState, sign: &Sign) -> Result<u64, Refusal> {
    let settings = state.settings();
    let longest = match (sign.authority_type, sign.form.kind()) {
        (_, KeyKind::Jwt) => settings.jwt_ttl_ms,
        (AuthorityType::Host, _) => HOST_BY_HAND_MS,
        (AuthorityType::User, _) => settings.user_ttl_ms,
        (other, KeyKind::Tls | KeyKind::Ssh) => other.row().leaf_ttl_ms,
    };
    match sign.ttl_ms {
        None => Ok(longest),
        Some(0) => Err(invalid(
            "a life of no time is no life: leave it out, or give a longer one",
        )),
        Some(asked) if asked <= longest => Ok(asked),
        Some(_) => Err(invalid(format!(
            "what `{}` signs lives at most {}",
            sign.authority_type,
            in_words(longest)
        ))),
    }
}

fn in_words(ms: u64) -> String {
    let units = [(DAY_MS, "days"), (HOUR_MS, "hours"), (MINUTE_MS, "minutes")];
    let unit = units.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((SECOND_MS, "seconds"));
    match ms / unit {
        1 => format!("1 {}", name.trim_end_matches('s')),
        several => format!("{several} {name}"),
    }
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::SignInvalid, text)
}
