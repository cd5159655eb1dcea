//! What the gateway should hold, and whether a certificate will do: pure, from the fold and what is on disk.

use std::{collections::BTreeMap, net::IpAddr};

use domain::{
    AuthorityType, CertDigest, ClusterState, Hostname, MemberId, SpkiPin, Timestamp,
    authority::KeyKind,
    decide::certificates::NOT_BEFORE_BACK_MS,
    desired::{DesiredAuthority, desired_of_member},
    event::LeafUse,
};
use pki::Certificate;

/// The rows that bind a gateway, with all that its TLS configuration is made of but its own keys.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wanted {
    /// Its own row of each type it verifies callers against.
    pub(crate) rows: BTreeMap<AuthorityType, DesiredAuthority>,
    /// The CA certificate of each trusted authority, DER in base64.
    pub(crate) anchors: BTreeMap<(AuthorityType, SpkiPin), String>,
    /// Certificates that no longer count.
    pub(crate) denied: Vec<CertDigest>,
    /// The names in the log for its certificates.
    pub(crate) names: Vec<Hostname>,
    /// The addresses, likewise.
    pub(crate) addresses: Vec<IpAddr>,
}

/// One certificate that should be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) usage: LeafUse,
    pub(crate) issuer: SpkiPin,
}

impl Wanted {
    /// What the state asks of this member.
    pub(crate) fn of(state: &ClusterState, member: MemberId) -> Self {
        let rows = desired_of_member(state);
        let keys = rows.keys().filter_map(|t| Some((*t, state.types.get(t)?)));
        let anchors = keys
            .flat_map(|(t, of)| {
                let keys = of.living().filter(|k| k.kind == KeyKind::Tls);
                keys.map(move |k| ((t, k.id), k.certificate.clone()))
            })
            .collect();
        let denied = rows
            .keys()
            .filter_map(|t| state.types.get(t))
            .flat_map(|of| of.denied.keys().copied());
        let known = state.members.get(&member);
        Self {
            anchors,
            denied: denied.collect(),
            names: known.map(|m| m.names.clone()).unwrap_or_default(),
            addresses: known.map(|m| m.addresses.clone()).unwrap_or_default(),
            rows,
        }
    }

    /// The row of its own certificates.
    pub(crate) fn host(&self) -> Option<&DesiredAuthority> {
        self.rows.get(&AuthorityType::Host)
    }

    /// The certificates to hold: one per authority, with exactly the roles that the row gives it. Exactly:
    /// on the way back the client role is certified anew, an earlier certificate is never taken up again [M].
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let Some(row) = self.host() else { return vec![] };
        let role = |issuer: SpkiPin| {
            let client = row.client_issuer == Some(issuer);
            let server = row.server_issuer == Some(issuer) || row.also_serve == Some(issuer);
            match (client, server) {
                (true, true) => Some(LeafUse::Both),
                (true, false) => Some(LeafUse::Client),
                (false, true) => Some(LeafUse::Server),
                (false, false) => None,
            }
        };
        row.trusted
            .iter()
            .filter_map(|issuer| {
                Some(Slot {
                    usage: role(*issuer)?,
                    issuer: *issuer,
                })
            })
            .collect()
    }

    /// Does this certificate fill the slot, with half its life still to come? One that was revoked does not: whoever
    /// reads the deny list refuses it.
    pub(crate) fn fills(&self, slot: Slot, certificate: &Certificate, now: Timestamp) -> bool {
        !self.denied.contains(&certificate.digest)
            && certificate.issuer == Some(slot.issuer)
            && certificate.usage() == Some(slot.usage)
            && now < renewal(certificate)
            && same(&certificate.names, self.names.iter().map(ToString::to_string))
            && same(&certificate.addresses, self.addresses.iter().copied())
    }
}

