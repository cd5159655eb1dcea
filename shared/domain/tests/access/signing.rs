//! Credentials for parties without an agent, tokens, SSH certificates, and what is revoked of them.

use std::collections::BTreeMap;

use domain::{
    Phase,
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Order, Revocable, Rotate, Sign},
    event::{AuthorityKeyGenerated, AuthorizationGranted, Form, LeafUse, Occasion},
    fact::TypeFacts,
    gate,
    id::{ConsumerName, NodeId, Principal, SpkiPin, SystemActor},
    refusal::{Code, Refusal},
    time::{DAY_MS, HOUR_MS, MINUTE_MS},
};

use crate::{
    rotations::to,
    world::{World, admin, grant},
};

/// A cluster with keys of every kind for the types that are signed by hand here; the gateway runs.
pub(crate) fn cluster() -> World {
    let mut world = World::new();
    for (authority_type, kind) in [
        (AuthorityType::Host, KeyKind::Ssh),
        (AuthorityType::User, KeyKind::Ssh),
        (AuthorityType::Openssh, KeyKind::Ssh),
        (AuthorityType::Jwt, KeyKind::Jwt),
        (AuthorityType::Spiffe, KeyKind::Tls),
        (AuthorityType::Spiffe, KeyKind::Jwt),
        (AuthorityType::SamlIdp, KeyKind::Tls),
        (AuthorityType::Windows, KeyKind::Tls),
    ] {
        made(&mut world, authority_type, kind, 1);
    }
    world
}

fn made(world: &mut World, authority_type: AuthorityType, kind: KeyKind, generation: u32) -> SpkiPin {
    let rotation = world
        .state
        .types
        .get(&authority_type)
        .and_then(|of| of.rotation_id());
    let key = AuthorityKey {
        kind,
        public_key: "key".into(),
        ..world.authority_key(generation, rotation)
    };
    let id = key.id;
    let fact = AuthorityKeyGenerated { authority_type, key };
    world.append(Principal::System(SystemActor::Signer), fact.into());
    id
}

pub(crate) fn step(world: &mut World, authority_type: AuthorityType, phase: Phase) -> Result<(), Code> {
    let order = Order::Rotate(Rotate {
        authority_type,
        ..to(Some(phase))
    });
    let done = world
        .ask(admin(), order)
        .map(drop)
        .map_err(|refusal| refusal.code);
    if done.is_ok() && phase == Phase::Init {
        let kinds: Vec<_> = world.state.types[&authority_type].keys_missing().collect();
        let generation = world.state.types[&authority_type].next_generation();
        for kind in kinds {
            made(world, authority_type, kind, generation);
        }
    }
    done
}

pub(crate) fn ssh(principals: &[&str]) -> Form {
    Form::Ssh {
        principals: principals.iter().map(ToString::to_string).collect(),
        critical_options: BTreeMap::new(),
        extensions: vec!["permit-pty".into()],
    }
}

pub(crate) fn token() -> Form {
    Form::Jwt {
        issuer: "https://ca.acme.example/v1/oidc/jwt".into(),
        audience: vec!["https://api.acme.example".into()],
    }
}

fn logon() -> Form {
    Form::Logon {
        upn: "alice@corp.example.com".into(),
    }
}

/// An order for a party called `app`.
pub(crate) fn order(world: &mut World, authority_type: AuthorityType, form: Form) -> Sign {
    Sign {
        authority_type,
        holder: "app".parse().unwrap(),
        form,
        names: vec![],
        addresses: vec![],
        ttl_ms: None,
        key: world.key(),
    }
}

pub(crate) fn ask(world: &mut World, sign: Sign) -> Result<AuthorizationGranted, Refusal> {
    world.ask(admin(), Order::Sign(Box::new(sign)))?;
    Ok(world.last_granted())
}

/// What makes a bad order of a good one.
type Change = Box<dyn Fn(&mut Sign)>;

fn refused(world: &mut World, sign: Sign) -> Code {
    world.refused(admin(), Order::Sign(Box::new(sign)))
}

