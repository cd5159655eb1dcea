//! A node that lies in its facts: its agent is away, and whoever has its key claims what is not so.

use std::{collections::BTreeSet, fs, time::Duration};

use carousel_tests::Dice;
use domain::SpkiPin;
use pki::Certificate;
use serde_json::{Value, json};

use super::{
    fleet::{Fleet, Node, lock},
    nodes::kill,
    operator::in_words,
    record::Entry,
};
use crate::wire::Wire;

const ACCEPTED: &str = "accepted";
/// So long a rotation may take from one phase to the next before the liar looks for another one.
const PHASE: Duration = Duration::from_secs(20);

/// Each lie differs from what the gate would believe in one word. The same tool tells the truth last, which must be
/// believed: what is refused for another reason proves nothing.
pub(crate) fn lies(fleet: &Fleet, dice: &mut Dice, node: &Node) {
    for attempt in [about_the_row, about_the_issuer] {
        while !fleet.is_over() && attempt(fleet, dice, node).is_none() {
            comes_back(node);
            fleet.pass(Duration::from_millis(200));
        }
    }
    comes_back(node);
}

/// The agent runs again, if it was killed for the lie.
fn comes_back(node: &Node) {
    let mut agent = lock(&node.agent);
    if agent.proc.is_none() {
        agent.start();
    }
}

/// Authorities that nobody knows, or that are retired, a row that is not there yet; and the truth. `None` where the
/// fleet went on meanwhile, so that nothing can be said of it.
fn about_the_row(fleet: &Fleet, dice: &mut Dice, node: &Node) -> Option<()> {
    let row = Row::reached_by(fleet, node)?;
    kill(fleet, node);
    let and = |pin: &str| {
        let mut trusted = row.trusted.clone();
        trusted.insert(pin.to_owned());
        trusted
    };
    let stranger = json!(SpkiPin(dice.bytes()));
    let mut claims = vec![
        (
            "an authority that nobody knows",
            json!({"trusted": and(stranger.as_str()?)}),
        ),
        ("a row that is not there yet", json!({"revision": u64::MAX})),
        ("the truth", json!({})),
    ];
    if let Some(retired) = &row.retired {
        claims.insert(
            0,
            ("an authority that is retired", json!({"trusted": and(retired)})),
        );
    }
    let told = tell_all(fleet, node, &row, claims);
    // A row that was changed meanwhile makes of the truth a lie, and perhaps of a lie the truth.
    (Row::of(fleet)?.0 == row.phase).then(|| note(fleet, told))
}

/// The node slept while clients were updated and claims to have the new certificate; its connection says otherwise.
fn about_the_issuer(fleet: &Fleet, _: &mut Dice, node: &Node) -> Option<()> {
    let row = Row::reached_by(fleet, node).filter(|row| row.phase == "init")?;
    let prepared = row
        .trusted
        .iter()
        .find(|pin| json!(pin) != row.facts["client_issuer"])?;
    kill(fleet, node);
    // It may have been quicker than whoever killed it.
    if json!(issuer(node)?) != row.facts["client_issuer"] {
        return None;
    }
    let until = fleet.age() + PHASE;
    while Row::of(fleet)?.0 != "update_clients" {
        if fleet.is_over() || fleet.age() > until {
            return None;
        }
        fleet.pass(Duration::from_millis(50));
    }
    let claims = vec![(
        "another issuer than it presents",
        json!({"client_issuer": prepared}),
    )];
    let told = tell_all(fleet, node, &row, claims);
    (Row::of(fleet)?.0 == "update_clients").then(|| note(fleet, told))
}

/// What a node holds that has reached the row of the moment.
struct Row {
    phase: String,
    trusted: BTreeSet<String>,
    /// An authority of the past.
    retired: Option<String>,
    facts: Value,
}

impl Row {
    /// `None` also in a rollback, where a node may trust more, or may never have been asked for anything.
    fn reached_by(fleet: &Fleet, node: &Node) -> Option<Self> {
        let (phase, retired) = Self::of(fleet)?;
        let facts = shown(fleet, node).filter(|facts| facts["missing"].is_null())?;
        let is_steady = phase != "rollback" && Self::of(fleet)?.0 == phase;
        is_steady.then(|| Self {
            phase,
            trusted: pins(&facts["trusted"]).into_iter().collect(),
            retired,
            facts,
        })
    }

