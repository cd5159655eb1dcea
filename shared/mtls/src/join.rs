//! The first trust of a node: certificates that a pin names, and nothing else.

use std::collections::BTreeSet;

use domain::SpkiPin;
use pki::CaCert;
use rustls_pki_types::CertificateDer;

/// Of certificates from an untrusted place, keeps the CA certificates whose key a given pin names.
///
/// A joiner trusts only these for the connection over which it sends its token: either pin of a
/// rotation will do, and whatever else the answer contained is dropped. An empty result means that no
/// pin fits, and that nobody may be trusted.
pub fn keep_pinned<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    pins: &BTreeSet<SpkiPin>,
) -> Vec<CaCert> {
    certificates
        .into_iter()
        .filter_map(|der| CaCert::from_der(der).ok())
        .filter(|ca| pins.contains(&ca.pin()))
        .collect()
}