/// When a certificate is renewed: at half its life, spread over a tenth of it by its own digest, so that
/// certificates that were issued together are not renewed together. Its life begins when it was made, a little
/// after the first of its dates: counted from there, half of a short life would be over at once.
pub(crate) fn renewal(certificate: &Certificate) -> Timestamp {
    let made = certificate.not_before.plus_ms(NOT_BEFORE_BACK_MS);
    let life = certificate.not_after.since_ms(made);
    let spread = life / 10 * u64::from(certificate.digest.0[0]) / 255;
    made.plus_ms(life / 2 - life / 20 + spread)
}

fn same<T: Ord + Clone>(found: &[T], wanted: impl Iterator<Item = T>) -> bool {
    let (mut found, mut wanted): (Vec<T>, Vec<T>) = (found.to_vec(), wanted.collect());
    found.sort();
    wanted.sort();
    found == wanted
}

#[cfg(test)]
mod tests {
    use domain::{Phase, Position, access::Uses};

    use super::*;

    const OLD: SpkiPin = SpkiPin([1; 32]);
    const NEW: SpkiPin = SpkiPin([2; 32]);

    fn wanted(phase: Phase, client: SpkiPin, server: SpkiPin, both_trusted: bool) -> Wanted {
        let row = DesiredAuthority {
            revision: Position(1),
            rotation: None,
            phase,
            uses: Uses::ALL,
            trusted: if both_trusted {
                [OLD, NEW].into()
            } else {
                [server].into()
            },
            client_issuer: Some(client),
            server_issuer: Some(server),
            ssh_issuer: None,
            also_serve: both_trusted.then_some(if server == OLD { NEW } else { OLD }),
            retiring: None,
            excluded_peers: Default::default(),
            started: None,
        };
        Wanted {
            rows: [(AuthorityType::Host, row)].into(),
            anchors: BTreeMap::new(),
            denied: vec![],
            names: vec![],
            addresses: vec![],
        }
    }

    #[test]
    fn a_gateway_holds_server_certificates_of_both_authorities_while_there_are_two() {
        use LeafUse::{Both, Server};
        let slots = |wanted: Wanted| {
            wanted
                .slots()
                .into_iter()
                .map(|s| (s.issuer, s.usage))
                .collect::<Vec<_>>()
        };
        assert_eq!(slots(wanted(Phase::Standby, OLD, OLD, false)), [(OLD, Both)]);
        assert_eq!(
            slots(wanted(Phase::Init, OLD, OLD, true)),
            [(OLD, Both), (NEW, Server)]
        );
        assert_eq!(
            slots(wanted(Phase::UpdateClients, NEW, OLD, true)),
            [(OLD, Server), (NEW, Both)]
        );
        assert_eq!(
            slots(wanted(Phase::UpdateServers, NEW, NEW, true)),
            [(OLD, Server), (NEW, Both)]
        );
        assert_eq!(
            slots(wanted(Phase::Rollback, OLD, OLD, true)),
            [(OLD, Both), (NEW, Server)]
        );
        assert_eq!(slots(wanted(Phase::Standby, NEW, NEW, false)), [(NEW, Both)]);
    }

    #[test]
    fn a_certificate_that_was_revoked_fills_no_slot() {
        let (now, cluster) = (Timestamp(1_789_868_676_000), "acme.cluster".parse().unwrap());
        let mut wanted = wanted(Phase::Standby, OLD, OLD, false);
        let blueprint = pki::Blueprint {
            cluster: &cluster,
            authority_type: AuthorityType::Host,
            generation: 1,
            serial: domain::id::Serial([5; 16]),
            now,
        };
        let made = pki::authority::make(&blueprint, &pki::KeyPair::generate()).unwrap();
        let certificate = Certificate {
            issuer: Some(OLD),
            client: true,
            server: true,
            ..Certificate::parse(made.der()).unwrap()
        };
        let slot = Slot {
            usage: LeafUse::Both,
            issuer: OLD,
        };
        assert!(wanted.fills(slot, &certificate, now));
        wanted.denied = vec![certificate.digest];
        assert!(!wanted.fills(slot, &certificate, now));
    }
}
