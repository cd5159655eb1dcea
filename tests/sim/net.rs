//! Messages in virtual time: delayed, reordered, duplicated, lost.

use std::{cmp::Reverse, collections::BinaryHeap};

use domain::{
    BootId, CertDigest, Duty, NodeId, Position, SpkiPin,
    desired::DesiredState,
    event::LeafUse,
    fact::FactReport,
    reconcile::{Generation, Leaf},
    trust::Bundle,
};

use crate::{operator::Deed, rng::Rng};

/// How long an agent waits for an answer before it gives the connection up and asks again.
pub const PATIENCE_MS: i64 = 10_000;

/// Whoever acts when its time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    Orchestrator(usize),
    Signer,
    Gateway(usize),
    Agent(usize),
    Operator,
    Chaos,
    Sessions,
}

/// What an agent shows of itself when it connects: the certificate, and what it accepts of a gateway.
#[derive(Clone, Debug)]
pub struct Hello {
    pub node: NodeId,
    pub leaf: Leaf,
    pub digest: CertDigest,
    pub trusted: std::collections::BTreeSet<SpkiPin>,
}

/// What an agent asks of a gateway.
#[derive(Clone, Debug)]
pub enum Call {
    /// The event stream: the newest desired state and the node's certificates.
    Poll,
    Request {
        usage: LeafUse,
        issuer: SpkiPin,
        spki: SpkiPin,
    },
    /// The same for the key of sshd.
    CertifySshd { issuer: SpkiPin, spki: SpkiPin },
    Report {
        report: Box<FactReport>,
        says: Box<(Generation, bool)>,
    },
    /// The public route: the newest bundles.
    Trust,
    Recover {
        node: NodeId,
        proven_by: CertDigest,
        spki: SpkiPin,
    },
    Join {
        spki: SpkiPin,
        rejoin: Option<(NodeId, Option<CertDigest>)>,
    },
}

/// What a gateway answers, or an agent sees instead of an answer.
#[derive(Clone, Debug)]
pub enum Reply {
    State {
        desired: Box<DesiredState>,
        leaves: Vec<(Leaf, CertDigest)>,
    },
    Accepted {
        spki: SpkiPin,
    },
    Reported {
        seq: u64,
        says: Box<(Generation, bool)>,
    },
    /// TLS failed, or the certificate is unknown: the bundle and a recovery are next.
    NotKnown {
        presented: SpkiPin,
    },
    /// The node has no way back but a new token, if this is still what it proves itself with.
    Refused {
        why: &'static str,
        proof: CertDigest,
    },
    /// The token is used up, or too old.
    TokenRefused,
    /// A request for a certificate of another issuer than the row's, or with a key that is used up.
    AskAgain {
        spki: SpkiPin,
    },
    Bundles(Vec<Bundle>),
    /// With the newest bundle: the row at or after the certificate.
    Recovered {
        leaf: Leaf,
        digest: CertDigest,
        bundle: Box<Bundle>,
    },
    Joined {
        node: NodeId,
        leaf: Leaf,
        digest: CertDigest,
        desired: Box<DesiredState>,
    },
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub enum Msg {
    Tick(Actor),
    /// The log has grown: whoever follows it reads on.
    Follow(Actor),
    /// A request: whoever sent it waits for so long and no longer, and its connection ends with the waiting.
    Call {
        gateway: usize,
        agent: usize,
        boot: BootId,
        sent: i64,
        hello: Option<Box<Hello>>,
        call: Call,
    },
    Reply {
        agent: usize,
        boot: BootId,
        reply: Box<Reply>,
    },
    /// A report that waited on its way to the orchestrator.
    Late(Box<domain::Command>),
    /// An operator's command arrives.
    Deed(Box<Deed>),
    /// The signer gets to a duty.
    Owed {
        epoch: u32,
        duty: Box<Duty>,
        seen: Position,
    },
    Proved {
        agent: usize,
        boot: BootId,
        generation: Box<Generation>,
    },
    DrainOver {
        agent: usize,
        boot: BootId,
        issuer: SpkiPin,
    },
    /// Something that was off comes back.
    Up(Actor),
    /// The end of a fault that is counted by number.
    Heal(usize),
}

struct Timed(i64, u64, Msg);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss_permille: u64,
    pub duplicate_permille: u64,
    /// Messages that take up to `slow_ms` instead of a moment.
    pub slow_permille: u64,
    pub slow_ms: i64,
}

impl Weather {
    /// Nothing is lost and nothing is late.
    pub const FAIR: Self = Self {
        loss_permille: 0,
        duplicate_permille: 0,
        slow_permille: 0,
        slow_ms: 0,
    };
}

/// Everything that is still to happen, in order of time; of two at one time, the one that was sent first.
pub struct Queue {
    heap: BinaryHeap<Reverse<Timed>>,
    sent: u64,
    pub weather: Weather,
}

impl Queue {
    pub fn new(weather: Weather) -> Self {
        Self {
            heap: BinaryHeap::new(),
            sent: 0,
            weather,
        }
    }

    /// Something that happens for certain at a time: a timer, or a step inside one machine.
    pub fn at(&mut self, time: i64, msg: Msg) {
        self.sent += 1;
        self.heap.push(Reverse(Timed(time, self.sent, msg)));
    }

    /// A message over the network.
    pub fn send(&mut self, rng: &mut Rng, now: i64, msg: Msg) {
        let weather = self.weather;
        if rng.chance(weather.loss_permille) {
            return;
        }
        // A report is one request on one connection, and those are not duplicated.
        let is_report = matches!(
            msg,
            Msg::Call {
                call: Call::Report { .. },
                ..
            }
        );
        if !is_report && rng.chance(weather.duplicate_permille) {
            let delay = Self::delay(rng, weather);
            self.at(now + delay, msg.clone());
        }
        let delay = Self::delay(rng, weather);
        self.at(now + delay, msg);
    }

    fn delay(rng: &mut Rng, weather: Weather) -> i64 {
        if rng.chance(weather.slow_permille) {
            rng.span(200, weather.slow_ms.max(200))
        } else {
            rng.span(1, 60)
        }
    }

    pub fn next(&mut self) -> Option<(i64, Msg)> {
        self.heap.pop().map(|Reverse(Timed(time, _, msg))| (time, msg))
    }
}
