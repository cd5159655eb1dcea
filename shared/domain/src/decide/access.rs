//! Who may come in: join tokens and users, all decided on one subject.
//!
//! One subject, so that of two commands which cannot both be right (two users of one name, two removals that
//! leave no administrator) the second one is decided on a state that holds the first.

use std::collections::BTreeSet;

use crate::{
    access::{Grant, RoleName, Uses},
    authority::{AuthorityType, KeyKind},
    command::{Answer, Given, KeyRequest, Order},
    decide::{
        Decided, Decision,
        certificates::{self, Leaf},
    },
    event::{
        AccessCredentialPresented, AccessRecovered, AccessTokenCreated, AccessTokenRemoved, AccessUserAdded,
        AccessUserRemoved, AuthorizationGranted, Fact, Occasion,
        form::{MOST_PRINCIPALS, is_principal},
    },
    id::{CertDigest, Principal, TokenHash, TokenId, UserName},
    refusal::{Code, Refusal},
    state::ClusterState,
    time::DAY_MS,
};

pub mod names;

/// The longest life of a join token, in milliseconds: a forgotten one must not stay a door for ever.
pub const MAX_TOKEN_TTL_MS: u64 = 7 * DAY_MS;
/// The most nodes that one token may let in.
pub const MAX_TOKEN_USES: u32 = 100_000;

/// Makes a join token: the secret itself stays with the CLI, the log knows its digest.
///
/// # Errors
/// `token_invalid` for a token of no use, `name_reserved`, `type_not_in_service`.
pub fn create_token(
    state: &ClusterState,
    hash: TokenHash,
    grant: &Grant,
    uses: u32,
    ttl_ms: u64,
    given: &Given,
) -> Decided {
    if uses == 0 || uses > MAX_TOKEN_USES {
        return Err(invalid(format!(
            "the number of uses must be from 1 to {MAX_TOKEN_USES}"
        )));
    }
    if ttl_ms == 0 || ttl_ms > MAX_TOKEN_TTL_MS {
        return Err(invalid(
            "the token must live longer than nothing and at most 7 days",
        ));
    }
    // Two tokens with one secret would let a join choose between two grants.
    if state.token_hashes.contains_key(&hash) {
        return Err(invalid(
            "a token with this secret exists: make a new one from fresh random bytes",
        ));
    }
    let grant = usable_grant(state, grant)?;
    let (token, expires) = (TokenId(given.fresh[0]), given.now.plus_ms(ttl_ms));
    let fact = AccessTokenCreated {
        token,
        hash,
        grant,
        uses,
        expires,
    };
    Ok(Decision::new(vec![fact.into()], Answer::Token { token, expires }))
}

/// Removes a token: nobody joins with it any more; nodes that did stay.
///
/// # Errors
/// `not_found`.
pub fn remove_token(state: &ClusterState, token: &TokenId) -> Decided {
    if !state.tokens.contains_key(token) {
        let text = format!("there is no token {token}: `carousel get tokens` lists them");
        return Err(Refusal::new(Code::NotFound, text));
    }
    Ok(Decision::done(vec![AccessTokenRemoved { token: *token }.into()]))
}

/// Adds a user and authorises the first certificate.
///
/// # Errors
/// `user_exists`, `roles_invalid` (of accounts too), `key_reused`.
pub fn add_user(state: &ClusterState, order: &Order, given: &Given) -> Decided {
    let Order::AddUser {
        user,
        roles,
        logins,
        key,
    } = order
    else {
        let text = format!("`{}` adds no user", order.name());
        return Err(Refusal::new(Code::Internal, text));
    };
    if state.users.contains_key(user) {
        return Err(Refusal::new(
            Code::UserExists,
            format!("a user {user} exists: choose another name"),
        ));
    }
    if roles.is_empty() {
        let text = "a user needs at least one role: admin, operator or auditor";
        return Err(Refusal::new(Code::RolesInvalid, text));
    }
    if logins.len() > MOST_PRINCIPALS || !logins.iter().all(|login| is_principal(login)) {
        let text = format!(
            "a login is the name of an account, without spaces and without `*?!,\"`; a user has at most {MOST_PRINCIPALS}"
        );
        return Err(Refusal::new(Code::RolesInvalid, text));
    }
    certificates::check_key(state, &Principal::User(user.clone()), key)?;
    let granted = login(state, user, key, given)?;
    let answer = Answer::Authorized {
        authorization: granted.authorization,
    };
    let added = AccessUserAdded {
        user: user.clone(),
        roles: roles.iter().copied().collect(),
        logins: logins.to_vec(),
    };
    Ok(Decision::new(vec![added.into(), granted.into()], answer))
}

