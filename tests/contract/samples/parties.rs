//! Nodes, control-plane members, tokens and people.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorityType, Position, Principal,
    access::RoleName,
    command::Revocable,
    event::*,
    fact::{FactReport, Failure, Seen, TypeFacts},
};

use super::{
    Sample, bare_grant, boot, by, by_alice, by_clock, by_host, by_message, by_nobody, days, first, grant,
    hours,
    material::{LEAF_DIGEST, LEAF_PIN},
    member, minutes, node, read, rotation, second,
};

/// The token that the node of the story joined with.
const TOKEN: &str = "01a021fd-0000-7a77-84a6-5b9ebc7d3f07";
/// The certificate that the node had before.
const EARLIER: &str = "sha256:c1f3b0c7a5a94b8f9d6e2f1a0b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e";

pub(super) fn samples() -> Vec<Sample> {
    [arrivals(), reports(), removals(), members(), tokens(), people()]
        .into_iter()
        .flatten()
        .collect()
}

fn arrivals() -> Vec<Sample> {
    let joined = NodeJoined {
        node: node(),
        hostname: read("web-1.acme.example"),
        grant: grant(),
        token: read(TOKEN),
        spki: read(LEAF_PIN),
    };
    let rejoined = NodeRejoined {
        node: joined.node,
        hostname: joined.hostname.clone(),
        grant: joined.grant.clone(),
        token: joined.token,
        spki: joined.spki,
        proven_by: Some(read(EARLIER)),
    };
    let stranger = NodeRejoined {
        grant: bare_grant(),
        proven_by: None,
        ..rejoined.clone()
    };
    let recovered = NodeRecovered {
        node: node(),
        proven_by: read(EARLIER),
        spki: read(LEAF_PIN),
    };
    vec![
        Sample::full(joined.clone(), by_nobody(minutes(7))),
        Sample::bare(
            NodeJoined {
                grant: bare_grant(),
                ..joined
            },
            by_nobody(minutes(7)),
        ),
        Sample::full(rejoined, by_nobody(days(60))),
        Sample::bare(stranger, by_nobody(days(60))),
        Sample::full(recovered, by_nobody(days(9))),
    ]
}

/// What a server holds in `update_clients`: both trusted, the client leaf from the new authority.
fn facts() -> Box<TypeFacts> {
    Box::new(TypeFacts {
        revision: Position(4711),
        trusted: BTreeSet::from([first(), second()]),
        client_issuer: Some(second()),
        server_issuer: Some(first()),
        ssh_issuer: None,
        ssh_not_after: None,
        client_not_after: Some(days(1)),
        server_not_after: Some(hours(20)),
        sessions_on_retiring: true,
        sessions_of_excluded: true,
    })
}

/// What a mere verifier holds.
fn bare_facts() -> Box<TypeFacts> {
    Box::new(TypeFacts {
        revision: Position(4711),
        trusted: BTreeSet::from([first()]),
        ..TypeFacts::default()
    })
}

fn reports() -> Vec<Sample> {
    let report = FactReport {
        boot: boot(),
        seq: 42,
        version: "0.1.0".into(),
        addr: Some("192.0.2.7:3080".into()),
        authorities: BTreeMap::from([
            (AuthorityType::Host, facts()),
            (AuthorityType::User, bare_facts()),
        ]),
        failure: Some(Failure {
            step: "reload".into(),
            detail: "`systemctl reload nginx` exited 1".into(),
            count: 2,
        }),
        unsynced: true,
        labels: BTreeMap::from([("rack".into(), "b12".into()), ("env".into(), "production".into())]),
    };
    let bare = FactReport {
        addr: None,
        authorities: BTreeMap::from([(AuthorityType::Host, bare_facts())]),
        failure: None,
        unsynced: false,
        labels: BTreeMap::new(),
        ..report.clone()
    };
    // One whose agent keeps a certificate for sshd.
    let with_sshd = TypeFacts {
        ssh_issuer: Some(first()),
        ssh_not_after: Some(hours(20)),
        ..*facts()
    };
    let with_sshd = FactReport {
        authorities: BTreeMap::from([(AuthorityType::Host, Box::new(with_sshd))]),
        ..report.clone()
    };
    let seen = Seen {
        certificate: read(LEAF_DIGEST),
        issuer: second(),
        from: Some("192.0.2.7:51544".into()),
    };
    let unseen = Seen {
        from: None,
        ..seen.clone()
    };
    let reported = |report, seen| NodeReported {
        node: node(),
        report,
        seen,
    };
    let actor = || Principal::Node(node());
    vec![
        Sample::full(reported(report, seen), by(actor(), minutes(11))),
        Sample::bare(reported(bare, unseen.clone()), by(actor(), minutes(12))),
        Sample::later("sshd", reported(with_sshd, unseen), by(actor(), minutes(13))),
    ]
}

