//! Distinguished names: one for each generation of an authority, and short ones for leaves.

use domain::{AuthorityType, ClusterName};
use rcgen::{DistinguishedName, DnType};

/// `id-at-serialNumber` (X.520): tells the generations of one authority apart.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
/// The longest common name that X.520 allows; longer ones are cut, because nobody decides on them.
const MAX_COMMON_NAME: usize = 64;

/// `O=<cluster>, CN=<cluster> <type> CA, serialNumber=<generation>`.
///
/// Generations with equal names make verifiers choose the wrong authority, or let a server with old
/// sessions resume them after the old authority was dropped (measured with OpenSSL and nginx).
pub(crate) fn of_authority(
    cluster: &ClusterName,
    authority_type: AuthorityType,
    generation: u32,
) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster.as_str());
    // The cluster alone is cut: without the type, two authorities of one cluster would have one name.
    let suffix = format!(" {authority_type} CA");
    let room = MAX_COMMON_NAME - suffix.len();
    let cluster: String = cluster.as_str().chars().take(room).collect();
    name.push(DnType::CommonName, cluster + &suffix);
    name.push(
        DnType::CustomDnType(SERIAL_NUMBER.to_vec()),
        generation.to_string(),
    );
    name
}

/// `O=<cluster>, CN=<common name>`; for people and for old software, never read for identity.
pub(crate) fn of_leaf(cluster: &ClusterName, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster.as_str());
    name.push(DnType::CommonName, cut(common_name));
    name
}

/// At most 64 characters.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(MAX_COMMON_NAME).collect()
}
