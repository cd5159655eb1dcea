use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use domain::{
    Answer, BootId, ClusterState, Command, Fact, MemberId, SpkiPin, TokenHash,
    access::{Grant, Uses},
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Join, KeyRequest, Mode, Rotate, Settings},
    event::{AuthorityActivated, AuthorityBundleSigned, AuthorityKeyGenerated},
    trust::SignedBundle,
};
use eventlog::{MemoryLog, SharedLog};
use execution::{Expected, FactWriter};
use runtime::{clock::ManualClock, readiness::Readiness};
use tempfile::TempDir;

use super::*;
use crate::member_lease;

const START: i64 = 1_790_000_000_000;
const T: AuthorityType = AuthorityType::Db;
pub(crate) const MEMBER: MemberId = MemberId(uuid::Uuid::from_u128(3));
const BOOT: BootId = BootId(uuid::Uuid::from_u128(4));

/// A cluster in memory whose clock stands still until it is moved. Ticks are made by hand.
pub(crate) struct World {
    log: SharedLog,
    pub(crate) fold: Fold,
    pub(crate) executor: Executor,
    clock: Arc<ManualClock>,
    suspect: Arc<AtomicBool>,
    gateways: Arc<Gateways>,
    dir: TempDir,
    pub(crate) stop: CancellationToken,
}

/// What the gateways say of who is there, and since when they were asked for it.
#[derive(Default)]
struct Gateways {
    seen: Mutex<Option<BTreeSet<NodeId>>>,
    asked: Mutex<Vec<Timestamp>>,
}

impl Presence for Gateways {
    fn seen_since(&self, since: Timestamp) -> crate::Seen<'_> {
        self.asked.lock().unwrap().push(since);
        let seen = self.seen.lock().unwrap().clone();
        Box::pin(async { seen })
    }
}

pub(crate) async fn world() -> World {
    let (clock, stop) = (ManualClock::new(START), CancellationToken::new());
    let log: SharedLog = Arc::new(MemoryLog::new());
    let fold = Fold::start(log.clone(), stop.clone()).await.unwrap();
    let suspect = Arc::new(AtomicBool::new(false));
    let of = clock.clone();
    let now: execution::Now = Arc::new(move || Timestamp(runtime::clock::Clock::now_ms(&*of)));
    let executor = Executor::new(fold.clone(), now, suspect.clone(), stop.clone());
    let world = World {
        log,
        fold,
        executor,
        clock,
        suspect,
        gateways: Arc::default(),
        dir: TempDir::new().unwrap(),
        stop,
    };
    let genesis = Genesis {
        cluster: "acme.cluster".parse().unwrap(),
        settings: Settings::default(),
        bundle_key: SpkiPin([9; 32]),
        bundle_public_key: String::new(),
        keys: vec![
            first(AuthorityType::Host, 1),
            first(AuthorityType::User, 2),
            first(T, 3),
        ],
        admin: "admin".parse().unwrap(),
        gateway: MEMBER,
        certificates: vec![],
    };
    world
        .order(
            Principal::System(SystemActor::Host),
            Order::Genesis(Box::new(genesis)),
        )
        .await;
    world
}

fn key(pin: u8, generation: u32, rotation: Option<RotationId>) -> AuthorityKey {
    AuthorityKey {
        id: SpkiPin([pin; 32]),
        kind: KeyKind::Tls,
        public_key: String::new(),
        generation,
        certificate: String::new(),
        algorithm: "ECDSA P-256".into(),
        storage: "software".into(),
        not_after: Timestamp(i64::MAX),
        rotation,
        position: Position(0),
    }
}

fn first(authority_type: AuthorityType, pin: u8) -> (AuthorityKeyGenerated, AuthorityActivated) {
    let key = key(pin, 1, None);
    let authority = key.id;
    (
        AuthorityKeyGenerated { authority_type, key },
        AuthorityActivated {
            authority_type,
            kind: KeyKind::Tls,
            authority,
        },
    )
}

impl World {
    pub(crate) async fn order(&self, principal: Principal, order: Order) -> Answer {
        let command = Command {
            reason: Some("a test".into()),
            ..self.executor.own_command(principal, order)
        };
        self.executor.execute(command).await.unwrap().answer
    }

    async fn begin(&self, grace_period_ms: u64) {
        self.begin_with(grace_period_ms, LaggingPolicy::Hold).await;
    }

    async fn begin_with(&self, grace_period_ms: u64, on_lagging: LaggingPolicy) {
        let rotate = Rotate {
            authority_type: T,
            target: None,
            manual: false,
            grace_period_ms: Some(grace_period_ms),
            on_lagging: Some(on_lagging),
            force: false,
            expects: None,
        };
        self.order(Principal::User("admin".parse().unwrap()), Order::Rotate(rotate))
            .await;
    }

