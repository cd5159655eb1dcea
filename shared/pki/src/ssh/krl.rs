//! Key revocation lists (OpenSSH, PROTOCOL.krl): for sshd's `RevokedKeys`, certificates that no longer count although they
//! have not expired.

use domain::Timestamp;
use ssh_key::PublicKey as Line;

use crate::{key::PublicKey, ssh::adapter};

/// `SSHKRL\n\0`.
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT: u32 = 1;
const CERTIFICATES: u8 = 1;
const SERIAL_LIST: u8 = 0x20;

/// What one authority has signed and does not stand for any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoked<'a> {
    /// The authority.
    pub authority: &'a PublicKey,
    /// The serials of its certificates.
    pub serials: Vec<u64>,
}

/// The list, in the binary form that sshd reads. `version` rises with each list; authorities without a serial are left out.
pub fn krl(version: u64, at: Timestamp, comment: &str, revoked: &[Revoked<'_>]) -> Vec<u8> {
    let mut out = vec![];
    out.extend(MAGIC.to_be_bytes());
    out.extend(FORMAT.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(u64::try_from(at.0 / 1000).unwrap_or_default().to_be_bytes());
    let flags = 0_u64;
    out.extend(flags.to_be_bytes());
    let reserved = b"";
    string(reserved, &mut out);
    string(comment.as_bytes(), &mut out);
    for of in revoked.iter().filter(|of| !of.serials.is_empty()) {
        let mut serials = of.serials.clone();
        serials.sort_unstable();
        let serials: Vec<u8> = serials.into_iter().flat_map(u64::to_be_bytes).collect();
        let key = Line::from(adapter::key_data(of.authority));
        let mut section = vec![];
        string(&key.to_bytes().expect("a P-256 key can be written"), &mut section);
        string(reserved, &mut section);
        section.push(SERIAL_LIST);
        string(&serials, &mut section);
        out.push(CERTIFICATES);
        string(&section, &mut out);
    }
    out
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}
