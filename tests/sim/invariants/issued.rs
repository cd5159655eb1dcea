//! What was authorised, by a bookkeeping of its own, and whether exactly that was signed.

use domain::event::{AuthorizationGranted, CertificateIssued};

use super::*;

/// Authorisations, from what the log says about them alone.
#[derive(Default)]
pub(super) struct Authorizations {
    /// All that were ever made: a signature of anything else is nobody's word.
    ever: BTreeMap<AuthorizationId, AuthorizationGranted>,
    /// Those that wait for their first signature.
    waiting: BTreeSet<AuthorizationId>,
    users: BTreeSet<Principal>,
}

impl Authorizations {
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Follows what the log says about authorisations and the people that they are for.
    pub(super) fn follow(&mut self, fact: &Fact, nodes: &BTreeSet<NodeId>) {
        match fact {
            Fact::AuthorizationGranted(f) => {
                // Overtaken by the removal of its holder, it is void from the start.
                let is_there = match &f.holder {
                    Principal::Node(node) => nodes.contains(node),
                    holder @ Principal::User(_) => self.users.contains(holder),
                    Principal::Gateway(_)
                    | Principal::External(_)
                    | Principal::System(_)
                    | Principal::Anonymous => true,
                };
                if is_there {
                    self.waiting.insert(f.authorization);
                }
                self.ever.insert(f.authorization, f.clone());
            }
            Fact::AuthorizationVoided(f) => _ = self.waiting.remove(&f.authorization),
            Fact::CertificateRefused(f) => _ = self.waiting.remove(&f.authorization),
            Fact::AccessUserAdded(f) => _ = self.users.insert(Principal::User(f.user.clone())),
            Fact::AccessRecovered(f) => _ = self.users.insert(Principal::User(f.user.clone())),
            Fact::AccessUserRemoved(f) => {
                let holder = Principal::User(f.user.clone());
                self.users.remove(&holder);
                self.forget(&holder);
            }
            Fact::NodeRemoved(f) => self.forget(&Principal::Node(f.node)),
            _ => {}
        }
    }

    fn forget(&mut self, holder: &Principal) {
        let ever = &self.ever;
        self.waiting
            .retain(|id| ever.get(id).is_some_and(|granted| granted.holder != *holder));
    }

    /// Asked before the fold, which ignores what it does not expect: a signature is out in the world whether it
    /// counts or not. A second one of the same authorisation is none too many, if it says the same. The names
    /// stand in the authorisation alone.
    pub(super) fn is_wrong(&self, f: &CertificateIssued) -> Option<&'static str> {
        let Some(granted) = self.ever.get(&f.authorization) else {
            return Some("nobody authorised it");
        };
        let is_same = granted.holder == f.holder
            && granted.authority_type == f.authority_type
            && granted.issuer == f.issuer
            && granted.usage == f.usage
            && granted.serial == f.serial
            && granted.spki == f.spki
            && granted.not_after == f.not_after;
        (!is_same).then_some("it differs from what was authorised")
    }

    /// Asked after the fold: the first signature of an authorisation that waits counts, and no other.
    pub(super) fn counts(&mut self, f: &CertificateIssued) -> bool {
        self.waiting.remove(&f.authorization)
    }
}
