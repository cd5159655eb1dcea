//! What a node is handed: its desired state with the signed bundles that it names, together.
//!
//! Handed out only after the gateway's own trust and certificates satisfy it [M]: a node that was told to
//! present the new authority's certificate must find a gateway that accepts it.

use std::{collections::BTreeMap, sync::Arc};

use api::node::DesiredUpdate;
use domain::{
    AuthorityType, ClusterState, Code, DesiredState, NodeId, Position,
    desired::{answers_join, desired},
};
use tokio::time::Instant;

use crate::{
    app::{App, PATIENCE},
    hub::Hub,
    reply::No,
};

/// A desired state and where its bundles are.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Handout {
    pub(crate) desired: DesiredState,
    bundles: BTreeMap<AuthorityType, Position>,
}

impl Handout {
    fn of(state: &ClusterState, desired: DesiredState) -> Self {
        let head = |t: &AuthorityType| Some((*t, state.types.get(t)?.bundle.as_ref()?.position));
        let bundles = desired.authorities.keys().filter_map(head).collect();
        Self { desired, bundles }
    }

    /// Does it say anything that `before` did not? Between a phase event and the signature of its bundle the
    /// type's row is absent, which means "keep what you have": that alone is no news.
    pub(crate) fn is_news_after(&self, before: &Self) -> bool {
        let mut filled = self.desired.clone();
        for (authority_type, row) in &before.desired.authorities {
            filled
                .authorities
                .entry(*authority_type)
                .or_insert_with(|| row.clone());
        }
        filled.position = filled
            .authorities
            .values()
            .map(|row| row.revision)
            .max()
            .unwrap_or_default();
        filled != before.desired
    }
}

/// What the node may be handed now; none while the gateway does not hold it, or the node is gone.
pub(crate) fn current(app: &App, state: &ClusterState, node: NodeId) -> Option<Handout> {
    let desired = desired(state, &node).filter(|_| app.holds_rows(state))?;
    Some(Handout::of(state, desired))
}

/// The same with every type of the node's grant in it, and none older than `at_least`: what a join answers.
///
/// # Errors
/// `node_removed`; `not_serving` after 10 s.
pub(crate) async fn whole(app: &App, node: NodeId, at_least: Position) -> Result<Handout, No> {
    let look = |state: &ClusterState| {
        if state.position >= at_least && !state.nodes.contains_key(&node) {
            return Some(Err(No::new(
                Code::NodeRemoved,
                "this node was removed: it needs a new join token",
            )));
        }
        let desired = answers_join(state, &node, at_least).filter(|_| app.holds_rows(state))?;
        Some(Ok(Handout::of(state, desired)))
    };
    let found = app.wait_until(Instant::now() + PATIENCE, look).await;
    found.unwrap_or_else(|| {
        let text = "the current row is not signed, or this gateway does not hold it yet: ask again";
        Err(No::new(Code::NotServing, text).retry_after(1))
    })
}

/// The handout as it travels.
pub(crate) async fn with_bundles(app: &Arc<App>, handout: Handout) -> Result<DesiredUpdate, No> {
    let mut bundles = BTreeMap::new();
    for (authority_type, position) in &handout.bundles {
        let bundle = Hub::bundle(app, *authority_type, *position).await?;
        bundles.insert(*authority_type, (*bundle).clone());
    }
    Ok(DesiredUpdate {
        desired: handout.desired,
        bundles,
    })
}