/// Removes a user; the certificates no longer count from the fact on, and the signer denies them.
///
/// # Errors
/// `user_unknown`; `last_admin`, because nobody could add one again.
pub fn remove_user(state: &ClusterState, user: &UserName) -> Decided {
    let Some(roles) = state.users.get(user) else {
        return Err(Refusal::new(
            Code::UserUnknown,
            format!("there is no user {user}"),
        ));
    };
    // Operators cannot make administrators: without the last one only the control-plane host helps.
    let is_admin = |roles: &BTreeSet<RoleName>| roles.contains(&RoleName::Admin);
    let other_admin = state
        .users
        .iter()
        .any(|(name, roles)| name != user && is_admin(roles));
    if is_admin(roles) && !other_admin {
        let text =
            format!("{user} is the last administrator: add another one first with `carousel users add`");
        return Err(Refusal::new(Code::LastAdmin, text));
    }
    Ok(Decision::done(vec![
        AccessUserRemoved { user: user.clone() }.into(),
    ]))
}

/// Gives an administrator a new certificate, from the control-plane host.
///
/// # Errors
/// `key_reused`.
pub fn recover_admin(state: &ClusterState, user: &UserName, key: &KeyRequest, given: &Given) -> Decided {
    let holder = Principal::User(user.clone());
    // The host asks again after a crash with the key that it made durable: the first result stands.
    if let Some(earlier) = certificates::earlier(state, &holder, key.spki) {
        return Ok(earlier.repeated(Answer::Authorized {
            authorization: earlier.authorization,
        }));
    }
    certificates::check_key(state, &holder, key)?;
    let granted = login(state, user, key, given)?;
    let answer = Answer::Authorized {
        authorization: granted.authorization,
    };
    let mut facts: Vec<Fact> = Vec::with_capacity(3);
    if !state.users.contains_key(user) {
        let roles = vec![RoleName::Operator, RoleName::Admin];
        facts.push(
            AccessUserAdded {
                user: user.clone(),
                roles,
                logins: vec![],
            }
            .into(),
        );
    }
    facts.push(
        AccessRecovered {
            user: user.clone(),
            spki: key.spki,
        }
        .into(),
    );
    facts.push(granted.into());
    Ok(Decision::new(facts, answer))
}

/// Records that a certificate was seen in use for the first time; the time condition reads it.
///
/// # Errors
/// `certificate_unknown` if it is not this holder's, or no longer counts.
pub fn present(state: &ClusterState, holder: &Principal, digest: CertDigest) -> Decided {
    let known = state
        .certificates
        .get(&digest)
        .filter(|c| c.holder == *holder && !c.revoked);
    let Some(certificate) = known else {
        let text = format!("the log knows no such certificate of {holder}");
        return Err(Refusal::new(Code::CertificateUnknown, text));
    };
    if certificate.presented.is_some() {
        return Ok(Decision::done(vec![]));
    }
    let fact = AccessCredentialPresented {
        holder: holder.clone(),
        certificate: digest,
    };
    Ok(Decision::done(vec![fact.into()]))
}

/// The grant as it will stand in the log: checked, and with `host`, without which a node cannot speak to us.
fn usable_grant(state: &ClusterState, grant: &Grant) -> Result<Grant, Refusal> {
    if grant.names.is_empty() || grant.names.len() > names::MAX_NAMES {
        return Err(invalid(format!(
            "a token grants from 1 to {} names or patterns",
            names::MAX_NAMES
        )));
    }
    if grant.addresses.len() > names::MAX_ADDRESSES {
        return Err(invalid(format!(
            "a token grants at most {} addresses",
            names::MAX_ADDRESSES
        )));
    }
    for pattern in &grant.names {
        names::check_pattern(state, pattern)?;
    }
    names::check_addresses(state, &grant.addresses)?;
    let mut uses = grant.uses.clone();
    let host = uses
        .entry(AuthorityType::Host)
        .or_insert(Uses::usual(AuthorityType::Host));
    if !host.client || !host.verifier {
        return Err(invalid(
            "a node needs `host` as client and verifier: it could not speak to a gateway",
        ));
    }
    for (authority_type, uses) in &uses {
        let of = state.types.get(authority_type);
        // A cluster that an older version began has no keys of some types: there is nothing that a node could hold.
        let has_none = of.is_none_or(|of| !of.is_in_service());
        if has_none && !authority_type.has(KeyKind::Tls) {
            let text = format!("this cluster has no keys of type `{authority_type}`: leave it out of --use");
            return Err(Refusal::new(Code::TypeNotInService, text));
        }
        // Certificates for these are signed by hand; a node verifies by them, and presents none.
        if !authority_type.has(KeyKind::Tls) && (uses.client || uses.server) {
            return Err(invalid(format!(
                "a node can verify by `{authority_type}` and nothing else"
            )));
        }
        if *uses == Uses::default() {
            return Err(invalid(format!(
                "the token names `{authority_type}` without a role in it"
            )));
        }
    }
    Ok(Grant {
        names: grant.names.clone(),
        addresses: grant.addresses.clone(),
        uses,
    })
}

/// The authorisation of a person's certificate, by the issuer that the row names for people.
fn login(
    state: &ClusterState,
    user: &UserName,
    key: &KeyRequest,
    given: &Given,
) -> Result<AuthorizationGranted, Refusal> {
    let leaf = Leaf::of_user(state, user, Occasion::Login)?;
    certificates::authorize(state, leaf, key, given.fresh[0], given)
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::TokenInvalid, text)
}
