//! Control-plane services that speak TLS.

use crate::{
    event::{Header, MemberReported, MemberStarted},
    id::{BootId, MemberId},
    state::{ClusterState, Member},
};

pub(super) fn started(state: &mut ClusterState, header: &Header, f: &MemberStarted) {
    // A new boot replaces the old one: the stable id is one member, however often it starts.
    state.members.insert(
        f.member,
        Member {
            id: f.member,
            boot: Some(f.boot),
            seq: f.seq,
            service: f.service.clone(),
            running: true,
            names: f.names.clone(),
            addresses: f.addresses.clone(),
            facts: f.facts.clone(),
            last_event: header.time,
            position: header.position,
        },
    );
}

pub(super) fn reported(state: &mut ClusterState, header: &Header, f: &MemberReported) {
    let Some(member) = state
        .members
        .get_mut(&f.member)
        .filter(|m| m.boot == Some(f.boot))
    else {
        return;
    };
    member.seq = f.seq;
    member.facts = f.facts.clone();
    member.running = true;
    member.last_event = header.time;
    member.position = header.position;
}

pub(super) fn ended(state: &mut ClusterState, header: &Header, id: &MemberId, boot: &BootId) {
    let Some(member) = state.members.get_mut(id).filter(|m| m.boot == Some(*boot)) else {
        return;
    };
    member.running = false;
    member.last_event = header.time;
    member.position = header.position;
}
