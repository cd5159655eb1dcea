//! What sshd and ssh are told to trust: one line for each authority of both generations.

use domain::{AuthorityType, Timestamp, authority::KeyKind, trust::Bundle};
use ssh_key::PublicKey as Line;

use crate::{
    bundle::public_keys,
    key::PublicKey,
    ssh::{Revoked, adapter, krl},
};

/// For sshd's `TrustedUserCAKeys`: the key and a comment.
pub fn public_line(authority: &PublicKey, comment: &str) -> String {
    Line::new(adapter::key_data(authority), comment)
        .to_openssh()
        .expect("a P-256 key can be written")
}

/// For ssh's `known_hosts`: hosts whose names match the pattern are known by certificates of this authority.
pub fn known_hosts_line(pattern: &str, authority: &PublicKey, comment: &str) -> String {
    format!("@cert-authority {pattern} {}", public_line(authority, comment))
}

/// What OpenSSH is given of a bundle, a line for each generation: for `known_hosts` where the type certifies hosts (of which the
/// pattern says which), else for `TrustedUserCAKeys`.
pub fn trust_lines(bundle: &Bundle, hosts: &str) -> Vec<String> {
    let title = bundle.authority_type.row().title;
    let keys = public_keys(bundle, KeyKind::Ssh);
    keys.map(|(listed, key)| {
        let comment = format!("{} {title}, generation {}", bundle.cluster, listed.generation);
        match bundle.authority_type {
            AuthorityType::Host => known_hosts_line(hosts, &key, &comment),
            _ => public_line(&key, &comment),
        }
    })
    .collect()
}

/// The same as the file that OpenSSH reads.
pub fn trust_text(bundle: &Bundle, hosts: &str) -> String {
    let lines = trust_lines(bundle, hosts);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// For sshd's `RevokedKeys`: what the bundle denies of what was signed for SSH. It does not say by which of two generations:
/// named under both, for 64 random bits are nobody else's.
///
/// `at` is when the list is made, and then it bears the bundle's revision as its number; without, neither.
pub fn revoked_of(bundle: &Bundle, at: Option<Timestamp>) -> Vec<u8> {
    let serials: Vec<u64> = bundle
        .denied
        .iter()
        .filter_map(|denied| denied.serial.ssh())
        .collect();
    let keys: Vec<PublicKey> = public_keys(bundle, KeyKind::Ssh).map(|(_, key)| key).collect();
    let revoked: Vec<_> = keys
        .iter()
        .map(|authority| Revoked {
            authority,
            serials: serials.clone(),
        })
        .collect();
    let comment = format!("{} {}", bundle.cluster, bundle.authority_type.row().title);
    let number = at.map_or(0, |_| bundle.revision.0);
    krl(number, at.unwrap_or(Timestamp(0)), &comment, &revoked)
}
