//! What one node may do to the log: every report and every certificate may be events, for ever.
//!
//! The counts begin anew with every row. A new row asks each node for certificates and for a measured report, at
//! once, however short the phases are; and rows are changed by operators, never by a node.

use std::time::Duration;

use domain::{ClusterState, NodeId, Position, Principal, SpkiPin, decide::certificates};
use runtime::ratelimit::{KeyedLimit, Rate};

use crate::{app::App, config::Config, reply::No};

/// The most nodes that are counted one by one; those whose count is back to nothing leave first.
const MAX_NODES: usize = 131_072;
/// How often a node may renew within one life of its certificates, in the long run: twice for each role and for its sshd,
/// and as much again for what fails.
const PER_LIFE: f64 = 12.0;

/// The limits of nodes.
#[derive(Debug)]
pub(crate) struct NodeLimits {
    reports: KeyedLimit<(NodeId, Position)>,
    certificates: KeyedLimit<(NodeId, Position)>,
}

impl NodeLimits {
    /// As configured, and never less than what short lives need: demos and tests have them.
    pub(crate) fn new(config: &Config, node_ttl_ms: u64, now: Duration) -> Self {
        let life_s = Duration::from_millis(node_ttl_ms.max(1)).as_secs_f64();
        let certificates = Rate {
            per_second: config.node_certificates.per_second.max(PER_LIFE / life_s),
            ..config.node_certificates
        };
        Self {
            reports: KeyedLimit::new(config.node_reports, MAX_NODES, now),
            certificates: KeyedLimit::new(certificates, MAX_NODES, now),
        }
    }

    /// May the node report now?
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn report(&self, app: &App, node: NodeId) -> Result<(), No> {
        let row = app.fold.read(newest_row);
        self.reports
            .try_take((node, row), app.clock.monotonic())
            .map_err(|wait| No::limited("this node reports too often", wait))
    }

    /// May the node ask for a certificate with this key? One for TLS that it asked for before is no news to the log: the
    /// first answer is given again, as often as it was lost. An SSH key is certified anew once its certificate was made, and counts (`None`).
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn certificate(&self, app: &App, node: NodeId, key: Option<SpkiPin>) -> Result<(), No> {
        let (row, is_repeated) = app.fold.read(|state| {
            let earlier = key.and_then(|key| certificates::earlier(state, &Principal::Node(node), key));
            (newest_row(state), earlier.is_some())
        });
        if is_repeated {
            return Ok(());
        }
        self.certificates
            .try_take((node, row), app.clock.monotonic())
            .map_err(|wait| No::limited("this node asks for too many certificates", wait))
    }
}

fn newest_row(state: &ClusterState) -> Position {
    let rows = state.types.values().map(|of| of.row_position);
    rows.max().unwrap_or_default()
}
