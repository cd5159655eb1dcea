//! What sshd and ssh are told to trust: one line for each authority of both generations.

use ssh_key::PublicKey as Line;

use crate::{key::PublicKey, ssh::adapter};

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
