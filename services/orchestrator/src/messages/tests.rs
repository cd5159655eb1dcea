use std::sync::Arc;

use domain::{Principal, access::RoleName, command::KeyRequest};
use eventlog::{
    bus::{Answer, AskError, BusOptions},
    testing::NatsServer,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::{
    AskedGateways, Presence,
    service::tests::{MEMBER, World, world},
};

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(20);

/// A service on a real broker, in front of a log in memory. `deploy.bot` is an operator.
struct Served {
    world: World,
    bus: Bus,
    _nats: NatsServer,
    _dir: TempDir,
    _running: JoinSet<()>,
}

async fn served() -> Option<Served> {
    let dir = TempDir::new().unwrap();
    let nats = NatsServer::start(dir.path()).await?;
    let world = world().await;
    let admin = Principal::User("admin".parse().unwrap());
    let add = Order::AddUser {
        user: "deploy.bot".parse().unwrap(),
        roles: [RoleName::Operator].into(),
        logins: vec![],
        key: KeyRequest {
            spki: domain::SpkiPin([77; 32]),
            public_key: "key".into(),
        },
    };
    world.order(admin, add).await;
    let options = BusOptions {
        url: nats.url(),
        name: "test".into(),
        ..BusOptions::default()
    };
    let bus = Bus::connect(&options).await.unwrap();
    let messages = Messages::new(
        world.fold.clone(),
        world.executor.clone(),
        "acme.cluster".parse().unwrap(),
        Metrics::new("test"),
        world.stop.clone(),
    );
    let desk = messages.open(&bus).await.unwrap();
    let mut running = JoinSet::new();
    running.spawn(messages.run(desk));
    Some(Served {
        world,
        bus,
        _nats: nats,
        _dir: dir,
        _running: running,
    })
}

impl Served {
    /// The answer to a message: its document, or the code of a no.
    async fn send(&self, sender: &str, command: &str, body: &Value) -> Result<Value, String> {
        let subject = format!("carousel.v1.acme_cluster.cmd.{sender}.{command}");
        let body = serde_json::to_vec(body).unwrap();
        let Answer { body, no } = self.bus.ask(&subject, &[], body, SOON).await.unwrap();
        let document: Value = serde_json::from_slice(&body).unwrap();
        match no {
            None => Ok(document),
            Some((status, line)) => {
                assert_eq!(document["status"], status, "{document}");
                let code = document["code"].as_str().unwrap().to_owned();
                assert!(line.starts_with(&format!("{code}: ")), "{line}");
                Err(code)
            }
        }
    }

    fn id(&self) -> Uuid {
        self.world.executor.command_id().0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_refused_by_the_code_that_the_door_gives_and_is_on_record() {
    let Some(s) = served().await else { return };
    let rotate = |phase: &str| json!({"id": s.id(), "type": "host", "manual": true, "phase": phase});
    let token = |name: &str| {
        let hash = format!("sha256:{}", "00".repeat(32));
        json!({"id": s.id(), "hash": hash, "names": [name], "uses": 1, "ttl_ms": 60_000})
    };
    for (sender, command, body, expected) in [
        (
            "user-deploy_bot",
            "nodes-exclude",
            json!({"id": s.id(), "name": "nobody"}),
            "node_unknown",
        ),
        (
            "user-deploy_bot",
            "nodes-exclude",
            json!({"id": s.id()}),
            "bad_request",
        ),
        (
            "user-deploy_bot",
            "rotate",
            json!({"id": s.id(), "type": "host", "phaze": "init"}),
            "bad_request",
        ),
        ("user-deploy_bot", "rotate", json!("init"), "bad_request"),
        (
            "user-deploy_bot",
            "rotate",
            rotate("update_servers"),
            "illegal_transition",
        ),
        // What certifies a key is no message; a token is an administrator's; nobody is called so.
        (
            "user-deploy_bot",
            "users-add",
            json!({"id": s.id(), "name": "eve"}),
            "bad_request",
        ),
        ("user-deploy_bot", "tokens-add", token("n1"), "not_permitted"),
        ("user-ghost", "rotate", rotate("init"), "not_permitted"),
        // Only persons and programs send by their name.
        ("gateway", "rotate", rotate("init"), "bad_request"),
        ("user-deploy.bot", "rotate", rotate("init"), "nobody"),
    ] {
        if expected == "nobody" {
            let subject = format!("carousel.v1.acme_cluster.cmd.{sender}.{command}");
            let asked = s.bus.ask(&subject, &[], vec![], SOON).await;
            assert!(matches!(asked, Err(AskError::Nobody { .. })), "{asked:?}");
            continue;
        }
        let refused = s.send(sender, command, &body).await;
        assert_eq!(refused.unwrap_err(), expected, "{sender} {command} {body}");
    }
    let bot = Principal::User("deploy.bot".parse().unwrap());
    let recorded = s.world.fold.read(|state| {
        let of_bot = state.refusals.keys().filter(|(who, ..)| *who == bot);
        of_bot.map(|(_, command, ..)| command.clone()).collect::<Vec<_>>()
    });
    assert!(
        recorded.contains(&"rotate".into()) && recorded.contains(&"tokens-add".into()),
        "{recorded:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_again_is_the_same_command_and_its_id_for_another_one_is_refused() {
    let Some(s) = served().await else { return };
    let hash = format!("sha256:{}", "07".repeat(32));
    let mut token = json!({"id": s.id(), "hash": hash, "names": ["n1"], "uses": 1, "ttl_ms": 60_000});
    let first = s.send("user-admin", "tokens-add", &token).await.unwrap();
    let again = s.send("user-admin", "tokens-add", &token).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(s.world.fold.read(|state| state.tokens.len()), 1);
    token["uses"] = json!(2);
    let other = s.send("user-admin", "tokens-add", &token).await;
    assert_eq!(other.unwrap_err(), "command_id_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_nobody_follows_is_answered_with_what_is_missing() {
    let Some(s) = served().await else { return };
    let init = json!({"id": s.id(), "type": "db", "manual": true, "phase": "init", "reason": "CHG-1"});
    let answer = s.send("user-deploy_bot", "rotate", &init).await.unwrap();
    assert_eq!(answer["answer"]["phase"], "init", "{answer}");
    let warning = answer["warning"].as_str().unwrap();
    assert!(
        warning.contains("the signer has not made the new key"),
        "{warning}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_found_with_the_tools_of_others_and_hears_its_own_cluster_alone() {
    let Some(s) = served().await else { return };
    let asked = s.bus.ask("$SRV.INFO.carousel", &[], vec![], SOON).await.unwrap();
    let info: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(info["metadata"]["cluster"], "acme.cluster", "{info}");
    let subject = &info["endpoints"][0]["subject"];
    assert_eq!(subject, "carousel.v1.acme_cluster.cmd.*.*", "{info}");
    let elsewhere = "carousel.v1.other_cluster.cmd.user-admin.rotate";
    let asked = s.bus.ask(elsewhere, &[], vec![], SOON).await;
    assert!(matches!(asked, Err(AskError::Nobody { .. })), "{asked:?}");
}

/// An executor as a gateway in another process has it, over a fold of its own.
async fn at_a_gateway(s: &Served, member: MemberId) -> Executor {
    let stop = s.world.stop.clone();
    let fold = Fold::start(s.world.fold.log().clone(), stop.clone())
        .await
        .unwrap();
    let subject = message::forward_subject(&"acme.cluster".parse().unwrap(), member);
    let own = s.world.executor.clone();
    let forwarder = forward::Forwarder::new(s.bus.clone(), subject);
    Executor::forwarding(fold, Arc::new(move || own.now()), forwarder, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_sends_on_counts_as_if_it_was_decided_there_and_only_for_who_comes_by_a_door() {
    let Some(s) = served().await else { return };
    let (own, other) = (MemberId(Uuid::from_u128(1)), MemberId(Uuid::from_u128(2)));
    let executor = at_a_gateway(&s, own).await;
    let admin = Principal::User("admin".parse().unwrap());
    let rotate = |phase| {
        Order::Rotate(domain::command::Rotate {
            authority_type: domain::AuthorityType::Db,
            target: Some(phase),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        })
    };
    let init = executor.own_command(admin.clone(), rotate(Phase::Init));
    let first = executor.execute(init.clone()).await.unwrap();
    assert_eq!(executor.execute(init.clone()).await.unwrap(), first, "once");
    let reused = Command {
        digest: BodyDigest([7; 32]),
        ..init
    };
    let code = |refused: Result<Answered, ExecuteError>| match refused {
        Err(ExecuteError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(executor.execute(reused).await).code, Code::CommandIdReused);
    // A no is the one that is given there, its gate and all.
    let next = executor.own_command(admin, rotate(Phase::UpdateClients));
    let refused = code(executor.execute(next).await);
    let gate = refused.gate.expect("the closed gate comes along");
    assert_eq!(
        (refused.code, &gate.keys_missing[..]),
        (Code::KeyMissing, &[domain::authority::KeyKind::Tls][..])
    );
    for (principal, speaks) in [
        (Principal::Gateway(own), true),
        (Principal::Gateway(other), false),
        (Principal::System(domain::id::SystemActor::Host), false),
        (Principal::External("pg".into()), false),
    ] {
        let refused = code(
            executor
                .execute(executor.own_command(principal.clone(), rotate(Phase::Rollback)))
                .await,
        );
        // The gateway's own word is heard, and has no role for this.
        assert_eq!(
            !refused.text.contains("does not speak for"),
            speaks,
            "{principal}: {refused}"
        );
    }
    // The clock is doubted where it is judged, and that is known here after the next answer.
    assert!(!executor.clock_suspect());
    s.world.executor.set_clock_suspect(true);
    let asked = executor.own_command(Principal::Gateway(own), rotate(Phase::Rollback));
    let _ = executor.execute(asked).await;
    assert!(executor.clock_suspect());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_gateway_sends_on_and_a_letter_that_is_none_is_refused() {
    let Some(s) = served().await else { return };
    assert_eq!(
        s.send("user-admin", message::FORWARD, &json!({}))
            .await
            .unwrap_err(),
        "bad_request"
    );
    let subject = format!("carousel.v1.acme_cluster.cmd.{}.forward", Uuid::from_u128(1));
    for body in ["", "{}", "[1]", "\"x\"", "\u{0}"] {
        let answer = s
            .bus
            .ask(&subject, &[], body.as_bytes().to_vec(), SOON)
            .await
            .unwrap();
        let document: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            document["reply"]["refused"]["code"], "bad_request",
            "{body:?}: {document}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_nobody_takes_is_not_answered_and_says_so() {
    let Some(mut s) = served().await else { return };
    let executor = at_a_gateway(&s, MemberId(Uuid::from_u128(1))).await;
    s._running.shutdown().await;
    let order = Order::AcceptClock { behind_ms: 0 };
    let sent = executor
        .execute(executor.own_command(Principal::User("admin".parse().unwrap()), order))
        .await;
    let Err(ExecuteError::Unavailable(why)) = sent else {
        panic!("{sent:?}")
    };
    assert!(why.contains("no orchestrator takes commands"), "{why}");
    assert_eq!(executor.trouble().unwrap().1, why);
}

/// A gateway that says it sees this node, until the set is dropped.
async fn seeing(bus: &Bus, node: domain::NodeId) -> JoinSet<()> {
    let offer = Offer {
        name: "presence".into(),
        description: String::new(),
        version: "0.1.0".into(),
        metadata: HashMap::new(),
        subject: message::presence_subject(&"acme.cluster".parse().unwrap(), MEMBER),
        group: "one".into(),
    };
    let desk = bus.offer(offer).await.unwrap();
    let answer = move |question: Question| async move {
        let asked: message::PresenceQuestion = serde_json::from_slice(question.body()).unwrap();
        let seen = message::PresenceAnswer::from([(node, asked.since.unwrap())]);
        let body = serde_json::to_vec(&seen).unwrap();
        question.answer(Answer { body, no: None }).await;
    };
    let mut running = JoinSet::new();
    running.spawn(desk.serve(1, std::future::pending(), answer));
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_gateways_see_is_known_only_if_each_that_runs_has_answered() {
    let Some(s) = served().await else { return };
    let cluster = "acme.cluster".parse().unwrap();
    let gateways = AskedGateways::new(s.bus.clone(), s.world.fold.clone(), cluster);
    assert_eq!(
        gateways.seen_since(Timestamp(1)).await,
        None,
        "none runs, so that nobody can say who is there"
    );
    s.world.start_member().await;
    assert_eq!(
        gateways.seen_since(Timestamp(1)).await,
        None,
        "it does not answer"
    );
    let node = domain::NodeId(Uuid::from_u128(9));
    let _running = seeing(&s.bus, node).await;
    assert_eq!(gateways.seen_since(Timestamp(1)).await, Some([node].into()));
}