#[test]
fn each_type_gives_its_own_form_with_its_own_life_to_a_holder_of_kind_external() {
    let mut world = cluster();
    let named = |sign: Sign| Sign {
        names: vec!["pg.acme.example".parse().unwrap()],
        ..sign
    };
    let rows = [
        (AuthorityType::Host, Form::Tls, LeafUse::Server, 90 * DAY_MS),
        (AuthorityType::User, Form::Tls, LeafUse::Client, 12 * HOUR_MS),
        (
            AuthorityType::User,
            ssh(&["deploy"]),
            LeafUse::Client,
            12 * HOUR_MS,
        ),
        (AuthorityType::Openssh, ssh(&["deploy"]), LeafUse::Client, HOUR_MS),
        (AuthorityType::Db, Form::Tls, LeafUse::Server, 90 * DAY_MS),
        (AuthorityType::SamlIdp, Form::Tls, LeafUse::Signing, 90 * DAY_MS),
        (AuthorityType::Spiffe, Form::Tls, LeafUse::Both, HOUR_MS),
        (AuthorityType::Windows, Form::Tls, LeafUse::Client, HOUR_MS),
        (AuthorityType::Windows, logon(), LeafUse::Client, HOUR_MS),
        (AuthorityType::Jwt, token(), LeafUse::Client, 15 * MINUTE_MS),
        (AuthorityType::Spiffe, token(), LeafUse::Client, 15 * MINUTE_MS),
    ];
    for (authority_type, form, usage, life_ms) in rows {
        let mut sign = order(&mut world, authority_type, form.clone());
        if usage == LeafUse::Server {
            sign = named(sign);
        }
        let granted = ask(&mut world, sign).unwrap();
        assert_eq!((granted.usage, &granted.form), (usage, &form), "{authority_type}");
        assert_eq!(granted.holder, Principal::External("app".into()));
        assert_eq!(granted.occasion, Occasion::Signing);
        assert_eq!(granted.not_after, world.now.plus_ms(life_ms), "{authority_type}");
        let of = &world.state.types[&authority_type];
        assert_eq!(granted.issuer, of.active[&form.kind()].id, "the key of its kind");
        assert_eq!(granted.serial.ssh().is_some(), form.kind() == KeyKind::Ssh);
    }
    let spiffe = order(&mut world, AuthorityType::Spiffe, Form::Tls);
    assert_eq!(ask(&mut world, spiffe).unwrap().uri, "spiffe://acme.cluster/app");
}

/// Orders that no type gives, with the code of the refusal.
fn bad_orders() -> Vec<(AuthorityType, Form, Change, Code)> {
    let name = || vec!["pg.acme.example".parse().unwrap()];
    vec![
        (AuthorityType::Db, Form::Tls, Box::new(|_| {}), Code::SignInvalid),
        (
            AuthorityType::User,
            Form::Tls,
            Box::new(move |s| s.names = name()),
            Code::SignInvalid,
        ),
        (
            AuthorityType::Db,
            ssh(&["root"]),
            Box::new(|_| {}),
            Code::TypeNotInService,
        ),
        (
            AuthorityType::Okta,
            token(),
            Box::new(|_| {}),
            Code::TypeNotInService,
        ),
        (
            AuthorityType::User,
            Form::Tls,
            Box::new(|s| s.ttl_ms = Some(0)),
            Code::SignInvalid,
        ),
        (
            AuthorityType::User,
            Form::Tls,
            Box::new(|s| s.ttl_ms = Some(12 * HOUR_MS + 1)),
            Code::SignInvalid,
        ),
        (
            AuthorityType::Db,
            Form::Tls,
            Box::new(|s| s.names = vec!["localhost".parse().unwrap()]),
            Code::NameReserved,
        ),
        (
            AuthorityType::Db,
            Form::Tls,
            Box::new(|s| s.addresses = vec!["127.0.0.1".parse().unwrap()]),
            Code::NameReserved,
        ),
    ]
}

/// Forms that no type gives, or another one.
fn bad_forms() -> [(AuthorityType, Form); 6] {
    [
        (AuthorityType::User, logon()),
        (AuthorityType::Windows, Form::Logon { upn: "alice".into() }),
        (AuthorityType::User, ssh(&[])),
        (AuthorityType::User, ssh(&["*"])),
        (AuthorityType::User, ssh(&["a,b"])),
        (
            AuthorityType::Jwt,
            Form::Jwt {
                issuer: "https://ca".into(),
                audience: vec![],
            },
        ),
    ]
}

