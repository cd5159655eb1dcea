//! Somebody who answers in a gateway's place: with a stolen authority's key, with an authority of the same name, with
//! a node's own certificate. Nobody takes a trust bundle from it, and nobody sends it a token.

use std::{fs, path::Path};

use api::node::DesiredUpdate;
use base64::{Engine, engine::general_purpose::STANDARD};
use carousel_tests::PATIENCE;
use domain::{
    AuthorityType, DesiredState, MemberId, Position, Principal,
    access::Uses,
    authority::KeyKind,
    reconcile::desired_of_bundle,
    time::DAY_MS,
    trust::{AuthorityStatus, Bundle, BundleAuthority, KeyReplacement, SignedBundle},
};
use pki::{KeyPair, PublicKey};
use uuid::Uuid;

use crate::{
    forged::{Authority, now},
    world::World,
};
pub(super) use gateway::{Impostor, Script};

mod gateway;

/// Trust that was sent to agents, and what each of them must say to it.
type Refused<T> = (&'static str, T, &'static str);

/// The thief of a retired host authority's key meets a node that still trusts it, and one that does not. The bundles
/// are genuine ones: of before the rotation, and of its first phase.
pub(super) fn feeds_nobody(
    world: &mut World,
    old: &Authority,
    [before, of_init]: [SignedBundle; 2],
    [sleeper, steady]: [&str; 2],
) {
    let forgeries = forgeries(old, &of_init);
    let held = forgeries
        .iter()
        .map(|(what, signed, words)| (*what, update(signed), *words));
    let rows = rows_without_a_signature(&of_init).into_iter();
    let replayed = ("the genuine bundle of before", update(&before), OLDER);
    let feed: Vec<_> = held.chain(rows).chain([replayed]).collect();
    // To the sleeper it is a gateway: the chain is good, the name is a gateway's, and it takes the node's certificate.
    let posing = Principal::Gateway(MemberId(Uuid::from_u128(7)));
    let impostor = Impostor::start(Script {
        presents: old.forge(&posing),
        beside: String::new(),
        trusts: vec![old.ca.clone()],
        bundles: vec![before.clone()],
        feed: feed.iter().map(|(_, update, _)| update.clone()).collect(),
    });
    takes_nothing_from(world, sleeper, &impostor, NOT_TAKEN, &feed);
    assert!(
        !impostor.heard("/v1/node/certificates"),
        "nothing that was told was acted upon"
    );
    drop(impostor);

    // To the other one it is nobody, and what nobody hands out counts by its signature alone.
    let mut fetched = forgeries;
    fetched.push(("the genuine bundle of before", before, OLDER));
    let impostor = Impostor::start(Script {
        presents: old.forge(&posing),
        beside: String::new(),
        trusts: vec![old.ca.clone()],
        bundles: fetched.iter().map(|(_, signed, _)| signed.clone()).collect(),
        feed: vec![],
    });
    takes_nothing_from(world, steady, &impostor, FETCHED_NOT_TAKEN, &fetched);
    assert!(
        !impostor.heard("/v1/node"),
        "an unknown issuer is asked for nothing else"
    );
    drop(impostor);

    gets_no_token(world, old, of_init, sleeper);
    for name in [sleeper, steady] {
        let agent = world.agent(name);
        agent.kill();
        agent.start_without_token();
        world.until_reached(name);
    }
}

/// The impostor tells the sleeper that nobody knows it any more, and somebody believes that and makes a new token. For
/// it the thief could get a certificate of the new authority; but the pins that came with it name no stolen one.
fn gets_no_token(world: &mut World, old: &Authority, held: SignedBundle, sleeper: &str) {
    let impostor = Impostor::start(Script {
        presents: old.forge(&Principal::Gateway(MemberId(Uuid::from_u128(7)))),
        beside: String::new(),
        trusts: vec![old.ca.clone()],
        bundles: vec![held],
        feed: vec![],
    });
    let (token, pins, bundle) = world.token(&["--name", sleeper]);
    let token_file = world.dir.write("token-for-the-thief", &token);
    world.agent(sleeper).kill();
    let dir = world.agent(sleeper).dir.clone();
    let line = (sleeper, &*token_file);
    let mut agent = world.run_line(&dir, &impostor.url, line, (&pins, &bundle));
    let asked = "no old certificate is taken; joining again with the token";
    agent.wait_for_line(asked, PATIENCE);
    agent.wait_for_line("the way back is not open yet", PATIENCE);
    assert!(impostor.heard("/v1/recover"), "it was asked the way back");
    assert!(
        !impostor.heard(&token) && !impostor.heard("/v1/join"),
        "and was shown no token"
    );
}

/// How an agent's line begins about what a gateway sent, and about what was fetched from whoever answers.
const NOT_TAKEN: &str = "what the gateway sent is not taken";
const FETCHED_NOT_TAKEN: &str = "a fetched trust bundle is not taken";
/// What is said to a document of an earlier row.
const OLDER: &str = "is older than the installed one";