    /// The phase of `host`, and an authority of its past.
    fn of(fleet: &Fleet) -> Option<(String, Option<String>)> {
        let all = Wire::of_admin(&fleet.world)?.try_get("/v1/authorities").ok()?;
        let host = all
            .as_array()?
            .iter()
            .find(|authority| authority["type"] == "host")?;
        let mut keys = host["keys"].as_array()?.iter();
        let retired = keys.find(|key| key["status"] == "retired");
        let retired = retired.and_then(|key| key["pin"].as_str().map(str::to_owned));
        Some((host["phase"].as_str()?.to_owned(), retired))
    }
}

/// Who signed what the node presents.
fn issuer(node: &Node) -> Option<SpkiPin> {
    let text = fs::read_to_string(node.dir.join("current/client.crt")).ok()?;
    Certificate::parse(pki::pem::certificates(&text)?.first()?)
        .ok()?
        .issuer
}

/// One report after another, each with the facts of the row but for what is claimed.
fn tell_all(fleet: &Fleet, node: &Node, row: &Row, claims: Vec<(&str, Value)>) -> Vec<Entry> {
    let boot = uuid::Uuid::now_v7();
    let told = (1_u64..).zip(claims).map(|(seq, (claim, change))| {
        let mut facts = json!({
            "revision": position(fleet).unwrap_or_default(),
            "trusted": row.trusted,
            "client_issuer": row.facts["client_issuer"],
            "server_issuer": row.facts["server_issuer"],
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            facts[name] = value.clone();
        }
        let report = json!({"boot": boot, "seq": seq, "version": "liar", "authorities": {"host": facts}});
        let answer = tell(fleet, node, &report);
        Entry::Claim {
            claim: claim.into(),
            is_true: claim == "the truth",
            believed: answer == ACCEPTED && is_believed(fleet, node),
            answer,
        }
    });
    told.collect()
}

fn note(fleet: &Fleet, told: Vec<Entry>) {
    for entry in told {
        fleet.record.note(entry);
    }
}

/// Has the node reached the cluster's phase of `host`, as the gate sees it?
pub(crate) fn is_believed(fleet: &Fleet, node: &Node) -> bool {
    shown(fleet, node).is_some_and(|facts| facts.is_object() && facts["missing"].is_null())
}

/// What the views say of the node and `host`.
pub(crate) fn shown(fleet: &Fleet, node: &Node) -> Option<Value> {
    let nodes = Wire::of_admin(&fleet.world)?.try_get("/v1/nodes").ok()?;
    let found = nodes
        .as_array()?
        .iter()
        .find(|found| found["spec"]["hostname"] == *node.name)?;
    Some(found["spec"]["authorities"]["host"].clone())
}

fn position(fleet: &Fleet) -> Option<u64> {
    let status = Wire::of_admin(&fleet.world)?.try_get("/v1/status").ok()?;
    status["position"].as_u64()
}

/// Reports these facts with what the node has installed, and gives the answer in words.
pub(crate) fn tell(fleet: &Fleet, node: &Node, report: &Value) -> String {
    let read = |name: &str| fs::read_to_string(node.dir.join("current").join(name));
    let (Ok(certificate), Ok(key), Some(wire)) = (
        read("client.crt"),
        read("client.key"),
        Wire::of_admin(&fleet.world),
    ) else {
        return "nothing to tell it with".into();
    };
    match wire
        .presenting(&certificate, &key)
        .try_tell("/v1/node/facts", report)
    {
        Ok(()) => ACCEPTED.into(),
        Err(error) => error.problem().map_or_else(
            || format!("no answer: {}", in_words(&error)),
            |problem| format!("{}: {}", problem.code.name(), problem.detail),
        ),
    }
}

pub(crate) fn pins(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|pin| pin.as_str().map(str::to_owned)).collect()
}
