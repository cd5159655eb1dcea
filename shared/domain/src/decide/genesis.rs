//! The first facts of a cluster, appended as one at the first `serve`.
//!
//! Crash point: before the append nothing is in the log, and `init`'s files begin again at the next `serve`;
//! after it the cluster exists, and the same files find it.

use std::collections::BTreeSet;

use crate::{
    access::RoleName,
    authority::AuthorityType,
    command::{Answer, Genesis},
    decide::{Decided, Decision},
    event::{AccessUserAdded, ClusterCreated, Fact},
    id::Principal,
    refusal::{Code, Refusal},
    state::ClusterState,
};

/// Begins a cluster: itself, its keys, its administrator, and the only certificates made before their log.
///
/// The cluster's fact comes first and carries the condition, so that of two first starts one wins.
///
/// # Errors
/// `cluster_exists`; `bad_request` if the parts do not fit together.
pub fn begin(state: &ClusterState, genesis: &Genesis) -> Decided {
    if let Some(name) = state.cluster_name() {
        let text = format!(
            "the log holds the cluster {name} already: it needs another log, or that cluster's data directory"
        );
        return Err(Refusal::new(Code::ClusterExists, text));
    }
    check(genesis)?;
    let created = ClusterCreated {
        cluster: genesis.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        settings: genesis.settings.clone(),
        bundle_key: genesis.bundle_key,
        bundle_public_key: genesis.bundle_public_key.clone(),
    };
    let admin = AccessUserAdded {
        user: genesis.admin.clone(),
        roles: vec![RoleName::Operator, RoleName::Admin],
        logins: vec![],
    };
    let mut facts: Vec<Fact> = vec![created.into()];
    for (generated, activated) in &genesis.keys {
        facts.extend([Fact::from(generated.clone()), activated.clone().into()]);
    }
    facts.push(admin.into());
    for (granted, issued) in &genesis.certificates {
        facts.extend([Fact::from(granted.clone()), issued.clone().into()]);
    }
    Ok(Decision::new(facts, Answer::Done))
}

/// Do the parts fit together? They were made by `init` in another process, maybe of another version.
fn check(genesis: &Genesis) -> Result<(), Refusal> {
    let types: BTreeSet<_> = genesis
        .keys
        .iter()
        .map(|(generated, _)| generated.authority_type)
        .collect();
    let activated = genesis.keys.iter().all(|(generated, activated)| {
        (generated.authority_type, generated.key.kind, generated.key.id)
            == (activated.authority_type, activated.kind, activated.authority)
    });
    // Nobody but these two gets a certificate that was signed before its log existed.
    let holders = [
        Principal::User(genesis.admin.clone()),
        Principal::Gateway(genesis.gateway),
    ];
    let authorised = genesis.certificates.iter().all(|(granted, issued)| {
        holders.contains(&granted.holder)
            && (
                granted.authorization,
                &granted.holder,
                granted.spki,
                granted.issuer,
                granted.serial,
            ) == (
                issued.authorization,
                &issued.holder,
                issued.spki,
                issued.issuer,
                issued.serial,
            )
    });
    let has_doors = types.contains(&AuthorityType::Host) && types.contains(&AuthorityType::User);
    if activated && authorised && has_doors {
        return Ok(());
    }
    let text =
        "the data directory's first facts do not fit together: run `carousel init` into an empty directory";
    Err(Refusal::new(Code::BadRequest, text))
}
