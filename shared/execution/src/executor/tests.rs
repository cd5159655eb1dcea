//! What could go wrong between a command and its events.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use domain::{
    AuthorityType, BodyDigest, BootId, ClusterName, Code, Command, CommandId, Fact, MemberId, Order, Phase,
    Position, Principal, SpkiPin, Timestamp, UserName,
    access::{Grant, NamePattern, Uses},
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Join, KeyRequest, Rotate, Settings},
    event::{AuthorityActivated, AuthorityKeyGenerated, CommandRefused, MemberReported},
    fact::TypeFacts,
    id::{SystemActor, TokenHash},
};
use eventlog::{Append, AppendError, EventLog, Fault, MemoryLog};
use tokio_util::sync::CancellationToken;

use super::{ExecuteError, Executor};
use crate::{Fold, codec, fresh_id};

mod leaving;
mod rivals;

const NOW: Timestamp = Timestamp(1_789_868_676_000);

struct World {
    log: Arc<MemoryLog>,
    fold: Fold,
    executor: Executor,
    stop: CancellationToken,
}

async fn world() -> World {
    let log = Arc::new(MemoryLog::new());
    let stop = CancellationToken::new();
    let fold = Fold::start(log.clone(), stop.clone()).await.unwrap();
    let suspect = Arc::new(AtomicBool::new(false));
    let executor = Executor::new(fold.clone(), Arc::new(|| NOW), suspect, stop.clone());
    let world = World {
        log,
        fold,
        executor,
        stop,
    };
    let first_key = |authority_type, pin| {
        let generated = key_generated(authority_type, pin, 1);
        let activated = AuthorityActivated {
            authority_type,
            kind: KeyKind::Tls,
            authority: generated.key.id,
        };
        (generated, activated)
    };
    let genesis = Genesis {
        cluster: "acme.cluster".parse::<ClusterName>().unwrap(),
        settings: Settings::default(),
        bundle_key: SpkiPin([9; 32]),
        bundle_public_key: String::new(),
        keys: vec![
            first_key(AuthorityType::Host, 1),
            first_key(AuthorityType::User, 2),
        ],
        admin: "admin".parse::<UserName>().unwrap(),
        gateway: MemberId(fresh_id(NOW)),
        certificates: vec![],
    };
    let command = world.executor.own_command(
        Principal::System(SystemActor::Host),
        Order::Genesis(Box::new(genesis)),
    );
    world.executor.execute(command).await.unwrap();
    world
}

fn key_generated(authority_type: AuthorityType, pin: u8, generation: u32) -> AuthorityKeyGenerated {
    let key = AuthorityKey {
        id: SpkiPin([pin; 32]),
        kind: KeyKind::Tls,
        public_key: String::new(),
        generation,
        certificate: String::new(),
        algorithm: "ECDSA P-256".into(),
        storage: "software".into(),
        not_after: Timestamp(i64::MAX),
        rotation: None,
        position: Position(0),
    };
    AuthorityKeyGenerated { authority_type, key }
}

fn rotate(id: CommandId, body: u8, target: Option<Phase>) -> Command {
    Command {
        id,
        principal: Principal::User("admin".parse().unwrap()),
        credential: None,
        digest: BodyDigest([body; 32]),
        reason: None,
        order: Order::Rotate(Rotate {
            authority_type: AuthorityType::Host,
            target,
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        }),
    }
}