/// The agent is started with the impostor as its only gateway: each thing that it is given is refused by name, and
/// what it holds stays as it was.
fn takes_nothing_from<T>(
    world: &mut World,
    name: &str,
    impostor: &Impostor,
    refusal: &str,
    given: &[Refused<T>],
) {
    let agent = world.agent(name);
    agent.kill();
    let held = holds(&agent.dir);
    agent.start_with_server(&impostor.url);
    let process = agent.proc.as_mut().expect("it was started");
    for (what, _, words) in given {
        let pick = |line: &str| (line.contains(refusal) && line.contains(words)).then_some(());
        process.wait_for(&format!("that {what} is refused"), PATIENCE, 0, pick);
    }
    assert!(process.is_running(), "{name} goes on looking for a gateway");
    assert_eq!(holds(&agent.dir), held, "{name} holds what it held");
}

/// What a node trusts, as it is told and as its applications are.
fn holds(dir: &Path) -> [String; 2] {
    ["bundles/host.json", "current/trust.pem"]
        .map(|file| fs::read_to_string(dir.join(file)).expect("installed"))
}

/// Bundles that list the thief's own authority beside the genuine one, by every signature that can be had.
fn forgeries(old: &Authority, genuine: &SignedBundle) -> Vec<Refused<SignedBundle>> {
    let own = KeyPair::generate();
    let evil = evil_bundle(genuine, [old, &Authority::made_up(AuthorityType::Host)]);
    let by_own = pki::bundle::sign(&evil, &own, vec![]);
    let by_nobody = SignedBundle {
        document: by_own.document.clone(),
        ..genuine.clone()
    };
    // A replacement of the bundle key that only the new key has signed, in the right words.
    let pinned = PublicKey::from_base64(&genuine.public_key).expect("a key");
    let by_new = own.sign_der(&[pinned.spki_der(), own.spki_der()].concat());
    let replacement = KeyReplacement {
        old_key: genuine.public_key.clone(),
        new_key: own.public().to_base64(),
        by_old: STANDARD.encode(&by_new),
        by_new: STANDARD.encode(&by_new),
    };
    let by_successor = pki::bundle::sign(&evil, &own, vec![replacement]);
    vec![
        ("a bundle by another key", by_own, "not by the pinned bundle key"),
        (
            "a bundle under a genuine signature",
            by_nobody,
            "signature does not verify",
        ),
        (
            "a bundle by a self-made successor",
            by_successor,
            "is not signed by both keys",
        ),
    ]
}

/// A bundle for a new node that lists the genuine authority and another one, by a key that nobody pins.
pub(super) fn listing_both(genuine: &SignedBundle, evil: &Authority) -> SignedBundle {
    let mut bundle = evil_bundle(genuine, [evil]);
    let listed: Bundle = serde_json::from_str(&genuine.document).expect("a bundle");
    bundle.authorities[0].status = AuthorityStatus::Prepared;
    bundle.authorities.extend(listed.authorities);
    pki::bundle::sign(&bundle, &KeyPair::generate(), vec![])
}

/// The newest bundle there ever was, if one believed it: these authorities are to be trusted, the first as the active
/// one.
fn evil_bundle<const N: usize>(genuine: &SignedBundle, authorities: [&Authority; N]) -> Bundle {
    let genuine: Bundle = serde_json::from_str(&genuine.document).expect("a bundle");
    let listed = |(at, authority): (usize, &Authority)| BundleAuthority {
        id: authority.ca.pin(),
        kind: KeyKind::Tls,
        public_key: String::new(),
        status: if at == 0 {
            AuthorityStatus::Active
        } else {
            AuthorityStatus::Prepared
        },
        generation: 1,
        certificate: authority.ca.to_base64(),
    };
    Bundle {
        revision: Position(genuine.revision.0 + 1_000_000),
        authorities: authorities.into_iter().enumerate().map(listed).collect(),
        expires: now().plus_ms(DAY_MS),
        ..genuine
    }
}

/// Desired states that no bundle vouches for: of a later row, and another one of the row that is held.
fn rows_without_a_signature(held: &SignedBundle) -> Vec<Refused<DesiredUpdate>> {
    let (mut later, mut other) = (update(held), update(held));
    let row = later
        .desired
        .authorities
        .get_mut(&AuthorityType::Host)
        .expect("a row");
    row.revision = Position(row.revision.0 + 1_000_000);
    later.bundles.clear();
    let row = other
        .desired
        .authorities
        .get_mut(&AuthorityType::Host)
        .expect("a row");
    row.trusted.pop_last();
    vec![
        (
            "a later row without a bundle",
            later,
            "no bundle of that position came with it",
        ),
        (
            "another row beside the genuine bundle",
            other,
            "does not agree with the signed bundle",
        ),
    ]
}

/// A desired state that follows from a bundle, as a gateway sends it.
fn update(signed: &SignedBundle) -> DesiredUpdate {
    let bundle: Bundle = serde_json::from_str(&signed.document).expect("a bundle");
    let row = desired_of_bundle(&bundle, Uses::usual(AuthorityType::Host), None);
    DesiredUpdate {
        desired: DesiredState {
            position: bundle.revision,
            names: vec!["sleeper".parse().expect("a name")],
            authorities: [(AuthorityType::Host, row)].into(),
            drain_timeout_ms: 200,
            node_ttl_ms: DAY_MS,
        },
        bundles: [(AuthorityType::Host, signed.clone())].into(),
    }
}