fn removals() -> Vec<Sample> {
    let rotations = BTreeMap::from([(AuthorityType::Host, rotation())]);
    let excluded = NodeExcluded {
        node: node(),
        rotations: rotations.clone(),
    };
    let included = NodeIncluded {
        node: node(),
        rotations,
    };
    vec![
        Sample::full(excluded.clone(), by_alice(minutes(20))),
        Sample::later(
            "authsubject",
            excluded,
            by_message(minutes(21), "deploy", "nodes-exclude"),
        ),
        Sample::full(included, by_alice(minutes(30))),
        Sample::full(NodeRemoved { node: node() }, by_alice(days(90))),
    ]
}

fn members() -> Vec<Sample> {
    let facts = BTreeMap::from([
        (AuthorityType::Host, facts()),
        (AuthorityType::User, bare_facts()),
    ]);
    let started = MemberStarted {
        member: member(),
        boot: boot(),
        seq: 1,
        service: "gateway".into(),
        names: vec![read("gateway.acme.example")],
        addresses: vec![read("192.0.2.1")],
        facts: facts.clone(),
    };
    let reported = MemberReported {
        member: member(),
        boot: boot(),
        seq: 2,
        facts,
    };
    let lost = MemberLost {
        member: member(),
        boot: boot(),
        silent_ms: 30_412,
    };
    let stopped = MemberStopped {
        member: member(),
        boot: boot(),
    };
    let actor = || Principal::Gateway(member());
    vec![
        Sample::full(started, by(actor(), minutes(1))),
        Sample::full(reported, by(actor(), minutes(2))),
        Sample::full(lost, by_clock(minutes(3))),
        Sample::full(stopped, by(actor(), minutes(4))),
    ]
}

fn tokens() -> Vec<Sample> {
    let created = AccessTokenCreated {
        token: read(TOKEN),
        hash: read("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"),
        grant: grant(),
        uses: 1,
        expires: minutes(30),
    };
    let bare = AccessTokenCreated {
        grant: bare_grant(),
        ..created.clone()
    };
    let used = AccessTokenUsed {
        token: created.token,
        node: node(),
        hostname: read("web-1.acme.example"),
        spki: read(LEAF_PIN),
    };
    let removed = AccessTokenRemoved { token: created.token };
    vec![
        Sample::full(created, by_alice(minutes(0))),
        Sample::bare(bare, by_alice(minutes(0))),
        Sample::full(used, by_nobody(minutes(7))),
        Sample::full(removed, by_alice(minutes(9))),
    ]
}

fn people() -> Vec<Sample> {
    let added = AccessUserAdded {
        user: read("bob.the-builder"),
        roles: vec![RoleName::Auditor, RoleName::Operator, RoleName::Admin],
        logins: vec![],
    };
    let removed = AccessUserRemoved {
        user: added.user.clone(),
    };
    let recovered = AccessRecovered {
        user: read("admin"),
        spki: read(LEAF_PIN),
    };
    let presented = AccessCredentialPresented {
        holder: Principal::User(added.user.clone()),
        certificate: read(LEAF_DIGEST),
    };
    let actor = presented.holder.clone();
    let with_logins = AccessUserAdded {
        logins: vec!["deploy".into(), "www".into()],
        ..added.clone()
    };
    let revoked = AccessCertificatesRevoked {
        target: Revocable::User(added.user.clone()),
    };
    vec![
        Sample::later("logins", with_logins, by_alice(minutes(1))),
        Sample::full(revoked, by_alice(days(3))),
        Sample::full(added, by_alice(minutes(1))),
        Sample::full(removed, by_alice(days(3))),
        Sample::full(recovered, by_host(days(4))),
        Sample::full(AccessNamesReleased { node: node() }, by_nobody(days(91))),
        Sample::full(presented, by(actor, minutes(2))),
    ]
}
