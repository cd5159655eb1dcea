//! A cluster in memory with real keys, for the tests of this crate.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use domain::{
    AuthorityType, ClusterState, Duty, Order, Phase, Principal, Timestamp,
    command::{KeyRequest, Rotate, Settings},
    event::LeafUse,
    id::SystemActor,
};
use eventlog::{MemoryLog, SharedLog};
use execution::{Executor, Fold, Now};
use pki::KeyPair;
use runtime::{metrics::Metrics, readiness::Readiness};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Config, Founded, Founding, KekSource, Signer, SignerError, first_order, found};

pub(crate) const START: Timestamp = Timestamp(1_790_000_000_000);

/// A data directory, a log with the genesis in it, and who works on it.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) log: SharedLog,
    pub(crate) fold: Fold,
    pub(crate) executor: Executor,
    pub(crate) founded: Founded,
    pub(crate) now: Now,
    _stop: DropGuard,
}

pub(crate) fn founding() -> Founding {
    Founding {
        keys: crate::KeyPlace::Files,
        cluster: "acme.cluster".parse().unwrap(),
        settings: Settings {
            allow_loopback: true,
            ..Settings::default()
        },
        kek: KekSource::default(),
        admin: "admin".parse().unwrap(),
        gateway: domain::MemberId(uuid::Uuid::from_u128(1)),
        gateway_names: vec!["gw.acme.cluster".parse().unwrap()],
        gateway_addresses: vec!["127.0.0.1".parse().unwrap()],
        now: START,
    }
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(MemoryLog::new())).await
    }

    pub(crate) async fn on(log: SharedLog) -> Self {
        let dir = TempDir::new().unwrap();
        let founded = found(&dir.path().join("keys"), &founding()).unwrap();
        let stop = CancellationToken::new();
        let now: Now = Arc::new(|| START);
        let fold = Fold::start(log.clone(), stop.child_token()).await.unwrap();
        let executor = Executor::new(
            fold.clone(),
            now.clone(),
            Arc::new(AtomicBool::new(false)),
            stop.child_token(),
        );
        let order = first_order(founded.genesis.clone());
        executor
            .execute(executor.own_command(Principal::System(SystemActor::Host), order))
            .await
            .unwrap();
        Self {
            dir,
            log,
            fold,
            executor,
            founded,
            now,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    pub(crate) async fn signer(&self) -> Result<Signer, SignerError> {
        let part = Readiness::new().part("signer", "its start");
        let config = Config { key_dir: self.keys() };
        Signer::open(
            config,
            self.fold.clone(),
            self.now.clone(),
            Metrics::new("test"),
            part,
        )
        .await
    }

    pub(crate) async fn order(
        &self,
        principal: Principal,
        order: Order,
    ) -> Result<(), execution::ExecuteError> {
        self.executor
            .execute(self.executor.own_command(principal, order))
            .await
            .map(drop)
    }

    /// A phase command of the administrator.
    pub(crate) async fn rotate(&self, authority_type: AuthorityType, target: Phase) {
        let rotate = Rotate {
            authority_type,
            target: Some(target),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        };
        self.order(self.admin(), Order::Rotate(rotate)).await.unwrap();
    }

    pub(crate) fn admin(&self) -> Principal {
        Principal::User("admin".parse().unwrap())
    }

    /// The administrator asks for a new certificate of its own.
    pub(crate) async fn ask(&self) -> KeyPair {
        let key = KeyPair::generate();
        let order = Order::RequestCertificate {
            authority_type: AuthorityType::User,
            usage: LeafUse::Client,
            issuer: None,
            key: KeyRequest {
                spki: key.spki_pin(),
                public_key: key.public().to_base64(),
            },
            form: domain::authority::KeyKind::Tls,
        };
        self.order(self.admin(), order).await.unwrap();
        key
    }

    /// The signer makes the keys that a rotation waits for, and does nothing else.
    pub(crate) async fn make_key(&self, authority_type: AuthorityType) {
        let is_for =
            |duty: &Duty| matches!(duty, Duty::GenerateKey { authority_type: t, .. } if *t == authority_type);
        let owed = self.fold.read(|state| domain::owed(state, START));
        let duties: Vec<_> = owed.into_iter().filter(is_for).collect();
        assert!(!duties.is_empty(), "a key is owed");
        let signer = self.signer().await.unwrap();
        for duty in duties {
            signer.perform(&duty).await.unwrap();
        }
    }

    /// Waits until the state is so; fails with what was waited for.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&ClusterState) -> bool) {
        let mut changes = self.fold.changes();
        let waiting = async {
            while !self.fold.read(&is) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap_or_else(|_| panic!("not yet: {what}"));
    }
}
