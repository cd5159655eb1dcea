//! Constant load: fresh mTLS connections between random pairs of nodes, as an application of the one would dial one of
//! the other, with what lies in the agents' directories at that moment.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use carousel_tests::Dice;
use domain::{AuthorityType, ClusterName, NodeId};
use mtls::{Credential, Epochs, Expect, Now, SessionRegistry, TlsError, TrustEpoch, probe};
use pki::CaCert;
use runtime::clock::SystemClock;

use super::{
    fleet::{Fleet, Node},
    record::Entry,
};
use crate::wire::runtime;

/// Connections at a time.
const WORKERS: usize = 3;
/// Between two of one worker: load, not a flood.
const PAUSE: Duration = Duration::from_millis(8);
/// A line in the record for so many connections.
const LINE: u64 = 500;

/// Runs until the fleet's time is over.
pub(crate) fn run(fleet: &Fleet, seed: u64) {
    let workers = (0..WORKERS as u64).map(|worker| work(fleet, Dice::new(seed ^ (worker << 32))));
    runtime().block_on(futures::future::join_all(workers));
}

async fn work(fleet: &Fleet, mut dice: Dice) {
    let (mut good, mut unavailable) = (0, 0);
    while !fleet.is_over() {
        let from = dice.below(fleet.nodes.len());
        let to = (from + 1 + dice.below(fleet.nodes.len() - 1)) % fleet.nodes.len();
        match connect(&fleet.nodes[from], &fleet.nodes[to]).await {
            Met::Well => good += 1,
            Met::Nobody => unavailable += 1,
            Met::Distrust(why, excused) => fleet.record.note(Entry::Distrust {
                from: fleet.nodes[from].name.clone(),
                to: fleet.nodes[to].name.clone(),
                why,
                excused,
            }),
        }
        if good + unavailable >= LINE {
            fleet.record.note(Entry::Handshakes { good, unavailable });
            (good, unavailable) = (0, 0);
        }
        tokio::time::sleep(PAUSE).await;
    }
    fleet.record.note(Entry::Handshakes { good, unavailable });
}

/// Does `to` refuse the certificate of `from`?
pub(crate) fn is_refused(from: &Node, to: &Node) -> bool {
    match runtime().block_on(connect(from, to)) {
        Met::Distrust(why, _) => why.contains("revoked"),
        Met::Well | Met::Nobody => false,
    }
}

/// What became of a connection.
enum Met {
    Well,
    /// One of them is down, frozen, or has nothing installed at this moment.
    Nobody,
    Distrust(String, Vec<String>),
}

/// Connects, and again where the dialler's certificates were replaced meanwhile: whoever read them a moment ago has
/// what an application must not keep.
async fn connect(from: &Node, to: &Node) -> Met {
    let cluster: ClusterName = "acme.cluster".parse().expect("a name");
    loop {
        // What is being done to them counts from before the connection to after it.
        let mut excused: Vec<_> = [from, to].iter().filter_map(|node| node.excused()).collect();
        let (Some(own), Some((addr, id))) = (Installed::of(from), to.listens()) else {
            return Met::Nobody;
        };
        let Ok(node) = id.parse::<NodeId>() else {
            return Met::Nobody;
        };
        let expect = Expect::Node {
            cluster: cluster.clone(),
            node,
        };
        let sessions = SessionRegistry::new();
        let error = match probe(&addr, &Epochs::new(own.epoch.clone()), &sessions, &expect).await {
            Ok(_) => return Met::Well,
            Err(error) => error,
        };
        if !error.is_trust_failure() || wrong_node(&error) {
            return Met::Nobody;
        }
        if fs::read_link(from.dir.join("current")).ok().as_ref() != Some(&own.generation) {
            continue;
        }
        excused.extend([from, to].iter().filter_map(|node| node.excused()));
        let excused = excused.into_iter().map(str::to_owned).collect();
        let generation = own.generation.display();
        return Met::Distrust(format!("{error} (dialled from {generation} to {addr})"), excused);
    }
}

/// A port that another process has by now.
fn wrong_node(error: &TlsError) -> bool {
    matches!(error, TlsError::Peer(mtls::PeerFault::WrongIdentity { .. }))
}

/// What a node has installed.
struct Installed {
    generation: PathBuf,
    epoch: Arc<TrustEpoch>,
}

impl Installed {
    fn of(node: &Node) -> Option<Self> {
        let generation = fs::read_link(node.dir.join("current")).ok()?;
        // Through the generation itself: the link may be turned between two reads.
        let dir = node.dir.join(&generation);
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let (certificate, key, trust) = (read("client.crt")?, read("client.key")?, read("trust.pem")?);
        let trusted: Option<Vec<_>> = pki::pem::certificates(&trust)?
            .iter()
            .map(|der| CaCert::from_der(der).ok())
            .collect();
        let clock = SystemClock::shared();
        let epoch = TrustEpoch::builder(Now::new(move || clock.now_ms()))
            .trust(AuthorityType::Host, trusted?)
            .client(Credential::from_pem(&certificate, &key).ok()?)
            .build()
            .ok()?;
        Some(Self { generation, epoch })
    }
}