#[test]
fn what_a_type_does_not_give_is_refused_in_words() {
    let mut world = cluster();
    for (authority_type, form) in bad_forms() {
        let sign = order(&mut world, authority_type, form.clone());
        assert_eq!(
            refused(&mut world, sign),
            Code::SignInvalid,
            "{authority_type} {form:?}"
        );
    }
    for (authority_type, form, change, code) in bad_orders() {
        let mut sign = order(&mut world, authority_type, form.clone());
        change(&mut sign);
        assert_eq!(refused(&mut world, sign), code, "{authority_type} {form:?}");
    }
}

#[test]
fn a_host_signed_by_hand_and_a_node_never_bear_one_name() {
    let mut world = cluster();
    let node = world.node("n1");
    let host = |world: &mut World, name: &str| Sign {
        names: vec![name.parse().unwrap()],
        ..order(
            world,
            AuthorityType::Host,
            Form::Ssh {
                principals: vec![],
                critical_options: BTreeMap::new(),
                extensions: vec![],
            },
        )
    };
    let taken = host(&mut world, "n1");
    assert_eq!(refused(&mut world, taken), Code::NameTaken);
    let free = host(&mut world, "bastion");
    let granted = ask(&mut world, free).unwrap();
    assert_eq!(
        granted.form,
        Form::Ssh {
            principals: vec!["bastion".into()],
            critical_options: BTreeMap::new(),
            extensions: vec![]
        }
    );
    world.sign();
    let (token, key) = (world.token(&["bastion"], 1), world.key());
    let join = World::join_order(token, "bastion", key, None);
    assert_eq!(world.refused(Principal::Anonymous, join.clone()), Code::NameTaken);
    // What is revoked bears nothing.
    crate::revoking::revoke(&mut world, Revocable::External("app".parse().unwrap())).unwrap();
    world.ask(Principal::Anonymous, join).unwrap();
    assert!(world.state.nodes.contains_key(&node));
}

#[test]
fn the_holder_may_have_its_own_key_certified_again_and_nobody_another_s() {
    let mut world = cluster();
    let first = order(&mut world, AuthorityType::User, Form::Tls);
    let again = first.clone();
    let others = Sign {
        holder: "other".parse().unwrap(),
        ..first.clone()
    };
    ask(&mut world, first).unwrap();
    world.sign();
    ask(&mut world, again).unwrap();
    assert_eq!(refused(&mut world, others), Code::KeyReused);
    let authority = Sign {
        key: domain::command::KeyRequest {
            spki: world.ca(AuthorityType::Host, false),
            public_key: "key".into(),
        },
        ..order(&mut world, AuthorityType::User, Form::Tls)
    };
    assert_eq!(refused(&mut world, authority), Code::KeyReused);
    // What a token is sealed to is nobody's certified key, and stays free.
    let sealed = order(&mut world, AuthorityType::Jwt, token());
    let spki = sealed.key.spki;
    ask(&mut world, sealed).unwrap();
    assert!(!world.state.keys.contains_key(&spki));
}

#[test]
fn parties_without_an_agent_get_the_new_authority_from_update_clients_on_and_hosts_from_update_servers() {
    let mut world = cluster();
    for (authority_type, form, from) in [
        (AuthorityType::Openssh, ssh(&["deploy"]), Phase::UpdateClients),
        (AuthorityType::Host, Form::Tls, Phase::UpdateServers),
    ] {
        let kind = form.kind();
        for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
            world.enter(authority_type, phase);
            let missing: Vec<_> = world.state.types[&authority_type].keys_missing().collect();
            for kind in missing {
                made(&mut world, authority_type, kind, 2);
            }
            let mut sign = order(&mut world, authority_type, form.clone());
            if authority_type == AuthorityType::Host {
                sign.names = vec!["bastion".parse().unwrap()];
            }
            let granted = ask(&mut world, sign).unwrap();
            let of = &world.state.types[&authority_type];
            let expected = if phase >= from { &of.prepared } else { &of.active };
            assert_eq!(granted.issuer, expected[&kind].id, "{authority_type} in {phase}");
        }
        world.enter(authority_type, Phase::Rollback);
        let mut sign = order(&mut world, authority_type, form.clone());
        if authority_type == AuthorityType::Host {
            sign.names = vec!["bastion".parse().unwrap()];
        }
        let granted = ask(&mut world, sign).unwrap();
        assert_eq!(
            granted.issuer,
            world.state.types[&authority_type].active[&kind].id
        );
    }
}

