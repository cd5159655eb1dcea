//! The three stores the suite runs on.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{CLUSTER, Store};
use crate::{
    JetStreamLog, JetStreamOptions, MemoryLog, SharedLog, SqliteLog, bus::BusOptions, testing::NatsServer,
};

/// A log in memory.
pub struct MemoryStore(MemoryLog);

/// A log in a file of its own.
pub struct SqliteStore {
    directory: TempDir,
    /// One process has one handle: the writer's lock allows no second one.
    log: Mutex<Option<SharedLog>>,
}

/// A log on a server of its own.
pub struct JetStreamStore {
    server: NatsServer,
    _directory: TempDir,
}

impl MemoryStore {
    /// An empty one.
    pub async fn start() -> Option<Self> {
        Some(Self(MemoryLog::new()))
    }
}

impl SqliteStore {
    /// An empty one.
    pub async fn start() -> Option<Self> {
        let directory = TempDir::new().expect("a temporary directory can be made");
        Some(Self {
            directory,
            log: Mutex::new(None),
        })
    }

    async fn open_file(&self) -> SharedLog {
        SqliteLog::open(self.directory.path().join("log.sqlite"))
            .await
            .expect("the suite's log opens")
    }
}

impl JetStreamStore {
    /// A new server with an empty store; `None` if there is no server to start.
    pub async fn start() -> Option<Self> {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let server = NatsServer::start(directory.path()).await?;
        Some(Self {
            server,
            _directory: directory,
        })
    }

    async fn connect(&self) -> SharedLog {
        let bus = BusOptions {
            url: self.server.url(),
            name: "conformance".into(),
            ..BusOptions::default()
        };
        let options = JetStreamOptions {
            cluster: CLUSTER.into(),
            replicas: 1,
        };
        JetStreamLog::connect(&bus, &options)
            .await
            .expect("the suite's log opens")
    }
}

impl Store for MemoryStore {
    fn open(&self) -> BoxFuture<'_, SharedLog> {
        async move { Arc::new(self.0.clone()) as SharedLog }.boxed()
    }

    fn restart(&mut self, log: SharedLog) -> BoxFuture<'_, SharedLog> {
        async move {
            log.close().await;
            self.0 = self.0.reopen();
            Arc::new(self.0.clone()) as SharedLog
        }
        .boxed()
    }
}

impl Store for SqliteStore {
    fn open(&self) -> BoxFuture<'_, SharedLog> {
        async move {
            let mut log = self.log.lock().await;
            if log.is_none() {
                *log = Some(self.open_file().await);
            }
            log.clone().expect("it was just opened")
        }
        .boxed()
    }

    /// Closing releases the lock; what a kill leaves is tried by the system tests.
    fn restart(&mut self, log: SharedLog) -> BoxFuture<'_, SharedLog> {
        async move {
            log.close().await;
            let log = self.open_file().await;
            *self.log.lock().await = Some(log.clone());
            log
        }
        .boxed()
    }
}

impl Store for JetStreamStore {
    fn open(&self) -> BoxFuture<'_, SharedLog> {
        self.connect().boxed()
    }

    /// Kills the server; the handle stays open, as that of a process that lives through it.
    fn restart(&mut self, log: SharedLog) -> BoxFuture<'_, SharedLog> {
        async move {
            self.server.restart().await;
            for _ in 0..600 {
                if log.last_position().await.is_ok() && log.append_all(Vec::new()).await.is_empty() {
                    return log;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("the log did not reconnect to its server in half a minute");
        }
        .boxed()
    }
}
