//! The rules' tables once more, as people wrote them down, held against the code: a slip in either shows here.

use domain::{
    AuthorityType, Phase,
    authority::{
        AUTHORITY_TYPES,
        KeyKind::{self, Jwt, Ssh, Tls},
    },
    phase::{
        Generation::{self, Active, Prepared},
        Transition,
    },
    time::{DAY_MS, HOUR_MS, MINUTE_MS},
};

/// rotation.md section 2: rows are the current phase, columns the asked one, both in the order of [`PHASES`].
const TRANSITIONS: [[&str; 5]; 5] = [
    ["noop", "ok", "E2", "E3", "E4"],
    ["E4", "noop", "ok", "E3", "ok"],
    ["E4", "E1", "noop", "ok", "ok"],
    ["completed", "E1", "E2", "noop", "ok"],
    ["rolled back", "E1", "E2", "E3", "noop"],
];

const PHASES: [&str; 5] = ["standby", "init", "update_clients", "update_servers", "rollback"];

/// rotation.md section 1: who issues client and server certificates, and whether prepared is trusted beside active.
const ROWS: [(&str, Generation, Generation, bool); 5] = [
    ("standby", Active, Active, false),
    ("init", Active, Active, true),
    ("update_clients", Prepared, Active, true),
    ("update_servers", Prepared, Prepared, true),
    ("rollback", Active, Active, true),
];

/// contract.md section 3: the words of `status` while a rotation runs.
const WORDS: [(&str, &str); 4] = [
    ("init", "initialized"),
    ("update_clients", "rotating clients"),
    ("update_servers", "rotating servers"),
    ("rollback", "rolling back"),
];

/// rotation.md section 5, and the lives of leaves in section 7 (`None`: nothing is said there).
const AUTHORITIES: [(&str, &[KeyKind], &str, Option<u64>); 12] = [
    (
        "host",
        &[Tls, Ssh],
        "node and control-plane certificates, SSH host certificates",
        Some(DAY_MS),
    ),
    (
        "user",
        &[Tls, Ssh],
        "user TLS and SSH certificates",
        Some(12 * HOUR_MS),
    ),
    (
        "db",
        &[Tls],
        "server certificates of databases",
        Some(90 * DAY_MS),
    ),
    (
        "db_client",
        &[Tls],
        "client certificates presented to databases",
        Some(HOUR_MS),
    ),
    (
        "openssh",
        &[Ssh],
        "short-lived user certificates for agentless sshd",
        None,
    ),
    ("jwt", &[Jwt], "tokens for applications", Some(15 * MINUTE_MS)),
    ("saml_idp", &[Tls], "SAML assertions", None),
    ("oidc_idp", &[Jwt], "OIDC tokens", Some(15 * MINUTE_MS)),
    ("spiffe", &[Tls, Jwt], "X.509 and JWT SVIDs", None),
    ("okta", &[Jwt], "tokens for Okta", Some(15 * MINUTE_MS)),
    (
        "awsra",
        &[Tls],
        "client certificates for AWS Roles Anywhere",
        None,
    ),
    (
        "windows",
        &[Tls],
        "client certificates for Windows desktops",
        None,
    ),
];

#[test]
fn every_pair_of_phases_is_answered_as_the_table_of_commands_says() {
    assert_eq!(Phase::ALL.map(Phase::name), PHASES);
    for (from, row) in Phase::ALL.into_iter().zip(TRANSITIONS) {
        for (to, answer) in Phase::ALL.into_iter().zip(row) {
            let expected = match answer {
                "noop" => Transition::Noop,
                "ok" if to == Phase::Rollback => Transition::RollBack,
                "ok" => Transition::Forward,
                "completed" => Transition::Complete,
                "rolled back" => Transition::FinishRollback,
                "E1" => Transition::InProgress,
                "E2" => Transition::OnlyFrom(Phase::Init),
                "E3" => Transition::OnlyFrom(Phase::UpdateClients),
                "E4" => Transition::NoWay,
                other => panic!("{other} is no answer"),
            };
            assert_eq!(from.transition_to(to), expected, "{from} to {to}");
        }
        let legal: Vec<Phase> = from.legal_targets().collect();
        let wanted = Phase::ALL
            .into_iter()
            .zip(row)
            .filter(|(_, answer)| !answer.starts_with('E') && *answer != "noop");
        assert_eq!(
            legal,
            wanted.map(|(to, _)| to).collect::<Vec<_>>(),
            "offered from {from}"
        );
    }
}

