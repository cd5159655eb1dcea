//! The demo's fleet: a control plane and its nodes, all of them the real thing, in one process.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent::{Agent, Config, Handle, Pace, Server, Settings as AgentSettings, Token};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use cli::args::DemoArgs;
use domain::{
    Answer, AuthorityType, ClusterName, Command, Credential, NodeId, Order, Phase, Principal, RotationId,
    SpkiPin, TokenHash, UserName,
    access::{Grant, Uses},
    authority::KeyKind,
    command::{Rotate, Settings},
    gate, schedule,
    time::{HOUR_MS, SECOND_MS},
};
use execution::{Now, sha256};
use runtime::clock::SystemClock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{DemoError, credentials::Verifier, traffic::Peer};
use crate::{
    home::{Held, Home},
    init,
    plane::{Options, Plane},
};

/// How long the whole fleet may take to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);

/// A control plane with its nodes.
pub(crate) struct Fleet {
    pub(crate) cluster: ClusterName,
    pub(crate) plane: Plane,
    pub(crate) home: Home,
    admin: UserName,
    nodes: Vec<Member>,
    agents: JoinSet<Result<(), agent::AgentError>>,
    stop: CancellationToken,
    _held: Held,
}

/// A node of the fleet.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) handle: Handle,
    /// Its agent's data directory.
    dir: PathBuf,
}

/// Is told how many nodes have joined, and of how many.
pub(crate) type Joining<'a> = &'a (dyn Fn(usize, usize) + Sync);

impl Fleet {
    /// Makes the cluster, starts the control plane, and lets every node join.
    pub(crate) async fn start(
        args: &DemoArgs,
        place: &Path,
        joining: Joining<'_>,
        stop: CancellationToken,
    ) -> Result<Self, DemoError> {
        let name = match args.nats {
            // Streams outlive the demo: each one has a name of its own.
            Some(_) => format!("demo-{:08x}", rand::random::<u32>()),
            None => "demo.carousel".to_owned(),
        };
        let cluster: ClusterName = name.parse().expect("a DNS name");
        let settings = Settings {
            drain_timeout_ms: SECOND_MS,
            jwks_max_age_ms: SECOND_MS,
            jwt_ttl_ms: 10 * SECOND_MS,
            allow_loopback: true,
            ..Settings::default()
        };
        let dir = place.join("control-plane");
        let (made_in, of) = (dir.clone(), cluster.clone());
        tokio::task::spawn_blocking(move || init::make_in_files(&made_in, &of, settings))
            .await
            .expect("making a cluster does not panic")?;
        let mut home = Home::open(&dir)?;
        let held = home.hold()?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = Options {
            log: Some(args.nats.clone().unwrap_or_else(|| "embedded".into())),
            listen: loopback,
            names: vec![],
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            advertise: None,
            public_url: None,
            admin_listen: Some(loopback),
            keys: None,
            services: crate::plane::Services::all(),
        };
        // Its own token: at the end the agents stop first and the control plane last.
        let plane = Plane::start(&mut home, options, CancellationToken::new()).await?;
        let admin = home.description.admin.clone();
        let mut fleet = Self {
            cluster,
            plane,
            home,
            admin,
            nodes: vec![],
            agents: JoinSet::new(),
            stop,
            _held: held,
        };
        fleet.join(args.nodes, place, joining).await?;
        Ok(fleet)
    }

