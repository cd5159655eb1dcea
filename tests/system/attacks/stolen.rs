//! A stolen key of an authority, during a rotation and after it: it opens nothing.

use api::join::RECOVER_CONTEXT;
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{AuthorityType, NodeId, Principal};
use pki::KeyPair;
use serde_json::{Value, json};

use super::{command, deeds, impostor};
use crate::{
    forged::{Authority, Forged},
    wire::{Verdict, Wire},
    world::{Log, World, text},
};

const TYPES: [AuthorityType; 2] = [AuthorityType::Host, AuthorityType::User];

/// A node that sleeps through the rotation.
const SLEEPER: &str = "sleeper";
/// One that does not.
const STEADY: &str = "steady";

#[test]
fn a_stolen_authority_key_opens_nothing_during_a_rotation_and_nothing_after_it() {
    let mut world = World::start("stolen-key", Log::Embedded).expect("the embedded log is always there");
    for name in [SLEEPER, STEADY] {
        world.join(name);
    }
    let old = Authority::stolen(&world, &TYPES);
    let before = Wire::of(&world).bundle();
    for of in ["host", "user"] {
        world.enter_and_wait(of, "init");
    }
    let of_init = Wire::of(&world).bundle();
    world.agent(SLEEPER).kill();
    pass_by_the_sleeper(&world);

    // Both generations are trusted, and the thief comes again for the new one.
    let both = Authority::stolen(&world, &TYPES);
    assert_eq!((old.len(), both.len()), (2, 4));
    for authority in &both {
        opens_nothing(&mut world, authority, Verdict::refused("certificate_unknown"));
    }
    world.enter_and_wait("host", "standby");
    world.enter_and_wait("user", "standby");

    // Nobody who follows the log even finishes a handshake with the old ones, and the new ones still say nothing.
    for authority in &old {
        opens_nothing(&mut world, authority, Verdict::NoHandshake);
    }
    for authority in Authority::stolen(&world, &TYPES) {
        opens_nothing(&mut world, &authority, Verdict::refused("certificate_unknown"));
    }
    impostor::feeds_nobody(&mut world, &old[0], [before, of_init], [SLEEPER, STEADY]);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// Up to the last step before the end, without the sleeper.
fn pass_by_the_sleeper(world: &World) {
    let exclude = ["nodes", "exclude", SLEEPER, "--reason", "asleep"];
    let _ = world.carousel(&exclude).expect_code(0);
    for of in ["host", "user"] {
        for phase in ["update_clients", "update_servers"] {
            world.enter_and_wait(of, phase);
        }
    }
}

/// Everything that is worth trying with a leaf of one's own making.
fn opens_nothing(world: &mut World, authority: &Authority, expected: Verdict) {
    let before = deeds(world);
    let node = world.node(SLEEPER).expect("it is known")["metadata"]["name"].clone();
    let node = Principal::Node(NodeId(text(&node).parse().expect("a UUID")));
    let member = text(&world.json(&["status"])["members"][0]["id"]);
    let holders = [
        node.clone(),
        format!("gateway/{member}").parse().expect("a gateway"),
        "user/admin".parse().expect("a user"),
    ];
    let wire = Wire::of(world);
    for holder in &holders {
        let forged = wire.forged(&authority.forge(holder));
        for (path, body) in [takes_a_certificate(), acts_as_admin(), rotates(), reads()] {
            let verdict = forged.verdict(path, body.as_ref());
            let what = format!(
                "{holder} by a stolen {} authority: {path}",
                authority.authority_type
            );
            assert_eq!(verdict, expected, "{what}");
        }
    }
    let genuine = wire.files_of(world.agent(SLEEPER)).0;
    recovers_nobody(&wire, &authority.forge(&node), &genuine);
    assert_eq!(deeds(world), before, "nothing was done");
}

/// A certificate of the new authority by the route of the nodes.
fn takes_a_certificate() -> (&'static str, Option<Value>) {
    let csr = pki::csr::make_pem(&KeyPair::generate());
    let body = command(json!({"type": "host", "usage": "both", "csr": csr}));
    ("/v1/node/certificates", Some(body))
}

fn acts_as_admin() -> (&'static str, Option<Value>) {
    let csr = pki::csr::make_pem(&KeyPair::generate());
    let body = command(json!({"name": "mallory", "roles": ["admin"], "csr": csr}));
    ("/v1/users", Some(body))
}

fn rotates() -> (&'static str, Option<Value>) {
    let body = command(json!({"type": "db", "phase": "init", "manual": true}));
    ("/v1/rotate", Some(body))
}

fn reads() -> (&'static str, Option<Value>) {
    ("/v1/status", None)
}

/// The way back is open to everybody, and asks the log: for a leaf of one's own making, and for a node's genuine one
/// whose key one does not have. The latter is no secret, every peer of the node has seen it.
fn recovers_nobody(wire: &Wire, forged: &Forged, genuine: &str) {
    let csr = pki::csr::make_pem(&KeyPair::generate());
    let signature = pki::statement::sign(&forged.key, RECOVER_CONTEXT, csr.as_bytes());
    let signature = STANDARD.encode(signature);
    for (what, certificate) in [
        ("a forged leaf", &*forged.certificate),
        ("a genuine certificate", genuine),
    ] {
        let body = json!({"certificate": certificate, "csr": csr, "signature": signature});
        let verdict = wire.anonymous().verdict("/v1/recover", Some(&body));
        assert_eq!(
            verdict,
            Verdict::refused("recovery_refused"),
            "a recovery by {what}"
        );
    }
}
