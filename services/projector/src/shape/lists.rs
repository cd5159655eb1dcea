//! The other lists of `get`.

use api::shape::{AuthorityDoc, AuthorityKeyDoc, CertificateDoc, ConsumerDoc, TokenDoc, UserDoc};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityType, CertDigest, ClusterState, Principal, Timestamp,
    authority::AuthorityKey,
    state::{Certificate, RetiredKey, TypeState},
};

use super::key_doc;

/// How many of those who joined with one token are named: the list is written anew with each of them.
const USERS_SHOWN: usize = 100;

/// All authorities with their keys, retired ones too.
pub fn authorities(state: &ClusterState) -> Vec<AuthorityDoc> {
    let none = TypeState::default();
    let doc = |t: AuthorityType| {
        let of = state.types.get(&t).unwrap_or(&none);
        let (active, prepared) = (of.active.values(), of.prepared.values());
        let keys = active
            .map(|key| key_of(key, "active", None))
            .chain(prepared.map(|key| key_of(key, "prepared", None)))
            .chain(
                of.retired
                    .iter()
                    .rev()
                    .map(|retired| key_of(&retired.key, "retired", Some(retired))),
            );
        AuthorityDoc {
            authority_type: t,
            signs: t.row().signs.into(),
            verifiers: t.row().verifiers.into(),
            in_service: of.is_in_service(),
            phase: of.phase,
            keys: keys.collect(),
            bundle_revision: of.bundle.as_ref().map(|head| head.revision),
        }
    };
    AuthorityType::all().map(doc).collect()
}

fn key_of(key: &AuthorityKey, status: &str, retired: Option<&RetiredKey>) -> AuthorityKeyDoc {
    let der = STANDARD.decode(&key.certificate).unwrap_or_default();
    AuthorityKeyDoc {
        key: key_doc(key, status),
        position: key.position,
        rotation: key.rotation,
        certificate: if der.is_empty() {
            String::new()
        } else {
            pki::pem::encode_certificates([&der[..]])
        },
        public_key: key.public_key.clone(),
        retired_at: retired.map(|retired| retired.at),
        destroyed: retired.is_some_and(|retired| retired.destroyed),
    }
}

/// All certificates whose time for recovery is not over, newest first.
pub fn certificates(state: &ClusterState) -> Vec<CertificateDoc> {
    let mut docs: Vec<_> = state
        .certificates
        .iter()
        .map(|(digest, of)| certificate(state, digest, of))
        .collect();
    docs.sort_by_key(|doc| std::cmp::Reverse(doc.position));
    docs
}

/// Those of one holder, oldest first.
pub fn certificates_of(state: &ClusterState, holder: &Principal) -> Vec<CertificateDoc> {
    let held = state.held.get(holder).into_iter().flatten();
    held.filter_map(|digest| Some(certificate(state, digest, state.certificates.get(digest)?)))
        .collect()
}

/// One certificate.
pub fn certificate(state: &ClusterState, digest: &CertDigest, of: &Certificate) -> CertificateDoc {
    let name = match &of.holder {
        Principal::Node(id) => state.nodes.get(id).map(|node| node.hostname.to_string()),
        Principal::Gateway(id) => state.members.get(id).map(|member| member.service.clone()),
        Principal::User(name) => Some(name.to_string()),
        Principal::External(name) => Some(name.clone()),
        Principal::System(_) | Principal::Anonymous => None,
    };
    CertificateDoc {
        digest: *digest,
        name: name.unwrap_or_else(|| of.holder.to_string()),
        holder: of.holder.clone(),
        authority_type: of.authority_type,
        issuer: of.issuer,
        kind: of.kind,
        usage: of.usage,
        serial: of.serial,
        spki: of.spki,
        authorization: of.authorization,
        issued: of.issued,
        not_after: of.not_after,
        presented: of.presented,
        superseded_at: of.superseded_at,
        revoked: of.revoked,
        position: of.position,
    }
}

/// All join tokens that were not removed, the ones that end last first.
pub fn tokens(state: &ClusterState, now: Timestamp) -> Vec<TokenDoc> {
    let mut docs: Vec<TokenDoc> = state
        .tokens
        .values()
        .map(|token| TokenDoc {
            id: token.id,
            names: token.grant.names.iter().map(ToString::to_string).collect(),
            addresses: token.grant.addresses.clone(),
            types: token.grant.uses.clone(),
            uses: token.uses,
            used: u32::try_from(token.used.len()).unwrap_or(u32::MAX),
            used_by: token.used.values().copied().take(USERS_SHOWN).collect(),
            expires: token.expires,
            expired: token.expires <= now,
            made_by: token.made_by.clone(),
        })
        .collect();
    docs.sort_by_key(|doc| (std::cmp::Reverse(doc.expires), doc.id));
    docs
}

/// All operators, by name.
pub fn users(state: &ClusterState) -> Vec<UserDoc> {
    let last_end = |holder: Principal| {
        let held = state.held.get(&holder).into_iter().flatten();
        held.filter_map(|d| state.certificates.get(d))
            .filter(|c| !c.revoked)
            .map(|c| c.not_after)
            .max()
    };
    let users = state.users.iter();
    users
        .map(|(name, roles)| UserDoc {
            name: name.to_string(),
            roles: roles.clone(),
            logins: state.logins_of(name),
            not_after: last_end(Principal::User(name.clone())),
        })
        .collect()
}

/// All external consumers, by authority and name.
pub fn consumers(state: &ClusterState) -> Vec<ConsumerDoc> {
    let doc = |((t, name), consumer): (&(AuthorityType, domain::ConsumerName), &domain::state::Consumer)| {
        ConsumerDoc {
            name: name.to_string(),
            authority_type: *t,
            owner: consumer.owner.clone(),
            contact: consumer.contact.clone(),
            probe: consumer.probe.clone(),
            attested: consumer.attested,
            probed: consumer.probed,
            waited_for: state.types.get(t).is_some_and(|of| of.waits_for(consumer)),
        }
    };
    state.consumers.iter().map(doc).collect()
}