#[test]
fn every_phase_asks_what_its_row_says() {
    for (phase, (name, client, server, both)) in Phase::ALL.into_iter().zip(ROWS) {
        let row = phase.row();
        assert_eq!(
            (phase.name(), row.client, row.server, row.trusts_prepared),
            (name, client, server, both)
        );
    }
}

#[test]
fn phases_bear_the_words_of_the_status_line_and_their_names_in_json() {
    for (name, word) in WORDS {
        let phase: Phase = name.parse().expect("a phase");
        assert_eq!(phase.status_word(), word);
    }
    for phase in Phase::ALL {
        assert_eq!(serde_json::to_value(phase).expect("a text"), phase.name());
        assert_eq!(phase.to_string().parse(), Ok(phase));
    }
}

#[test]
fn the_table_of_authorities_is_the_one_in_the_rules() {
    assert_eq!(AUTHORITY_TYPES.len(), AUTHORITIES.len());
    for (row, (name, keys, signs, ttl_ms)) in AUTHORITY_TYPES.iter().zip(AUTHORITIES) {
        assert_eq!(row.name, name);
        assert_eq!(row.keys, keys, "{name}");
        assert_eq!(row.signs, signs, "{name}");
        if let Some(ttl_ms) = ttl_ms {
            assert_eq!(row.leaf_ttl_ms, ttl_ms, "{name}");
        }
        assert!(!row.verifiers.is_empty() && !row.title.is_empty(), "{name}");
        // Only host certificates are held by agents alone.
        assert_eq!(row.held_without_agent, name != "host", "{name}");
        let by_hand = !matches!(name, "oidc_idp");
        assert_eq!(
            !row.by_hand.is_empty(),
            by_hand,
            "{name}: outside the agents' reach"
        );
    }
}

/// Copies are widened before anything new is presented, and narrowed after the end, in that order.
#[test]
fn what_is_left_to_people_begins_in_init_ends_in_standby_and_stands_in_the_order_of_the_phases() {
    let order = [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ];
    for row in AUTHORITY_TYPES.iter().filter(|row| !row.by_hand.is_empty()) {
        let at = |phase| {
            order
                .iter()
                .position(|p| *p == phase)
                .expect("a phase that goes forward")
        };
        let places: Vec<usize> = row.by_hand.iter().map(|step| at(step.phase)).collect();
        assert!(places.is_sorted(), "{}: {places:?}", row.name);
        assert_eq!(
            (places.first(), places.last()),
            (Some(&0), Some(&3)),
            "{}",
            row.name
        );
        for step in row.by_hand {
            // What is left of a line of 80 columns beside the longest phase.
            assert!(step.text.len() <= 62 && step.command.len() <= 62, "{}", step.text);
            let typed = format!("--type={}", row.name);
            let is_of_type = step.command.contains(&typed) || step.command == "carousel login";
            assert!(is_of_type, "{}: {}", row.name, step.command);
        }
    }
}

/// The row of a type is found by its place, so that the order of the enum and of the table must agree.
#[test]
fn every_authority_type_finds_its_own_row_and_reads_its_own_name() {
    for row in &AUTHORITY_TYPES {
        let authority_type = row.authority_type;
        assert_eq!(
            authority_type.row().name,
            row.name,
            "the type of row {}",
            row.name
        );
        assert_eq!(authority_type.name().parse(), Ok(authority_type));
        assert_eq!(
            serde_json::to_value(authority_type).expect("a text"),
            authority_type.name()
        );
        assert!(
            AuthorityType::names().contains(authority_type.name()),
            "usage errors list it"
        );
    }
    let unknown = "smtp"
        .parse::<AuthorityType>()
        .expect_err("no such type")
        .to_string();
    for authority_type in AuthorityType::all() {
        assert!(unknown.contains(authority_type.name()), "{unknown}");
    }
}