    /// What the signer would do.
    async fn make_key(&self) {
        let rotation = self.fold.read(|s| s.types[&T].rotation_id());
        let made = AuthorityKeyGenerated {
            authority_type: T,
            key: key(4, 2, rotation),
        };
        self.write(made.into()).await;
    }

    /// The row as it can be handed out.
    async fn sign_bundle(&self) {
        let (revision, phase) = self.fold.read(|s| (s.types[&T].bundle_due, s.types[&T].phase));
        let signed = AuthorityBundleSigned {
            revocation_lists: Default::default(),
            authority_type: T,
            revision,
            phase,
            expires: Timestamp(i64::MAX),
            bundle: SignedBundle {
                document: String::new(),
                signature: String::new(),
                key: SpkiPin([9; 32]),
                public_key: String::new(),
                replacements: vec![],
            },
        };
        self.write(signed.into()).await;
    }

    async fn write(&self, fact: Fact) {
        let writer = FactWriter::signer(self.fold.clone());
        let cluster = "acme.cluster".parse().unwrap();
        writer
            .append(&cluster, &[fact], Timestamp(START), Expected::Any)
            .await
            .unwrap();
        self.fold.catch_up(Duration::from_secs(10)).await.unwrap();
    }

    /// A node that uses the type, and never reports.
    async fn silent_node(&self) -> NodeId {
        let hash = TokenHash([5; 32]);
        let create = Order::CreateToken {
            hash,
            grant: Grant {
                names: vec!["n1".parse().unwrap()],
                addresses: vec![],
                uses: BTreeMap::from([(T, Uses::VERIFIER)]),
            },
            uses: 1,
            ttl_ms: 60_000,
        };
        self.order(Principal::User("admin".parse().unwrap()), create)
            .await;
        let join = Join {
            token: hash,
            hostname: "n1".parse().unwrap(),
            key: KeyRequest {
                spki: SpkiPin([6; 32]),
                public_key: String::new(),
            },
            rejoin: None,
        };
        match self.order(Principal::Anonymous, Order::Join(join)).await {
            Answer::Joined { node, .. } => node,
            other => panic!("{other:?} is no answer to a join"),
        }
    }

    pub(crate) async fn start_member(&self) {
        let order = Order::StartMember {
            member: MEMBER,
            boot: BOOT,
            seq: 1,
            service: "gateway".into(),
            names: vec![],
            addresses: vec![],
            facts: BTreeMap::new(),
        };
        self.order(Principal::Gateway(MEMBER), order).await;
    }

    fn orchestrator(&self) -> Orchestrator {
        Orchestrator::new(
            Config {
                state_file: self.dir.path().join("orchestrator.json"),
            },
            self.fold.clone(),
            self.executor.clone(),
            self.gateways.clone(),
            self.clock.clone(),
            self.suspect.clone(),
            Metrics::new("test"),
            Readiness::new().part("orchestrator", "its start"),
        )
    }

