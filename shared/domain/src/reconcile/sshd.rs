//! The certificate of the node's sshd in the plan.
//!
//! It is no proof of who the node is and nothing is built upon it, so that it follows the row by itself: no order
//! between it and the node's TLS certificates matters, and sshd is as well off with the one before until it comes.

use crate::{
    desired::DesiredAuthority,
    id::SpkiPin,
    reconcile::{Have, Leaf, Sshd, renewal_due},
};

/// What the next generation holds for sshd: the newest certificate of its key that the row wants; until it comes the
/// one before, as long as the row wants any.
pub(super) fn next(have: &Have, row: &DesiredAuthority) -> Option<Leaf> {
    let (sshd, issuer) = (have.sshd.as_ref()?, row.ssh_issuer?);
    received(have, sshd, issuer)
        .or_else(|| installed(have, sshd))
        .cloned()
}

/// The authority to ask, if there is no certificate of its for sshd's key and this node, or the life of that is half over.
pub(super) fn missing(have: &Have, row: &DesiredAuthority) -> Option<SpkiPin> {
    let (sshd, issuer) = (have.sshd.as_ref()?, row.ssh_issuer?);
    let is_good = |leaf: &Leaf| {
        leaf.issuer == issuer && !sshd.is_anothers && !renewal_due(leaf, have.now, have.renew_permille)
    };
    let is_there = installed(have, sshd).is_some_and(is_good) || received(have, sshd, issuer).is_some();
    (sshd.key.is_some() && !is_there && sshd.asked != Some(issuer)).then_some(issuer)
}

/// The installed one, unless sshd has another key since.
fn installed<'a>(have: &'a Have, sshd: &Sshd) -> Option<&'a Leaf> {
    let is_of_its_key = |leaf: &&Leaf| sshd.key.is_none_or(|key| leaf.spki == key);
    have.installed.ssh.as_ref().filter(is_of_its_key)
}

/// What came, if it is what the row wants and later than what is installed.
fn received<'a>(have: &Have, sshd: &'a Sshd, issuer: SpkiPin) -> Option<&'a Leaf> {
    let before = installed(have, sshd).map(|leaf| leaf.position);
    sshd.received.as_ref().filter(|leaf| {
        Some(leaf.spki) == sshd.key
            && leaf.issuer == issuer
            && have.now < leaf.not_after
            && before.is_none_or(|before| leaf.position > before)
    })
}