    /// One token for the whole fleet, one agent for each node.
    async fn join(&mut self, count: u32, place: &Path, joining: Joining<'_>) -> Result<(), DemoError> {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let uses: BTreeMap<_, _> = AuthorityType::all().map(|t| (t, Uses::usual(t))).collect();
        let grant = Grant {
            names: vec!["*.node.demo".parse().expect("a pattern")],
            addresses: vec![],
            uses,
        };
        let hash = TokenHash(sha256(secret.as_bytes()));
        self.order(Order::CreateToken {
            hash,
            grant,
            uses: count,
            ttl_ms: HOUR_MS,
        })
        .await?;
        let (ca_pins, bundle_pin) = self.plane.core().fold.read(|state| {
            let pins: BTreeSet<_> = state
                .types
                .get(&AuthorityType::Host)
                .map(|t| t.trusted())
                .unwrap_or_default();
            (pins, state.cluster.as_ref().map(|c| c.bundle_key))
        });
        let server = Server::parse(self.plane.url.as_deref().unwrap_or_default()).expect("our own address");
        let mut starting = vec![];
        for i in 1..=count {
            let name = format!("n{i:02}");
            let dir = place.join("nodes").join(&name);
            let config = Config {
                data_dir: dir.clone(),
                servers: vec![server.clone()],
                hostname: format!("{name}.node.demo").parse().expect("a host name"),
                ca_pins: ca_pins.clone(),
                bundle_pin,
                token: Some(Token::parse(&secret).expect("a token")),
                listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
                settings: AgentSettings::default(),
                config_file: None,
                metrics: None,
                pace: Pace {
                    retry_min: Duration::from_millis(50),
                    tick: Duration::from_millis(100),
                    ..Pace::default()
                },
            };
            let agent = Agent::new(config, SystemClock::shared())?;
            starting.push((name, dir, agent.handle()));
            let token = self.stop.child_token();
            self.agents.spawn(agent.run(token));
        }
        let began = Instant::now();
        for (i, (name, dir, handle)) in starting.into_iter().enumerate() {
            joining(i, count as usize);
            let node = self.joined(name, dir, handle, began).await?;
            self.nodes.push(node);
        }
        joining(count as usize, count as usize);
        Ok(())
    }

    /// Waits until a node has joined, proven its certificates, and listens.
    async fn joined(
        &mut self,
        name: String,
        dir: PathBuf,
        handle: Handle,
        began: Instant,
    ) -> Result<Member, DemoError> {
        let mut status = handle.status();
        loop {
            {
                let now = status.borrow_and_update();
                if let (Some(node), Some(addr), true, true) =
                    (now.node, now.listen, now.proven, now.reported.is_some())
                {
                    return Ok(Member {
                        name,
                        node,
                        addr,
                        handle: handle.clone(),
                        dir,
                    });
                }
            }
            let left = JOIN_TIMEOUT.saturating_sub(began.elapsed());
            tokio::select! {
                changed = status.changed() => if changed.is_err() {
                    return Err(DemoError::TooSlow(format!("the agent of {name} ended")));
                },
                Some(ended) = self.agents.join_next() => match ended {
                    Ok(Err(error)) => return Err(error.into()),
                    _ => return Err(DemoError::Interrupted),
                },
                () = tokio::time::sleep(left) => {
                    let trouble = status.borrow().trouble.clone().unwrap_or_default();
                    return Err(DemoError::TooSlow(format!("{name} did not join in time: {trouble}")));
                }
            }
        }
    }

    /// A command of the administrator.
    async fn order(&self, order: Order) -> Result<Answer, DemoError> {
        let executor = &self.plane.core().executor;
        let admin = Principal::User(self.admin.clone());
        // Asked for without a gateway in between, but as the holder of the newest identity: the log says with which.
        let newest = |state: &domain::ClusterState| state.held.get(&admin)?.last().copied();
        let command = Command {
            reason: Some("demo".into()),
            credential: self.plane.core().fold.read(newest).map(Credential::Certificate),
            ..executor.own_command(admin.clone(), order)
        };
        Ok(executor.execute(command).await?.answer)
    }

    /// Enters a phase.
    pub(crate) async fn enter(
        &self,
        t: AuthorityType,
        phase: Phase,
    ) -> Result<Option<RotationId>, DemoError> {
        let rotate = Rotate {
            authority_type: t,
            target: Some(phase),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        };
        match self.order(Order::Rotate(rotate)).await? {
            Answer::Phase { rotation, .. } => Ok(rotation),
            _ => Ok(None),
        }
    }