    /// Lets time pass as for a process that runs: second by second.
    async fn pass(&self, orchestrator: &mut Orchestrator, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            orchestrator.tick().await;
        }
    }

    fn see<R>(&self, look: impl FnOnce(&ClusterState) -> R) -> R {
        self.fold.read(look)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_semi_automatic_rotation_goes_through_its_three_steps_and_is_settled() {
    let world = world().await;
    let mut orchestrator = world.orchestrator();
    world.begin(30_000).await;
    world.make_key().await;
    for phase in [Phase::UpdateClients, Phase::UpdateServers, Phase::Standby] {
        world.clock.advance(Duration::from_millis(9_999));
        orchestrator.tick().await;
        assert_ne!(world.see(|s| s.types[&T].phase), phase, "a step before its time");
        world.clock.advance(Duration::from_millis(1));
        orchestrator.tick().await;
        assert_eq!(world.see(|s| s.types[&T].phase), phase);
    }
    orchestrator.tick().await;
    assert!(world.see(|s| s.types[&T].ended.as_ref().is_some_and(|e| e.settled)));
}

#[tokio::test]
async fn a_step_that_is_due_before_its_key_is_held_once_and_goes_on_by_itself() {
    let world = world().await;
    let mut orchestrator = world.orchestrator();
    world.begin(30_000).await;
    world.clock.advance(Duration::from_secs(11));
    orchestrator.tick().await;
    assert!(world.see(|s| s.types[&T].rotation.as_ref().unwrap().held.is_some()));
    let held_at = world.fold.position();
    world.clock.advance(Duration::from_secs(5));
    orchestrator.tick().await;
    assert_eq!(
        world.fold.position(),
        held_at,
        "nothing is written while nothing changes"
    );
    world.make_key().await;
    orchestrator.tick().await;
    let (phase, mode) = world.see(|s| (s.types[&T].phase, s.types[&T].rotation.as_ref().unwrap().mode));
    assert_eq!((phase, mode), (Phase::UpdateClients, Mode::Automatic));
}

#[tokio::test]
async fn a_policy_that_may_pass_over_nodes_asks_the_gateways_who_is_there() {
    let world = world().await;
    let node = world.silent_node().await;
    let mut orchestrator = world.orchestrator();
    world.begin_with(30_000, LaggingPolicy::Proceed).await;
    world.make_key().await;
    world.sign_bundle().await;
    orchestrator.tick().await;
    let held = || world.see(|s| s.types[&T].rotation.as_ref().unwrap().held.is_some());
    for seen in [Some([node].into()), None] {
        *world.gateways.seen.lock().unwrap() = seen;
        world.pass(&mut orchestrator, 11).await;
        assert!(held(), "somebody is there, or nobody can say");
    }
    let stepped = world.see(|s| s.types[&T].rotation.as_ref().unwrap().stepped);
    let asked = world.gateways.asked.lock().unwrap().clone();
    assert!(
        !asked.is_empty() && asked.iter().all(|since| *since == stepped),
        "{asked:?}"
    );
    *world.gateways.seen.lock().unwrap() = Some(BTreeSet::new());
    world.clock.advance(RETRY);
    orchestrator.tick().await;
    assert_eq!(world.see(|s| s.types[&T].phase), Phase::UpdateClients);
}

#[tokio::test]
async fn no_step_is_taken_by_a_clock_that_jumped_until_an_operator_accepts_it() {
    let world = world().await;
    let mut orchestrator = world.orchestrator();
    world.begin(30_000).await;
    world.make_key().await;
    orchestrator.tick().await;
    world.clock.jump_ms(3_600_000);
    orchestrator.tick().await;
    assert!(world.suspect.load(Ordering::SeqCst));
    assert_eq!(world.see(|s| s.types[&T].phase), Phase::Init);
    world
        .order(
            Principal::User("admin".parse().unwrap()),
            Order::AcceptClock { behind_ms: 0 },
        )
        .await;
    orchestrator.tick().await;
    assert!(!world.suspect.load(Ordering::SeqCst));
    assert_eq!(world.see(|s| s.types[&T].phase), Phase::UpdateClients);
}

#[tokio::test]
async fn a_silent_member_is_given_up_after_thirty_seconds_of_our_own_listening() {
    let world = world().await;
    world.start_member().await;
    let mut orchestrator = world.orchestrator();
    let is_running = || world.see(|s| s.members[&MEMBER].running);
    for _ in 0..4 {
        world
            .log
            .put_lease(&member_lease(&MEMBER), Bytes::new(), Duration::from_secs(20))
            .await
            .unwrap();
        orchestrator.tick().await;
        world.pass(&mut orchestrator, 29).await;
    }
    assert!(is_running());
    // A new orchestrator has heard nothing yet, and gives everybody the whole time again.
    let mut orchestrator = world.orchestrator();
    orchestrator.tick().await;
    world.pass(&mut orchestrator, 29).await;
    assert!(is_running());
    world.pass(&mut orchestrator, LISTEN.as_secs()).await;
    assert!(!is_running());
}

#[tokio::test]
async fn a_machine_that_wakes_up_judges_as_after_a_start() {
    let world = world().await;
    world.start_member().await;
    world.begin(30_000).await;
    let mut orchestrator = world.orchestrator();
    orchestrator.tick().await;
    world.pass(&mut orchestrator, 3).await;
    assert_eq!(orchestrator.uptime_ms(), 3_000);
    world.clock.advance(Duration::from_secs(16 * 3_600));
    orchestrator.tick().await;
    assert_eq!(
        (orchestrator.uptime.since_step_ms(T), orchestrator.uptime_ms()),
        (3_000, 0)
    );
    world.pass(&mut orchestrator, 29).await;
    assert!(
        world.see(|s| s.members[&MEMBER].running),
        "nobody was heard while we slept"
    );
}

#[tokio::test]
async fn a_clock_that_jumped_before_a_restart_is_suspect_after_it() {
    let world = world().await;
    world.orchestrator().tick().await;
    world.clock.jump_ms(3_600_000);
    let mut again = world.orchestrator();
    again.tick().await;
    assert!(world.suspect.load(Ordering::SeqCst));
    world
        .order(
            Principal::User("admin".parse().unwrap()),
            Order::AcceptClock { behind_ms: 0 },
        )
        .await;
    again.tick().await;
    assert!(!world.suspect.load(Ordering::SeqCst));
    // The acceptance was taken in: it does not speak for what comes later.
    world.clock.jump_ms(3_600_000);
    world.orchestrator().tick().await;
    assert!(world.suspect.load(Ordering::SeqCst));
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let world = world().await;
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(world.orchestrator().run(stop.clone()));
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}
