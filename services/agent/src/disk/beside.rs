//! What a generation holds beside certificates: the keys that OpenSSH and readers of tokens verify by, and what sshd is to refuse.
//!
//! All of it follows from the signed bundle whose trust the generation installs. So what a node reports of the one holds for
//! the other: both are there in the same rename.

use std::collections::BTreeMap;

use domain::{AuthorityType, Timestamp, authority::KeyKind, trust::Bundle};
use pki::{jwt, ssh};

/// Files of one type by their name.
pub type Beside = BTreeMap<String, Vec<u8>>;

/// The files that a type's bundle gives.
///
/// - `host`: `ssh_known_hosts`, lines `@cert-authority * …`;
/// - other types with SSH keys: `TYPE/trusted_user_ca_keys`, and `TYPE/revoked_keys` for sshd's `RevokedKeys`;
/// - types with keys for tokens: `TYPE/jwks.json`.
pub fn of_bundle(bundle: &Bundle) -> Beside {
    let mut files = Beside::new();
    let (of, has) = (bundle.authority_type, |kind| {
        bundle.authorities.iter().any(|a| a.kind == kind)
    });
    if has(KeyKind::Ssh) {
        let lines = ssh::trust_lines(bundle, "*");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if of == AuthorityType::Host {
            files.insert("ssh_known_hosts".into(), text.into_bytes());
        } else {
            files.insert(format!("{of}/trusted_user_ca_keys"), text.into_bytes());
            // Without a time of its own: the same content is the same file.
            files.insert(
                format!("{of}/revoked_keys"),
                ssh::revoked_of(bundle, Timestamp(0)),
            );
        }
    }
    if has(KeyKind::Jwt) {
        let json = serde_json::to_vec_pretty(&jwt::keys_of(bundle)).expect("a key set is plain data");
        files.insert(format!("{of}/jwks.json"), json);
    }
    files
}
