//! Who is called what, and who has shown what.

use super::{Certificate, ClusterState, GATEWAY, Node};
use crate::{
    command::Credential,
    id::{MemberId, NodeId, UserName},
};

impl ClusterState {
    /// The gateways that run.
    pub fn gateways(&self) -> impl Iterator<Item = MemberId> {
        let running = self
            .members
            .values()
            .filter(|m| m.running && m.service == GATEWAY);
        running.map(|member| member.id)
    }

    /// The certificate that somebody has shown, if they have shown one of this cluster.
    pub(crate) fn shown(&self, credential: Option<&Credential>) -> Option<&Certificate> {
        self.certificates.get(&credential?.certificate()?)
    }

    /// The accounts that a person's SSH certificates are good for: the one of their own name unless the log says others.
    pub fn logins_of(&self, user: &UserName) -> Vec<String> {
        let given = self.logins.get(user).cloned();
        given.unwrap_or_else(|| vec![user.to_string()])
    }

    /// The node of this name or id; of several that bore the name, the one that joined last.
    pub fn find_node(&self, name_or_id: &str) -> Option<&Node> {
        if let Ok(id) = name_or_id.parse::<NodeId>() {
            return self.nodes.get(&id);
        }
        self.nodes
            .values()
            .filter(|n| n.hostname.as_str() == name_or_id)
            .max_by_key(|n| n.joined)
    }
}