    /// Has everybody, the control plane included, reached the phase?
    pub(crate) fn has_reached(&self, t: AuthorityType, phase: Phase) -> bool {
        let now = self.plane.core().executor.now();
        self.plane.core().fold.read(|state| match phase.next() {
            Some(next) => gate::evaluate(state, t, next, state.now(now)).is_open(),
            None => schedule::is_settled(state, t),
        })
    }

    /// Nodes that have reached the current phase of a type, by name.
    pub(crate) fn progress(&self, t: AuthorityType) -> Vec<(String, bool)> {
        self.plane.core().fold.read(|state| {
            let reached = |m: &Member| {
                state
                    .nodes
                    .get(&m.node)
                    .is_some_and(|n| gate::missing(state, t, n).is_ok())
            };
            self.nodes.iter().map(|m| (m.name.clone(), reached(m))).collect()
        })
    }

    /// In words, why a phase is not over.
    pub(crate) fn who_is_missing(&self, t: AuthorityType, phase: Phase) -> String {
        let now = self.plane.core().executor.now();
        let next = phase.next().unwrap_or(Phase::Standby);
        let gate = self
            .plane
            .core()
            .fold
            .read(|state| gate::evaluate(state, t, next, state.now(now)));
        let names: Vec<_> = gate
            .lagging
            .iter()
            .map(|l| format!("{} {}", l.hostname, l.missing.in_words(phase)))
            .collect();
        let members = gate.members.len();
        format!(
            "{phase} was not reached in time: {members} control-plane services lag; {}",
            names.join("; ")
        )
    }

    /// The authority that signs now.
    pub(crate) fn active(&self, t: AuthorityType) -> Option<SpkiPin> {
        self.plane.core().fold.read(|state| {
            let of = state.types.get(&t)?;
            let certified = of.active.get(&KeyKind::Tls);
            certified.or_else(|| of.active.values().next()).map(|k| k.id)
        })
    }

    /// The authority whose client certificates the current row asks for.
    pub(crate) fn client_issuer(&self, t: AuthorityType) -> Option<SpkiPin> {
        let fold = &self.plane.core().fold;
        fold.read(|state| state.types.get(&t)?.client_issuer())
    }

    /// How many nodes have proven that they trust the authority that signs now, and no other.
    pub(crate) fn trust_alone(&self, t: AuthorityType) -> usize {
        let alone: BTreeSet<_> = self.active(t).into_iter().collect();
        self.plane.core().fold.read(|state| {
            let trusts_alone = |m: &&Member| {
                let report = state.nodes.get(&m.node).and_then(|n| n.report.as_ref());
                report
                    .and_then(|r| r.report.authorities.get(&t))
                    .is_some_and(|f| f.trusted == alone)
            };
            self.nodes.iter().filter(trusts_alone).count()
        })
    }

    /// The nodes as the traffic dials them.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peer = |m: &Member| Peer {
            name: m.name.clone(),
            node: m.node,
            addr: m.addr.to_string(),
            epochs: m.handle.epochs(),
            sessions: m.handle.sessions(),
        };
        self.nodes.iter().map(peer).collect()
    }

    /// The nodes as those who verify.
    pub(crate) fn verifiers(&self) -> Vec<Verifier> {
        let verifier = |m: &Member| Verifier {
            name: m.name.clone(),
            current: m.dir.join("current"),
        };
        self.nodes.iter().map(verifier).collect()
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> &[Member] {
        &self.nodes
    }

    /// The clock.
    pub(crate) fn now(&self) -> Now {
        self.plane.core().now()
    }

    /// Re-reads the whole log.
    pub(crate) async fn audit(&self) -> Result<api::audit::VerifyReport, DemoError> {
        let log = self.plane.core().log.clone();
        let checkpoints = self.home.keys().join("checkpoints.jsonl");
        projector::audit::verify(&*log, Some(&checkpoints))
            .await
            .map_err(|e| DemoError::Audit(e.to_string()))
    }

    /// Stops the agents, then the control plane.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.agents.join_next().await.is_some() {}
        self.plane.stop().await;
    }
}
