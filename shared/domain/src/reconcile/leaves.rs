//! The node's own certificates in the plan: which are missing, which may be installed, which must go.

use crate::{
    desired::DesiredAuthority,
    event::LeafUse,
    id::SpkiPin,
    reconcile::{Generation, Have, Leaf},
    rules::{Rule, holds},
    time::Timestamp,
};

/// Is it time to renew the leaf? After the given share of its life, in thousandths.
pub fn renewal_due(leaf: &Leaf, now: Timestamp, permille: u16) -> bool {
    let life_ms = leaf.not_after.since_ms(leaf.not_before);
    now >= leaf
        .not_before
        .plus_ms(life_ms.saturating_mul(u64::from(permille)) / 1000)
}

/// Do the certificates come from the issuers that the row names?
pub(super) fn match_row(generation: &Generation, row: &DesiredAuthority) -> bool {
    ROLES.iter().all(|role| {
        let Some(issuer) = role.issuer(row) else {
            return true;
        };
        role.of(generation)
            .as_ref()
            .is_some_and(|leaf| leaf.issuer == issuer)
    })
}

/// Are the certificates that the row asks for within their life?
pub(super) fn are_alive(have: &Have, row: &DesiredAuthority) -> bool {
    ROLES
        .iter()
        .filter(|role| role.issuer(row).is_some())
        .all(|role| {
            role.of(&have.installed)
                .as_ref()
                .is_some_and(|leaf| have.now < leaf.not_after)
        })
}

/// The requests that are to be made: per role where the issuer is not the row's or the life is half over,
/// as one where the row names one issuer for both roles. What is asked for already, or has arrived, is not
/// asked for again.
pub(super) fn missing(have: &Have, row: &DesiredAuthority) -> Vec<(LeafUse, SpkiPin)> {
    let [client, server] = ROLES.map(|role| role.request(have, row));
    let one_issuer_for_both = row.client_issuer.is_some() && row.client_issuer == row.server_issuer;
    let requests = match (client, server) {
        (Some(issuer), other) | (other, Some(issuer))
            if one_issuer_for_both && other.is_none_or(|other| other == issuer) =>
        {
            vec![(LeafUse::Both, issuer)]
        }
        (client, server) => {
            let client = client.map(|issuer| (LeafUse::Client, issuer));
            client
                .into_iter()
                .chain(server.map(|issuer| (LeafUse::Server, issuer)))
                .collect()
        }
    };
    let is_asked = |request: &(LeafUse, SpkiPin)| {
        have.in_flight
            .iter()
            .any(|sent| (sent.usage, sent.issuer) == *request)
    };
    requests
        .into_iter()
        .filter(|request| !is_asked(request))
        .collect()
}

/// Puts received certificates into the roles that they fit, the newest first.
pub(super) fn take_received(have: &Have, row: &DesiredAuthority, into: &mut Generation) {
    for role in ROLES {
        if let Some(leaf) = role.best(have, row) {
            *role.of_mut(into) = Some(leaf.clone());
        }
    }
}

/// Received certificates that fit no role: the row has moved on since they were asked for, or a newer one
/// is installed. They are thrown away; what is missing is asked for again.
///
/// Except the first certificates of a node that has none yet: when the row moves on between its join and the answer,
/// the key of what it got is all that it can prove itself with to recover.
pub(super) fn unfit(have: &Have, row: &DesiredAuthority) -> Vec<SpkiPin> {
    // What is installed may still stand in the list after a crash; its key is in use.
    let is_installed = |leaf: &Leaf| {
        ROLES.iter().any(|role| {
            role.of(&have.installed)
                .as_ref()
                .is_some_and(|l| l.spki == leaf.spki)
        })
    };
    let generations = [Some(&have.installed), have.last_passed.as_ref()];
    let has_another = generations.into_iter().flatten().any(|g| g.client.is_some());
    let is_unfit = |leaf: &&Leaf| {
        let is_only_proof = !has_another && leaf.usage.client();
        !is_only_proof && !is_installed(leaf) && !ROLES.iter().any(|role| role.fits(have, row, leaf))
    };
    have.received
        .iter()
        .filter(is_unfit)
        .map(|leaf| leaf.spki)
        .collect()
}

/// The two roles in which a node uses a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Client,
    Server,
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

impl Role {
    fn of(self, generation: &Generation) -> &Option<Leaf> {
        match self {
            Self::Client => &generation.client,
            Self::Server => &generation.server,
        }
    }

    fn of_mut(self, generation: &mut Generation) -> &mut Option<Leaf> {
        match self {
            Self::Client => &mut generation.client,
            Self::Server => &mut generation.server,
        }
    }

    /// The issuer that the row names for the role; none if the node does not have the role.
    fn issuer(self, row: &DesiredAuthority) -> Option<SpkiPin> {
        match self {
            Self::Client => row.client_issuer,
            Self::Server => row.server_issuer,
        }
    }

    fn covers(self, usage: LeafUse) -> bool {
        match self {
            Self::Client => usage.client(),
            Self::Server => usage.server(),
        }
    }

    /// The issuer to ask, if the role needs a certificate that is not there.
    fn request(self, have: &Have, row: &DesiredAuthority) -> Option<SpkiPin> {
        let issuer = self.issuer(row)?;
        let installed = self.of(&have.installed).as_ref();
        let is_due = installed.is_some_and(|leaf| renewal_due(leaf, have.now, have.renew_permille));
        let is_right = installed.is_some_and(|leaf| leaf.issuer == issuer);
        if (is_right && !is_due) || self.best(have, row).is_some() {
            return None;
        }
        // A renewal is a request like any other: the row says who signs, not the certificate it replaces.
        match installed {
            Some(leaf) if is_due && !holds(Rule::RenewalFollowsTheRow) => Some(leaf.issuer),
            _ => Some(issuer),
        }
    }

    /// May this certificate be installed in this role? Its issuer is the row's, and it was issued after
    /// the one that is installed: what was asked for under an earlier row never comes back.
    fn fits(self, have: &Have, row: &DesiredAuthority, leaf: &Leaf) -> bool {
        let is_desired = |issuer| leaf.issuer == issuer || !holds(Rule::InstallOnlyDesiredIssuer);
        let is_later = self.of(&have.installed).as_ref().is_none_or(|installed| {
            leaf.position > installed.position
                || (!holds(Rule::NothingIsReinstalled)
                    && leaf.spki != installed.spki
                    && Some(installed.issuer) != self.issuer(row))
        });
        self.covers(leaf.usage)
            && self.issuer(row).is_some_and(is_desired)
            && is_later
            && have.now < leaf.not_after
    }

    /// The newest certificate at hand that fits.
    fn best<'a>(self, have: &'a Have, row: &DesiredAuthority) -> Option<&'a Leaf> {
        // Certificates of earlier generations are at hand too; they are not even looked at, because the
        // control plane refuses what a later one has superseded, and then the node is locked out.
        let earlier = [Some(&have.installed), have.last_passed.as_ref()];
        let earlier = earlier
            .into_iter()
            .flatten()
            .filter(|_| !holds(Rule::NothingIsReinstalled));
        let at_hand = have
            .received
            .iter()
            .chain(earlier.flat_map(|g| g.client.iter().chain(&g.server)));
        at_hand
            .filter(|leaf| self.fits(have, row, leaf))
            .max_by_key(|leaf| leaf.position)
    }
}
