//! The bodies of operators and nodes, and what is decided on them.

use api::Problem;
use domain::{
    ClusterState, Decision, Order, Principal, SystemActor, decide, evolve::apply, fact::MAX_REPORT_BYTES,
    fact::Seen, standing,
};
use execution::codec;
use gateway::{No, body};
use serde_json::{Value, json};

use crate::{Form, edit, line, made};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => (0..GOOD.len()).for_each(|which| ask(which, raw)),
        // Orders as `command.refused` keeps them: those that no body can give too.
        Form::Edits(which, mut u) if which >= GOOD.len() => {
            let mut document = order(which - GOOD.len());
            let _ = edit::json(&mut u, &mut document);
            if let Ok(order) = serde_json::from_value::<Order>(document) {
                decided(order);
            }
        }
        Form::Edits(which, mut u) => {
            let mut document = GOOD[which]();
            let _ = edit::json(&mut u, &mut document);
            ask(which, &serde_json::to_vec(&document).expect("JSON is written"));
        }
    }
}

/// A good body of each kind.
const GOOD: [fn() -> Value; 7] = [
    || {
        json!({"id": made::id(1), "reason": "why", "type": "host", "phase": "init", "manual": true, "force": false,
            "grace_period_ms": 3_600_000, "on_lagging": "hold", "expects": {"phase": "standby"}})
    },
    || json!({"id": made::id(1), "reason": "why"}),
    || {
        json!({"id": made::id(1), "hash": format!("sha256:{}", "ab".repeat(32)), "names": ["n2", "*.example.com"],
            "addresses": ["192.0.2.7"], "types": {"host": {"client": true}, "db": {}}, "uses": 3, "ttl_ms": 60_000})
    },
    || json!({"id": made::id(1), "name": "alice", "roles": ["admin"], "csr": made::made().request}),
    || json!({"id": made::id(1), "csr": made::made().request}),
    || {
        json!({"id": made::id(1), "type": "host", "usage": "both", "issuer": made::made().host.1.pin(),
            "csr": made::made().request})
    },
    || {
        json!({"boot": made::id(5), "seq": 1, "version": "0.1.0", "addr": "192.0.2.7:3080",
            "authorities": {"host": {"revision": 7, "trusted": [made::made().host.1.pin()], "client_issuer":
                made::made().host.1.pin(), "server_issuer": made::made().host.1.pin()}},
            "failure": {"step": "reload", "detail": "it exited 1", "count": 3}, "labels": {"rack": "r1"}})
    },
];

fn ask(which: usize, body: &[u8]) {
    let node = made::made().node;
    let order = match which {
        0 => body::rotation(body).map(|(wanted, _)| wanted.order),
        1 => body::plain(body, Order::ExcludeNode { node }).map(|wanted| wanted.order),
        2 => body::token(body).map(|wanted| wanted.order),
        3 => body::user(body).map(|(wanted, _)| wanted.order),
        4 => body::renewal(body).map(|wanted| wanted.order),
        5 => body::certificate(body).map(|(wanted, _)| wanted.order),
        _ => body::report(body).map(|report| {
            assert!(body.len() <= MAX_REPORT_BYTES);
            let seen = Seen {
                certificate: domain::CertDigest(pki::sha256(&made::made().leaf)),
                issuer: made::made().host.1.pin(),
                from: None,
            };
            Order::Report { node, report, seen }
        }),
    };
    match order {
        Err(no) => refused(&no),
        Ok(order) => decided(order),
    }
}

/// The refusal of a body is a problem in one line.
pub(crate) fn refused(no: &No) {
    let problem: &Problem = no.problem();
    line(&problem.detail);
    assert_eq!(problem.status, problem.code.http_status());
}

/// Whoever asks for it in whatever state: there is an answer whose facts can be stored, or a refusal in words.
pub(crate) fn decided(order: Order) {
    let callers = [
        made::admin(),
        Principal::Node(made::made().node),
        Principal::Gateway(made::gateway()),
        Principal::System(SystemActor::Clock),
        Principal::System(SystemActor::Host),
        Principal::Anonymous,
    ];
    for state in &made::made().states {
        for caller in &callers {
            let command = made::command(caller.clone(), order.clone());
            match decide(state, &command, &made::given()) {
                Err(refusal) => line(&refusal.text),
                Ok(decision) => holds(state, caller, decision),
            }
        }
    }
}

fn holds(state: &ClusterState, caller: &Principal, decision: Decision) {
    let mut state = state.clone();
    for fact in decision.facts {
        let event = made::event(&state, caller.clone(), fact);
        let circumstances = codec::Circumstances {
            time: event.header.time,
            actor: caller.clone(),
            credential: None,
            command: None,
            reason: None,
            decided_at: event.header.decided_at,
            traceparent: None,
            service: "orchestrator",
        };
        let new = codec::encode(&made::made().cluster, &event.fact, &circumstances);
        assert!(
            new.data.len() <= eventlog::MAX_EVENT_BYTES,
            "a fact of {} bytes",
            new.data.len()
        );
        let stored = eventlog::Stored {
            position: 1,
            subject: new.subject,
            data: new.data,
        };
        assert_eq!(
            codec::decode(&stored).expect("what is decided is read").fact,
            event.fact
        );
        apply(&mut state, &event);
        assert_eq!(standing::miscounted(&state), None);
    }
}

/// Orders without a body: of the schedule, of members, of consumers.
fn order(which: usize) -> Value {
    let (node, gateway) = (made::made().node, made::gateway());
    let host = "host";
    let expects = json!({"rotation": made::id(0x2030), "phase": "update_clients"});
    match which {
        0 => json!({"kind": "scheduled-step", "authority_type": host, "expects": expects,
            "uptime_since_step_ms": 1, "uptime_ms": 60_000, "seen": [node]}),
        1 => json!({"kind": "settle", "authority_type": host, "rotation": made::id(0x2030)}),
        2 => {
            json!({"kind": "start-member", "member": gateway, "boot": made::id(9), "seq": 1, "service": "gateway",
            "names": ["cp.acme"], "addresses": ["192.0.2.1"], "facts": {"host": {"revision": 1, "trusted": []}}})
        }
        3 => json!({"kind": "report-member", "member": gateway, "boot": made::id(9), "seq": 2, "facts": {}}),
        4 => json!({"kind": "lose-member", "member": gateway, "boot": made::id(9), "silent_ms": 31_000,
            "uptime_ms": 60_000}),
        5 => {
            json!({"kind": "add-consumer", "authority_type": "db", "consumer": "pg", "owner": "a", "contact": "b"})
        }
        6 => json!({"kind": "attest-consumer", "authority_type": "db", "consumer": "pg", "expects": expects,
            "probed": true}),
        7 => json!({"kind": "present-credential", "holder": format!("node/{node}"),
            "certificate": domain::CertDigest(pki::sha256(&made::made().leaf))}),
        _ => json!({"kind": "accept-clock", "behind_ms": 5}),
    }
}