#[tokio::test]
async fn a_repeated_command_gets_its_first_answer_and_appends_nothing() {
    let w = world().await;
    let command = rotate(w.executor.command_id(), 1, None);
    let first = w.executor.execute(command.clone()).await.unwrap();
    let before = w.log.last_position().await.unwrap();
    assert_eq!(w.executor.execute(command.clone()).await.unwrap(), first);
    assert_eq!(w.log.last_position().await.unwrap(), before);
    let reused = Command {
        digest: BodyDigest([2; 32]),
        ..command
    };
    match w.executor.execute(reused).await {
        Err(ExecuteError::Refused(refusal)) => assert_eq!(refusal.code, Code::CommandIdReused),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_answer_was_lost_counts_once() {
    let w = world().await;
    w.log.inject(Fault::LostAnswer);
    let answered = w
        .executor
        .execute(rotate(w.executor.command_id(), 1, None))
        .await
        .unwrap();
    assert_eq!(w.fold.read(|s| s.types[&AuthorityType::Host].phase), Phase::Init);
    assert_eq!(w.log.last_position().await.unwrap(), answered.position.0);
}

#[tokio::test]
async fn of_two_that_start_a_rotation_at_once_one_wins_and_the_other_is_told() {
    let w = world().await;
    let (a, b) = (w.executor.command_id(), w.executor.command_id());
    let (a, b) = tokio::join!(
        w.executor.execute(rotate(a, 1, None)),
        w.executor.execute(rotate(b, 2, None))
    );
    let refused = [a, b]
        .into_iter()
        .filter(|r| matches!(r, Err(ExecuteError::Refused(x)) if x.code == Code::RotationInProgress));
    assert_eq!(refused.count(), 1);
}

#[tokio::test]
async fn a_refusal_is_on_record_once_and_its_repeats_are_counted() {
    let w = world().await;
    let before = w.log.last_position().await.unwrap();
    for _ in 0..5 {
        let command = rotate(w.executor.command_id(), 1, Some(Phase::Rollback));
        assert!(w.executor.execute(command).await.is_err());
    }
    assert_eq!(w.log.last_position().await.unwrap(), before + 1);
}

#[tokio::test]
async fn refusals_that_were_only_counted_are_written_at_an_orderly_end() {
    let w = world().await;
    let before = w.log.last_position().await.unwrap();
    for _ in 0..5 {
        let command = rotate(w.executor.command_id(), 1, Some(Phase::Rollback));
        assert!(w.executor.execute(command).await.is_err());
    }
    w.stop.cancel();
    let mut tasks = std::mem::take(&mut *w.executor._tasks.lock().unwrap());
    tasks.join_next().await.unwrap().unwrap();
    let written = w.log.read(before + 1, 10).await.unwrap();
    let counts: Vec<_> = written
        .iter()
        .map(|record| match codec::decode(record).unwrap().fact {
            Fact::CommandRefused(f) => f.count,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [1, 4]);
}

#[tokio::test]
async fn refusals_that_differ_in_their_target_are_two() {
    let w = world().await;
    let before = w.log.last_position().await.unwrap();
    for authority_type in [AuthorityType::Host, AuthorityType::User] {
        let mut command = rotate(w.executor.command_id(), 1, Some(Phase::Rollback));
        if let Order::Rotate(rotate) = &mut command.order {
            rotate.authority_type = authority_type;
        }
        assert!(w.executor.execute(command).await.is_err());
    }
    let targets: Vec<_> = w
        .refusals_after(before)
        .await
        .into_iter()
        .map(|(f, _)| f.target)
        .collect();
    assert_eq!(targets, [Some("host".into()), Some("user".into())]);
}

#[tokio::test]
async fn a_refusal_on_an_id_that_was_answered_is_on_record_without_the_id() {
    let w = world().await;
    let first = rotate(w.executor.command_id(), 1, None);
    let answer = w.executor.execute(first.clone()).await.unwrap();
    let before = w.log.last_position().await.unwrap();
    let reused = Command {
        digest: BodyDigest([2; 32]),
        ..first.clone()
    };
    assert_eq!(w.refused(reused.clone()).await, Code::CommandIdReused);
    assert_eq!(w.refused(reused).await, Code::CommandIdReused);
    let written = w.refusals_after(before).await;
    let codes: Vec<_> = written.iter().map(|(f, id)| (f.code, *id)).collect();
    assert_eq!(codes, [(Code::CommandIdReused, None)], "once within a minute");
    assert_eq!(
        w.executor.execute(first).await.unwrap(),
        answer,
        "the first answer stands"
    );
}

#[tokio::test]
async fn a_command_whose_refusal_was_only_counted_stays_refused() {
    let w = world().await;
    let rollback = || rotate(w.executor.command_id(), 1, Some(Phase::Rollback));
    let (recorded, counted) = (rollback(), rollback());
    assert_eq!(w.refused(recorded.clone()).await, Code::IllegalTransition);
    assert_eq!(w.refused(counted.clone()).await, Code::IllegalTransition);
    // Now both would be legal.
    w.executor
        .execute(rotate(w.executor.command_id(), 1, None))
        .await
        .unwrap();
    assert_eq!(w.refused(recorded).await, Code::IllegalTransition);
    assert_eq!(w.refused(counted.clone()).await, Code::IllegalTransition);
    let reused = Command {
        digest: BodyDigest([2; 32]),
        ..counted
    };
    assert_eq!(w.refused(reused).await, Code::CommandIdReused);
    assert_eq!(w.fold.read(|s| s.types[&AuthorityType::Host].phase), Phase::Init);
}

#[tokio::test]
async fn a_repeated_refusal_names_again_who_keeps_the_gate_closed() {
    let w = world().await;
    w.executor
        .execute(rotate(w.executor.command_id(), 1, None))
        .await
        .unwrap();
    let step = rotate(w.executor.command_id(), 1, Some(Phase::UpdateClients));
    for time in ["first", "again"] {
        match w.executor.execute(step.clone()).await {
            Err(ExecuteError::Refused(refusal)) => {
                assert_eq!(refusal.code, Code::KeyMissing);
                let gate = refusal.gate.expect(time);
                assert!(!gate.keys_missing.is_empty(), "{time}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_speaks_for_another_node() {
    let w = world().await;
    let member = MemberId(fresh_id(NOW));
    let order = Order::StopMember {
        member,
        boot: BootId(fresh_id(NOW)),
    };
    let command = w
        .executor
        .own_command(Principal::Gateway(MemberId(fresh_id(NOW))), order);
    match w.executor.execute(command).await {
        Err(ExecuteError::Refused(refusal)) => assert_eq!(refusal.code, Code::NotPermitted),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_away_while_the_logs_end_cannot_be_read() {
    let w = world().await;
    let join = leaving::joining(&w);
    w.log.set_reachable(false);
    match w.executor.execute(join.clone()).await {
        Err(ExecuteError::Unavailable(text)) => assert!(text.contains("repeat the same command"), "{text}"),
        other => panic!("{other:?}"),
    }
    w.log.set_reachable(true);
    match w.executor.execute(join).await {
        Err(ExecuteError::Refused(refusal)) => assert_eq!(refusal.code, Code::TokenUnknown),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_answer_was_lost_is_in_the_log_once() {
    let w = world().await;
    let before = w.log.last_position().await.unwrap();
    w.log.inject(Fault::LostAnswer);
    let refused = w
        .executor
        .execute(rotate(w.executor.command_id(), 1, Some(Phase::Rollback)))
        .await;
    assert!(matches!(refused, Err(ExecuteError::Refused(_))), "{refused:?}");
    assert_eq!(w.log.last_position().await.unwrap(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_cleared_up_together_and_not_one_after_the_other() {
    let w = world().await;
    // More than one append is tried in all, but not more than two are together.
    for _ in 0..14 {
        w.log.inject(Fault::LostRequest);
    }
    let host = rotate(w.executor.command_id(), 1, None);
    let mut user = rotate(w.executor.command_id(), 2, None);
    if let Order::Rotate(rotate) = &mut user.order {
        rotate.authority_type = AuthorityType::User;
    }
    let (host, user) = tokio::join!(w.executor.execute(host), w.executor.execute(user));
    assert!(host.is_ok() && user.is_ok(), "{host:?} {user:?}");
}

#[tokio::test]
async fn that_a_log_took_nothing_is_remembered_until_it_takes_something() {
    let w = world().await;
    let full = AppendError::Full {
        detail: "disk full".into(),
    };
    w.log.inject(Fault::Refuse(full));
    let lost = w.executor.execute(rotate(w.executor.command_id(), 1, None)).await;
    assert!(matches!(lost, Err(ExecuteError::Unavailable(_))), "{lost:?}");
    let (at, why) = w.executor.trouble().unwrap();
    assert!(at == NOW && why.contains("disk full"), "{why}");
    let stored = w.executor.execute(rotate(w.executor.command_id(), 1, None)).await;
    assert!(stored.is_ok() && w.executor.trouble().is_none(), "{stored:?}");
}

const MEMBER: MemberId = MemberId(uuid::Uuid::from_u128(5));
const BOOT: BootId = BootId(uuid::Uuid::from_u128(6));

impl World {
    async fn refused(&self, command: Command) -> Code {
        match self.executor.execute(command).await {
            Err(ExecuteError::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    /// The refusals behind a position, each with the command that it names.
    async fn refusals_after(&self, position: u64) -> Vec<(CommandRefused, Option<CommandId>)> {
        let records = self.log.read(position + 1, 100).await.unwrap();
        records
            .iter()
            .map(|record| {
                let event = codec::decode(record).unwrap();
                match event.fact {
                    Fact::CommandRefused(f) => (f, event.header.command.map(|c| c.id)),
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }

    /// A member that has started, and so may report.
    async fn start_member(&self) {
        let order = Order::StartMember {
            member: MEMBER,
            boot: BOOT,
            seq: 1,
            service: "gateway".into(),
            names: vec![],
            addresses: vec![],
            facts: BTreeMap::new(),
        };
        let command = self.executor.own_command(Principal::Gateway(MEMBER), order);
        self.executor.execute(command).await.unwrap();
    }

    /// A report of the member that trusts these host authorities.
    fn report(&self, seq: u64, trusted: &[u8]) -> Command {
        let facts = TypeFacts {
            trusted: trusted.iter().map(|pin| SpkiPin([*pin; 32])).collect(),
            ..TypeFacts::default()
        };
        let order = Order::ReportMember {
            member: MEMBER,
            boot: BOOT,
            seq,
            facts: BTreeMap::from([(AuthorityType::Host, Box::new(facts))]),
        };
        self.executor.own_command(Principal::Gateway(MEMBER), order)
    }

    /// Another process writes: this one's state does not hold it yet.
    async fn behind_our_back(&self, fact: Fact) {
        let of = codec::Circumstances {
            time: NOW,
            actor: Principal::System(SystemActor::Host),
            credential: None,
            command: None,
            reason: None,
            decided_at: None,
            traceparent: None,
            service: "orchestrator",
        };
        let event = codec::encode(&"acme.cluster".parse().unwrap(), &fact, &of);
        self.log.append(Append::one(event, None)).await.unwrap();
    }

    /// Both commands wait when the other process writes, and are decided before that is folded.
    async fn two_beside(&self, fact: Fact, first: Command, second: Command) {
        let (first, second, ()) = tokio::join!(
            self.executor.execute(first),
            self.executor.execute(second),
            self.behind_our_back(fact)
        );
        assert!(first.is_ok(), "{first:?}");
        assert!(second.is_ok(), "{second:?}");
    }
}

#[tokio::test]
async fn a_report_that_met_a_conflict_is_not_overtaken_by_the_next_one() {
    let w = world().await;
    w.start_member().await;
    let other = MemberReported {
        member: MEMBER,
        boot: BOOT,
        seq: 2,
        facts: BTreeMap::new(),
    };
    w.two_beside(other.into(), w.report(3, &[1]), w.report(4, &[]))
        .await;
    assert_eq!(w.fold.read(|s| s.members[&MEMBER].seq), 4);
}

#[tokio::test]
async fn a_report_that_is_in_doubt_is_not_overtaken_by_the_next_one() {
    let w = world().await;
    w.start_member().await;
    // The first report trusts an authority that only the log knows yet.
    let other = key_generated(AuthorityType::Host, 3, 2);
    w.two_beside(other.into(), w.report(3, &[3]), w.report(4, &[]))
        .await;
    assert_eq!(w.fold.read(|s| s.members[&MEMBER].seq), 4);
}

/// Whoever waits for his turn at a crowded subject takes nobody else's place.
#[tokio::test]
async fn a_crowd_at_one_subject_does_not_hold_up_the_others() {
    let w = world().await;
    let admin = || Principal::User("admin".parse().unwrap());
    let token = |n: u16| {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&n.to_be_bytes());
        let grant = Grant {
            names: vec![NamePattern::Exact(format!("n{n}.example").parse().unwrap())],
            addresses: vec![],
            uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
        };
        let order = Order::CreateToken {
            hash: TokenHash(hash),
            grant,
            uses: 1,
            ttl_ms: 60_000,
        };
        w.executor.execute(w.executor.own_command(admin(), order))
    };
    let begun = w.fold.position().0;
    let crowd = futures::future::join_all((0..1_000).map(token));
    let step = w.executor.execute(rotate(w.executor.command_id(), 1, None));
    // All of them are sent before the first is decided.
    let (crowd, step) = tokio::task::unconstrained(futures::future::join(crowd, step)).await;
    assert!(crowd.iter().all(Result::is_ok));
    let waited = step.unwrap().position.0 - begun;
    assert!(waited < 50, "{waited} others came first");
    assert_eq!(w.fold.position().0 - begun, 1_001);
}
