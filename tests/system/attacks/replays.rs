//! The same thing twice: commands that somebody sends again, and races for what can be had once.

use std::{collections::BTreeMap, time::Duration};

use domain::TokenHash;
use futures::future::join_all;
use pki::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{admin, command, events, person};
use crate::{
    wire::{Verdict, Wire, runtime},
    world::{Log, World, text},
};

const ROUNDS: usize = 200;
/// So many rounds are run at once.
const ABREAST: usize = 10;

#[test]
fn a_command_is_done_once_and_for_its_own_sender_alone() {
    let mut world = World::start("replays", Log::Embedded).expect("the embedded log is always there");
    world.join("n1");
    let wire = Wire::of(&world);
    let people = [("oscar", "operator"), ("olga", "operator"), ("audrey", "auditor")];
    let [oscar, olga, audrey] = people.map(|(name, role)| person(&world, &wire, name, role));
    let body = command(json!({"type": "user", "phase": "init", "manual": true}));
    let first = oscar.clone().post("/v1/rotate", &body).expect("it is done");
    let entered = || events(&world, Some("rotation.phase-entered")).len();
    assert_eq!(entered(), 1);

    let (certificate, key) = wire.files_of(world.agents.first().expect("a node"));
    for (what, who, code) in [
        ("nobody", wire.anonymous(), "unauthenticated"),
        ("a node", wire.presenting(&certificate, &key), "not_permitted"),
        ("an auditor", audrey, "not_permitted"),
    ] {
        let verdict = who.verdict("/v1/rotate", Some(&body));
        assert_eq!(
            verdict,
            Verdict::refused(code),
            "{what} sends an operator's command again"
        );
    }
    // Another operator is asked for its own command: there is nothing left to do, and the first answer is not its.
    let of_another = olga.post("/v1/rotate", &body).expect("a noop");
    assert_eq!(of_another["answer"]["kind"], "noop", "{of_another}");
    assert_ne!(of_another["position"], first["position"]);

    another_body_or_another_place(&oscar, &body);
    an_id_of_another_time(&oscar);
    assert_eq!(oscar.post("/v1/rotate", &body).expect("the first answer"), first);
    assert_eq!(entered(), 1, "one command, one phase");
}

/// The same id for something else, by its own sender: by mistake, or by somebody who reads along and changes it.
fn another_body_or_another_place(oscar: &Wire, body: &Value) {
    for (path, change) in [
        ("/v1/rotate", json!({"phase": "update_clients"})),
        ("/v1/rotate", json!({"type": "host"})),
        ("/v1/rotate", json!({"force": true})),
        ("/v1/rotate", json!({"reason": "another one"})),
    ] {
        let mut changed = body.clone();
        changed
            .as_object_mut()
            .expect("an object")
            .extend(change.as_object().expect("an object").clone());
        let verdict = oscar.verdict(path, Some(&changed));
        assert_eq!(verdict, Verdict::refused("command_id_reused"), "{change}");
    }
    let plain = json!({"id": body["id"]});
    for path in ["/v1/nodes/n1/exclude", "/v1/nodes/n1/include", "/v1/clock/accept"] {
        let verdict = oscar.verdict(path, Some(&plain));
        assert_eq!(verdict, Verdict::refused("command_id_reused"), "{path}");
    }
}

/// Ids that cannot be told from old ones any more, and those that are good for later.
fn an_id_of_another_time(oscar: &Wire) {
    let now = u64::try_from(crate::forged::now().0).expect("after 1970");
    let hour = domain::time::HOUR_MS;
    let at = |ms: u64| uuid::Builder::from_unix_timestamp_millis(ms, &[7; 10]).into_uuid();
    for id in [at(now - 25 * hour), at(now + hour), Uuid::from_u128(7)] {
        let body = json!({"id": id, "type": "user", "phase": "rollback", "manual": true});
        let verdict = oscar.verdict("/v1/rotate", Some(&body));
        assert_eq!(verdict, Verdict::refused("command_id_stale"), "{id}");
    }
}

#[test]
fn of_all_who_race_for_one_token_or_one_name_one_gets_it() {
    let world = World::start("races", Log::Embedded).expect("the embedded log is always there");
    let (wire, admin) = (Wire::of(&world), admin(&world));
    runtime().block_on(async {
        for first in (0..ROUNDS).step_by(ABREAST) {
            join_all((first..first + ABREAST).map(|round| race(&wire, &admin, round))).await;
        }
    });
    let (mut tokens, mut names) = (BTreeMap::new(), BTreeMap::new());
    for joined in events(&world, Some("node.joined")) {
        *tokens.entry(text(&joined["data"]["token"])).or_insert(0) += 1;
        *names.entry(text(&joined["data"]["hostname"])).or_insert(0) += 1;
    }
    let twice: Vec<_> = tokens
        .iter()
        .chain(&names)
        .filter(|(_, joins)| **joins != 1)
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
    let raced = (0..ROUNDS).filter(|round| names.contains_key(&format!("same.r{round}")));
    assert_eq!(raced.count(), ROUNDS, "somebody got each name that was raced for");
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// Three at once: two with one token, under two names, and two for one name, with two tokens.
async fn race(wire: &Wire, admin: &Wire, round: usize) {
    let tokens = ["one", "two"].map(|which| format!("{which}-of-{round}"));
    for token in &tokens {
        let hash = TokenHash(pki::sha256(token.as_bytes()));
        let names = [format!("*.r{round}")];
        let body = command(json!({"hash": hash, "names": names, "uses": 1, "ttl_ms": 600_000}));
        assert_eq!(
            admin.clone().judged("/v1/tokens", Some(&body)).await,
            Verdict::Done
        );
    }
    let join = async |token: &str, name: &str| {
        let csr = pki::csr::make_pem(&KeyPair::generate());
        let body = json!({"token": token, "hostname": format!("{name}.r{round}"), "csr": csr});
        // 600 joins from one address are more than it may send at once: they wait as told, and race on.
        loop {
            let verdict = wire.clone().judged("/v1/join", Some(&body)).await;
            if verdict != Verdict::refused("rate_limited") {
                return verdict;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let [one, two] = &tokens;
    let verdicts = futures::join!(join(one, "same"), join(one, "other"), join(two, "same"));
    let (done, used, taken) = (
        Verdict::Done,
        Verdict::refused("token_used"),
        Verdict::refused("name_taken"),
    );
    let fair = [
        (done.clone(), used.clone(), taken.clone()),
        (used, done.clone(), done.clone()),
        (taken, done.clone(), done),
    ];
    assert!(fair.contains(&verdicts), "round {round}: {verdicts:?}");
}
