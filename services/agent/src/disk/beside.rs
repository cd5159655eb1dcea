//! What a generation holds beside certificates: the keys that OpenSSH and readers of tokens verify by, and what sshd is to refuse.
//!
//! All of it follows from the signed bundle whose trust the generation installs. So what a node reports of the one holds for
//! the other: both are there in the same rename.

use std::{collections::BTreeMap, fs, path::Path};

use domain::{AuthorityType, authority::KeyKind, trust::Bundle};
use pki::{jwt, ssh};

const KNOWN_HOSTS: &str = "ssh_known_hosts";
const REVOKED_HOSTS: &str = "ssh_revoked_hosts";
const TRUSTED_USERS: &str = "trusted_user_ca_keys";
const REVOKED: &str = "revoked_keys";
const KEY_SET: &str = "jwks.json";

/// Files of one type by their name.
pub type Beside = BTreeMap<String, Vec<u8>>;

/// The files that a type's bundle gives.
///
/// - `host`: `ssh_known_hosts`, lines `@cert-authority * …`, and `ssh_revoked_hosts` for ssh's `RevokedHostKeys`;
/// - other types with SSH keys: `TYPE/trusted_user_ca_keys`, and `TYPE/revoked_keys` for sshd's `RevokedKeys`;
/// - types with keys for tokens: `TYPE/jwks.json`.
pub fn of_bundle(bundle: &Bundle) -> Beside {
    let mut files = Beside::new();
    let (of, has) = (bundle.authority_type, |kind| {
        bundle.authorities.iter().any(|a| a.kind == kind)
    });
    if has(KeyKind::Ssh) {
        // Without a number or time of its own: the same content is the same file.
        let revoked = ssh::revoked_of(bundle, None);
        let text = ssh::trust_text(bundle, "*");
        if of == AuthorityType::Host {
            files.insert(KNOWN_HOSTS.into(), text.into_bytes());
            files.insert(REVOKED_HOSTS.into(), revoked);
        } else {
            files.insert(format!("{of}/{TRUSTED_USERS}"), text.into_bytes());
            files.insert(format!("{of}/{REVOKED}"), revoked);
        }
    }
    if has(KeyKind::Jwt) {
        let json = serde_json::to_vec_pretty(&jwt::keys_of(bundle)).expect("a key set is plain data");
        files.insert(format!("{of}/{KEY_SET}"), json);
    }
    files
}

/// The same as a generation in this directory holds them. One that cannot be read is not there: then hooks see a change.
pub fn of_generation(dir: &Path, of: AuthorityType) -> Beside {
    let names = match of {
        AuthorityType::Host => vec![KNOWN_HOSTS.to_owned(), REVOKED_HOSTS.to_owned()],
        _ => [TRUSTED_USERS, REVOKED, KEY_SET]
            .map(|name| format!("{of}/{name}"))
            .into(),
    };
    let read = |name: String| Some((name.clone(), fs::read(dir.join(name)).ok()?));
    names.into_iter().filter_map(read).collect()
}
