//! A TLS server: whose clients it says it accepts, and who issued its certificate.

use std::{collections::BTreeSet, net::SocketAddr};

use domain::probe::{Accepted, Presented, Sight};
use pki::{CaCert, Certificate, issuer_among};

use super::{Known, certificates};

pub(super) async fn look(at: SocketAddr, host: &str, known: &Known) -> Result<Sight, String> {
    let looked = mtls::look(at, host).await.map_err(|error| error.in_words())?;
    Ok(sight(
        &looked,
        &certificates(&known.own),
        &certificates(&known.others),
    ))
}

fn sight(looked: &mtls::Looked, own: &[CaCert], others: &[CaCert]) -> Sight {
    let named = |ca: &&CaCert| looked.ca_names.contains(&ca.parsed().subject_dn);
    let authorities: BTreeSet<_> = own.iter().filter(named).map(CaCert::pin).collect();
    let strangers = looked.ca_names.iter().filter(|name| {
        let ours = own.iter().chain(others);
        !ours.into_iter().any(|ca| ca.parsed().subject_dn == **name)
    });
    let others = u32::try_from(strangers.count()).unwrap_or(u32::MAX);
    // Names of others alone say nothing of this type: its clients are others.
    let accepts = (!authorities.is_empty()).then_some(Accepted { authorities, others });
    let presents = issuer_among(&looked.presented, own).and_then(|issuer| {
        let certificate = Certificate::parse(&looked.presented).ok()?;
        let not_after = certificate.not_after;
        certificate.server.then_some(Presented { issuer, not_after })
    });
    Sight::Tls { accepts, presents }
}
