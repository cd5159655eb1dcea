//! The cluster, tokens, users, consumers.

use std::collections::BTreeMap;

use crate::{
    access::RoleName,
    event::{
        AccessRecovered, AccessTokenCreated, AccessTokenUsed, AccessUserAdded, ClusterCreated, ConsumerAdded,
        ConsumerAttested, Header,
    },
    id::{Principal, TokenId, UserName},
    state::{Cluster, ClusterState, Consumer, Token},
};

use super::certificate;

pub(super) fn cluster_created(state: &mut ClusterState, header: &Header, f: &ClusterCreated) {
    state.cluster = Some(Cluster {
        name: f.cluster.clone(),
        version: f.version.clone(),
        created: header.time,
        settings: f.settings.clone(),
        bundle_key: f.bundle_key,
        bundle_public_key: f.bundle_public_key.clone(),
    });
}

pub(super) fn token_created(state: &mut ClusterState, header: &Header, f: &AccessTokenCreated) {
    state.token_hashes.insert(f.hash, f.token);
    state.tokens.insert(
        f.token,
        Token {
            id: f.token,
            hash: f.hash,
            grant: f.grant.clone(),
            uses: f.uses,
            expires: f.expires,
            made_by: header.actor.clone(),
            used: BTreeMap::new(),
        },
    );
}

pub(super) fn token_used(state: &mut ClusterState, f: &AccessTokenUsed) {
    if let Some(token) = state.tokens.get_mut(&f.token) {
        token.used.insert(f.spki, f.node);
    }
}

pub(super) fn token_removed(state: &mut ClusterState, id: &TokenId) {
    if let Some(token) = state.tokens.remove(id) {
        state.token_hashes.remove(&token.hash);
    }
}

pub(super) fn user_added(state: &mut ClusterState, f: &AccessUserAdded) {
    state
        .users
        .insert(f.user.clone(), f.roles.iter().copied().collect());
    if !f.logins.is_empty() {
        state.logins.insert(f.user.clone(), f.logins.clone());
    }
}

pub(super) fn user_removed(state: &mut ClusterState, header: &Header, user: &UserName) {
    state.users.remove(user);
    state.logins.remove(user);
    certificate::revoke_all(
        state,
        &Principal::User(user.clone()),
        header.position,
        certificate::GONE,
    );
}

pub(super) fn recovered(state: &mut ClusterState, f: &AccessRecovered) {
    let roles = state.users.entry(f.user.clone()).or_default();
    roles.extend([RoleName::Admin, RoleName::Operator]);
}

pub(super) fn consumer_added(state: &mut ClusterState, f: &ConsumerAdded) {
    let consumer = Consumer {
        owner: f.owner.clone(),
        contact: f.contact.clone(),
        probe: f.probe.clone(),
        attested: None,
        probed: false,
    };
    state
        .consumers
        .insert((f.authority_type, f.consumer.clone()), consumer);
}

pub(super) fn consumer_attested(state: &mut ClusterState, f: &ConsumerAttested) {
    if let Some(consumer) = state.consumers.get_mut(&(f.authority_type, f.consumer.clone())) {
        consumer.attested = Some((f.rotation, f.phase));
        consumer.probed = f.probed;
    }
}
