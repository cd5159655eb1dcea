//! Which documents an event may have changed. Too many is slow, too few is a wrong answer; the test that
//! compares with the pure functions after every event holds this table.

use std::{collections::BTreeSet, sync::Arc};

use domain::{ClusterState, Event, Fact, NodeId, Principal};
use execution::Fold;
use views::Mark;

use crate::history;

/// What is written together: what the events changed, not the events.
#[derive(Default, Debug)]
pub(crate) struct Gathered {
    pub(crate) touched: Touched,
    /// The events of rotations, which their history is made of.
    pub(crate) rotations: Vec<Arc<Event>>,
    /// The last event.
    pub(crate) mark: Mark,
    /// How many.
    pub(crate) events: usize,
}

impl Gathered {
    /// Takes in events that are folded, in their order.
    pub(crate) fn take(&mut self, events: &[Arc<Event>], fold: &Fold) {
        let Some(last) = events.last() else { return };
        fold.read(|state| events.iter().for_each(|event| self.touched.by(event, state)));
        let of_rotations = events
            .iter()
            .filter(|event| history::rotation_of(event).is_some());
        self.rotations.extend(of_rotations.cloned());
        self.mark = Mark {
            position: last.header.position,
            event: Some(last.header.id),
        };
        self.events += events.len();
    }
}

/// What a batch of events may have changed. The status names the position, so it always changes.
#[derive(Default, Debug)]
pub(crate) struct Touched {
    /// A row changed: what every node has reached may be something else.
    pub(crate) all_nodes: bool,
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Whose certificates.
    pub(crate) holders: BTreeSet<Principal>,
    /// Tokens, users, consumers, authorities: short lists, written as a whole.
    pub(crate) lists: bool,
}

impl Touched {
    /// Takes in one event; `state` is at or after it.
    pub(crate) fn by(&mut self, event: &Event, state: &ClusterState) {
        match &event.fact {
            Fact::RotationPhaseEntered(_)
            | Fact::AuthorityKeyGenerated(_)
            | Fact::AuthorityActivated(_)
            | Fact::ClusterCreated(_) => {
                self.all_nodes = true;
                self.lists = true;
            }
            Fact::NodeReported(f) => {
                self.nodes.insert(f.node);
                // A report presents a certificate for the first time once; the next thousand change nothing.
                let seen = state.certificates.get(&f.seen.certificate);
                if seen.is_none_or(|c| c.presented.is_none_or(|at| at >= event.header.time)) {
                    self.holders.insert(Principal::Node(f.node));
                }
            }
            Fact::NodeJoined(f) => self.node(f.node),
            Fact::NodeRejoined(f) => self.node(f.node),
            Fact::NodeRecovered(f) => self.node(f.node),
            Fact::NodeExcluded(f) => self.node(f.node),
            Fact::NodeIncluded(f) => self.node(f.node),
            Fact::NodeRemoved(f) => self.node(f.node),
            Fact::AccessNamesReleased(f) => self.node(f.node),
            // The first certificate of the prepared authority changes what a rollback asks of the node.
            Fact::AuthorizationGranted(f) => self.holder(&f.holder),
            Fact::AuthorizationVoided(f) => self.holder(&f.holder),
            Fact::CertificateIssued(f) => self.holder(&f.holder),
            Fact::CertificateRefused(f) => self.holder(&f.holder),
            Fact::CertificateRevoked(f) => self.holder(&f.holder),
            Fact::AccessCredentialPresented(f) => self.holder(&f.holder),
            Fact::AccessCertificatesRevoked(f) => {
                let holders = domain::decide::certificates::affected(state, &f.target);
                holders.iter().for_each(|holder| self.holder(holder));
            }
            Fact::AccessUserRemoved(f) => self.holder(&Principal::User(f.user.clone())),
            // A gateway's certificates bear the name of its service.
            Fact::MemberStarted(f) => self.holder(&Principal::Gateway(f.member)),
            Fact::AccessTokenCreated(_)
            | Fact::AccessTokenUsed(_)
            | Fact::AccessTokenRemoved(_)
            | Fact::AccessUserAdded(_)
            | Fact::AccessRecovered(_)
            | Fact::ConsumerAdded(_)
            | Fact::ConsumerAttested(_)
            | Fact::ConsumerWithdrawn(_)
            | Fact::AuthorityRetired(_)
            | Fact::AuthorityDestroyed(_)
            | Fact::AuthorityBundleSigned(_) => self.lists = true,
            Fact::ClusterClockAccepted(_)
            | Fact::RotationHeld(_)
            | Fact::RotationResumed(_)
            | Fact::RotationModeChanged(_)
            | Fact::RotationSettled(_)
            | Fact::MemberReported(_)
            | Fact::MemberLost(_)
            | Fact::MemberStopped(_)
            | Fact::CommandRefused(_)
            | Fact::CommandNoop(_) => {}
        }
    }

    fn node(&mut self, node: NodeId) {
        self.nodes.insert(node);
        self.holders.insert(Principal::Node(node));
        self.lists = true;
    }

    fn holder(&mut self, holder: &Principal) {
        match holder {
            Principal::Node(node) => {
                self.nodes.insert(*node);
            }
            Principal::User(_) => self.lists = true,
            Principal::Gateway(_) | Principal::External(_) | Principal::System(_) | Principal::Anonymous => {}
        }
        self.holders.insert(holder.clone());
    }
}