#[test]
fn a_database_gets_the_new_authority_only_once_every_client_of_it_trusts_it() {
    let mut world = cluster();
    let mut with_db = grant(&["n1"]);
    with_db
        .uses
        .insert(AuthorityType::Db, domain::access::Uses::VERIFIER);
    let (token, key) = (world.token_for(HOUR_MS, with_db, 1), world.key());
    let node = world.joined(token, "n1", key, None).unwrap();
    world.sign();
    let database = |world: &mut World| Sign {
        names: vec!["pg".parse().unwrap()],
        ..order(world, AuthorityType::Db, Form::Tls)
    };
    world.enter(AuthorityType::Db, Phase::Init);
    let early = database(&mut world);
    assert_eq!(
        ask(&mut world, early).unwrap().issuer,
        world.ca(AuthorityType::Db, false)
    );
    // Forced over the node, which has not reported that it trusts the new one.
    world.enter(AuthorityType::Db, Phase::UpdateClients);
    let forced = database(&mut world);
    let refusal = ask(&mut world, forced).unwrap_err();
    assert_eq!(refusal.code, Code::NodesLagging);
    assert!(refusal.text.contains("n1"), "{refusal}");
    trusts_all(&mut world, node);
    // A client without an agent counts as well.
    let consumer: ConsumerName = "etl".parse().unwrap();
    let add = Order::AddConsumer {
        authority_type: AuthorityType::Db,
        consumer: consumer.clone(),
        owner: "data".into(),
        contact: "data@acme.example".into(),
        probe: None,
    };
    world.ask(admin(), add).unwrap();
    let asked = database(&mut world);
    let refusal = ask(&mut world, asked).unwrap_err();
    assert!(refusal.text.contains("consumer etl"), "{refusal}");
    let attest = Order::AttestConsumer {
        authority_type: AuthorityType::Db,
        consumer,
        expects: world.state.types[&AuthorityType::Db].expectation(),
        probed: false,
        saw: None,
    };
    world.ask(admin(), attest).unwrap();
    let later = database(&mut world);
    assert_eq!(
        ask(&mut world, later).unwrap().issuer,
        world.ca(AuthorityType::Db, true)
    );
}

fn trusts_all(world: &mut World, node: NodeId) {
    let of = &world.state.types[&AuthorityType::Db];
    let facts = TypeFacts {
        revision: of.row_position,
        trusted: of.trusted(),
        ..TypeFacts::default()
    };
    let mut report = world.report_of(1, 1);
    report.authorities.insert(AuthorityType::Db, Box::new(facts));
    world.report(node, report).unwrap();
}

#[test]
fn a_token_is_never_replaced_and_an_ssh_certificate_is_by_the_next() {
    let mut world = cluster();
    for (authority_type, form, is_replaced) in [
        (AuthorityType::Openssh, ssh(&["deploy"]), true),
        (AuthorityType::Jwt, token(), false),
    ] {
        let first = order(&mut world, authority_type, form.clone());
        let until = ask(&mut world, first).unwrap().not_after;
        world.sign();
        step(&mut world, authority_type, Phase::Init).unwrap();
        world.enter(authority_type, Phase::UpdateClients);
        world.enter(authority_type, Phase::UpdateServers);
        let waits =
            |world: &World| gate::time_condition(&world.state, authority_type, world.now).map(|t| t.until);
        assert_eq!(waits(&world), Some(until), "{authority_type}");
        let second = order(&mut world, authority_type, form);
        ask(&mut world, second).unwrap();
        world.sign();
        assert_eq!(waits(&world).is_none(), is_replaced, "{authority_type}");
        world.now = until;
        assert_eq!(waits(&world), None);
    }
}
