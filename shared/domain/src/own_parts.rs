//! The control plane's own parts in a step: the signer's key and bundle, and the members.
//!
//! Nobody outside can do anything about them. So a phase command that finds only those lagging is held back for a while
//! instead of being refused, and one that was accepted is answered when they have followed.

use crate::{
    authority::AuthorityType,
    command::{Command, Given},
    decide::decide,
    gate::lagging_members,
    phase::Phase,
    refusal::Code,
    state::{ClusterState, TypeState},
    time::Timestamp,
};

/// Would the command be refused now for them alone? Decided without sending it, because a refusal is on record and a
/// repeated command gets its first answer again.
pub fn hold_back(
    state: &ClusterState,
    command: &Command,
    clock: Timestamp,
    sha256: fn(&[u8]) -> [u8; 32],
) -> bool {
    let given = Given {
        now: state.now(clock),
        // Nothing of this look is kept.
        fresh: [command.id.0; 4],
        serials: [[0; 16]; 2],
        clock_suspect: false,
        sha256,
    };
    let own = |code| matches!(code, Code::MembersLagging | Code::KeyMissing);
    matches!(decide(state, command, &given), Err(refusal) if own(refusal.code))
}

/// Have they followed into the phase: key made, bundle signed, every running member at the row? Also where somebody has gone
/// on already: then they had, or were waited for by that command.
pub fn have_followed(state: &ClusterState, authority_type: AuthorityType, phase: Phase) -> bool {
    let Some(of) = state.types.get(&authority_type) else {
        return false;
    };
    of.phase != phase
        || (has_keys(of) && has_bundle(of) && lagging_members(state, authority_type, of).is_empty())
}

/// What they have not done yet, in words.
pub fn missing_in_words(state: &ClusterState, authority_type: AuthorityType) -> Vec<String> {
    let Some(of) = state.types.get(&authority_type) else {
        return vec![];
    };
    let mut missing = vec![];
    if !has_keys(of) {
        missing.push("the signer has not made the new key".to_owned());
    }
    if !has_bundle(of) {
        missing.push("the signer has not signed the new trust bundle".to_owned());
    }
    let lagging = lagging_members(state, authority_type, of);
    missing.extend(lagging.into_iter().map(|member| {
        let what = member.missing.in_words(of.phase);
        format!("the {} {} {what}", member.service, member.member)
    }));
    missing
}

/// What is said of a step that was accepted, when they have not followed in so many seconds.
pub fn not_followed(missing: &[String], seconds: u64) -> String {
    let missing = missing.join(", ");
    format!("accepted, but after {seconds} s {missing}; nodes follow once that is done")
}

fn has_keys(of: &TypeState) -> bool {
    of.rotation.is_none() || of.phase == Phase::Rollback || of.prepared_is_complete()
}

fn has_bundle(of: &TypeState) -> bool {
    of.bundle.as_ref().is_some_and(|b| b.revision >= of.row_position)
}
