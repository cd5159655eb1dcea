//! What a plan leaves to people: the table's steps for the type, and what the log knows beside it.

use api::plan::PlanByHand;
use domain::{
    AuthorityType, CertDigest, ClusterState, Phase, Principal, Timestamp,
    authority::{ByHand, KeyKind},
    oracle::Entering,
    state::TypeState,
};

/// What is left to people, of the current phase and of those to come. A rollback ends where the rotation began.
pub(super) fn left(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
    steps: &[Entering],
    now: Timestamp,
) -> Vec<PlanByHand> {
    let turns_back = of.phase == Phase::Rollback || steps.iter().any(|step| step.to == Phase::Rollback);
    let is_left = |step: &ByHand| {
        let is_current = of.phase == step.phase && of.phase != Phase::Standby;
        is_current || steps.iter().any(|entering| entering.to == step.phase)
    };
    if turns_back {
        let steps = authority_type.by_hand_of_rollback();
        return steps.filter(is_left).map(item).collect();
    }
    let steps_left = authority_type.by_hand().iter().copied().filter(is_left);
    let mut left: Vec<PlanByHand> = steps_left.map(item).collect();
    if authority_type == AuthorityType::Host {
        let hosts = hosts_on_old(state, of, now);
        let signs_hosts = |item: &&mut PlanByHand| item.phase == Phase::UpdateServers;
        if let Some(item) = left.iter_mut().find(signs_hosts).filter(|_| hosts > 0) {
            item.text = match hosts {
                1 => "1 OpenSSH host without an agent needs a new host certificate".into(),
                n => format!("{n} OpenSSH hosts without an agent need new host certificates"),
            };
        }
        let completes = steps.iter().any(|step| step.to == Phase::Standby);
        left.extend(completes.then(|| new_pin(of)));
    }
    left
}

fn item(step: ByHand) -> PlanByHand {
    PlanByHand {
        phase: step.phase,
        text: step.text.to_owned(),
        command: (!step.command.is_empty()).then(|| step.command.to_owned()),
    }
}

/// The pin in join lines is that of the host CA.
fn new_pin(of: &TypeState) -> PlanByHand {
    let prepared = of.prepared.get(&KeyKind::Tls).map(|key| key.id.to_string());
    // Enough to know it by: a line of a terminal has no room for the whole.
    let begins = prepared.map_or_else(String::new, |pin| format!(" to {}...", &pin[..11]));
    PlanByHand {
        phase: Phase::Standby,
        text: format!("CA pin changes{begins}; join lines with the old one stop"),
        command: Some("carousel auth export --type=host --as=pin".into()),
    }
}

/// How many hosts without an agent have nothing newer for their sshd than what the CA that goes has signed.
fn hosts_on_old(state: &ClusterState, of: &TypeState, now: Timestamp) -> usize {
    let active = of.active.get(&KeyKind::Ssh).map(|key| key.id);
    let is_on_old = |digests: &[CertDigest]| {
        let newest_first = digests
            .iter()
            .rev()
            .filter_map(|digest| state.certificates.get(digest));
        let mut of_sshd =
            newest_first.filter(|c| (c.authority_type, c.kind) == (AuthorityType::Host, KeyKind::Ssh));
        let newest = of_sshd.find(|c| !c.revoked && c.not_after > now);
        newest.is_some_and(|newest| Some(newest.issuer) == active)
    };
    // Holders are ordered nodes, gateways, users, external: parties without an agent are at the end, however large the fleet is.
    let parties = state.held.iter().rev();
    let parties =
        parties.take_while(|(holder, _)| !matches!(holder, Principal::Node(_) | Principal::Gateway(_)));
    parties
        .filter(|(holder, digests)| matches!(holder, Principal::External(_)) && is_on_old(digests))
        .count()
}

#[cfg(test)]
mod tests {
    use super::{super::steps, *};

    #[test]
    fn what_is_left_to_people_is_that_of_the_current_phase_and_of_those_to_come() {
        use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
        let shown = |authority_type, phase, until| -> Vec<(Phase, bool)> {
            let of = TypeState {
                phase,
                ..TypeState::default()
            };
            let steps = steps(phase, until);
            let left = left(
                &ClusterState::default(),
                authority_type,
                &of,
                &steps,
                Timestamp(0),
            );
            left.iter()
                .map(|item| (item.phase, item.text.contains("CA pin changes")))
                .collect()
        };
        use AuthorityType::{Db, Host, OidcIdp};
        let from_init = [(Init, false), (UpdateClients, false), (Standby, false)];
        assert_eq!(shown(Db, Standby, None), from_init);
        assert_eq!(shown(Db, Init, None), from_init);
        assert_eq!(shown(Db, Standby, Some(Init)), from_init[..1]);
        assert_eq!(shown(Db, UpdateServers, None), from_init[2..]);
        // Only the end that goes forward changes the pin.
        let end = [(UpdateServers, false), (Standby, false), (Standby, true)];
        assert_eq!(shown(Host, UpdateServers, None), end);
        assert_eq!(shown(Host, UpdateClients, Some(UpdateServers)), end[..1]);
        let back = [(Rollback, false), (Standby, false)];
        assert_eq!(shown(Host, UpdateClients, Some(Rollback)), back);
        assert_eq!(shown(Db, Rollback, None), back);
        assert_eq!(shown(OidcIdp, Standby, None), []);
        assert_eq!(shown(OidcIdp, Rollback, None), []);
    }
}
