//! A network that loses answers, put before any log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    future::{BoxFuture, FutureExt},
    stream::BoxStream,
};

use super::{Store, appending::everything, at, event, on};
use crate::{
    Append, AppendError, EventLog, Lease, LeaseError, Outcome, ReadError, SharedLog, Stored, Subject,
    append_certainly,
};

/// A lost answer, a lost request, and others who write in the meantime: each event is stored exactly once.
pub async fn a_lost_answer_is_cleared_up_without_a_second_copy(store: &mut dyn Store) {
    let log = store.open().await;
    log.append(on("t.before", None, 2)).await.unwrap();
    let mut stored = 2;
    for (index, plan) in [
        vec![Loss::Answer],
        vec![Loss::Request],
        vec![Loss::Request, Loss::Answer],
        vec![Loss::AnswerThen("self", 1)],
        vec![Loss::AnswerThen("self", 700)],
        vec![Loss::AnswerThen("other", 2), Loss::Answer],
    ]
    .into_iter()
    .enumerate()
    {
        for (events, conditional) in [(1, true), (1, false), (5, true), (5, false)] {
            let holder = format!("t.{index}-{events}-{conditional}");
            let append = on(&holder, conditional.then_some(0), events);
            let others: u64 = plan.iter().map(Loss::others).sum();
            let lossy = Lossy {
                log: log.clone(),
                plan: Arc::new(Mutex::new(plan.clone().into())),
            };
            let outcome = append_certainly(&lossy, append.clone()).await.unwrap();
            let Outcome::Stored { first, last } = outcome else {
                panic!("{plan:?}, {holder}: {outcome:?}")
            };
            let records = log.read(first, (last + 1 - first) as usize).await.unwrap();
            let have: Vec<_> = records.iter().map(|record| record.data.clone()).collect();
            let want: Vec<_> = append.events.iter().map(|event| event.data.clone()).collect();
            assert_eq!(have, want, "{plan:?}, {holder}");
            stored += events + others;
            assert_eq!(
                log.last_position().await.unwrap(),
                stored,
                "{plan:?}, {holder}: a copy too many"
            );
        }
    }
    // Somebody else was faster: a doubt does not turn his event into ours.
    let lossy = Lossy {
        log: log.clone(),
        plan: Arc::new(Mutex::new(VecDeque::from([Loss::Request]))),
    };
    let outcome = append_certainly(&lossy, on("t.before", Some(0), 1))
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Conflict { tail: 2 });
    assert_eq!(everything(&log).await.len() as u64, stored);
}

/// What the network does to one append.
#[derive(Debug, Clone)]
enum Loss {
    Answer,
    Request,
    /// The answer is lost, and this many others write on the same subject or on another one.
    AnswerThen(&'static str, u64),
}

impl Loss {
    fn others(&self) -> u64 {
        match self {
            Self::Answer | Self::Request => 0,
            Self::AnswerThen(_, count) => *count,
        }
    }
}

/// A log behind a network that loses what it is told to lose.
struct Lossy {
    log: SharedLog,
    plan: Arc<Mutex<VecDeque<Loss>>>,
}

impl EventLog for Lossy {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Outcome, AppendError>> {
        let loss = self.plan.lock().unwrap().pop_front();
        async move {
            let unknown = Ok(Outcome::Unknown("lost by the test".into()));
            let Some(loss) = loss else {
                return self.log.append(append).await;
            };
            let subject = append.subject.clone();
            match loss {
                Loss::Request => return unknown,
                Loss::Answer => _ = self.log.append(append).await?,
                Loss::AnswerThen(whose, count) => {
                    self.log.append(append).await?;
                    let subject = if whose == "self" { subject } else { at("t.another") };
                    let events = (0..count).map(|n| event(subject.as_str(), n)).collect();
                    self.log
                        .append(Append {
                            subject,
                            expected: None,
                            events,
                        })
                        .await?;
                }
            }
            unknown
        }
        .boxed()
    }

    fn append_all(&self, appends: Vec<Append>) -> BoxFuture<'_, Vec<Result<Outcome, AppendError>>> {
        self.log.append_all(appends)
    }

    fn read(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>> {
        self.log.read(from, limit)
    }

    fn follow(&self, after: u64) -> BoxStream<'static, Result<Stored, ReadError>> {
        self.log.follow(after)
    }

    fn tail<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        self.log.tail(subject)
    }

    fn last_position(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        self.log.last_position()
    }

    fn name(&self) -> String {
        self.log.name()
    }

    fn warnings(&self) -> Vec<String> {
        self.log.warnings()
    }

    fn put_lease(&self, key: &str, value: Bytes, ttl: Duration) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.log.put_lease(key, value, ttl)
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        self.log.leases()
    }

    fn drop_lease(&self, key: &str) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.log.drop_lease(key)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.log.close()
    }
}
