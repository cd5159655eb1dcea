//! What is authorised: a certificate for TLS, one for SSH, or a token.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{authority::KeyKind, id::Hostname, plain};

/// The most principals of an SSH certificate: OpenSSH reads no more.
pub(crate) const MOST_PRINCIPALS: usize = 256;
/// The longest principal, key id, audience or issuer, in bytes.
const LONGEST_TEXT: usize = 255;
/// What a critical option may be called: OpenSSH refuses a certificate with one that it does not know.
const CRITICAL_OPTIONS: [&str; 3] = ["force-command", "source-address", "verify-required"];
/// What an extension may be called: OpenSSH overlooks one that it does not know.
const EXTENSIONS: [&str; 6] = [
    "no-touch-required",
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
];
/// The longest name of a user in a directory, in bytes.
const LONGEST_UPN: usize = 120;
/// The most audiences of a token.
const MOST_AUDIENCES: usize = 16;
/// The longest value of a critical option, in bytes.
const LONGEST_OPTION: usize = 1_024;

/// The form of a credential, with what stands in it beside what all forms have: holder, life, serial, key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Form {
    /// An X.509 certificate (RFC 5280): names, addresses and usage say the rest.
    #[default]
    Tls,
    /// An X.509 certificate that Windows takes for a smart card's: it bears the extended usage for that, and its user's name
    /// in the directory beside the URI (\[MS-PKCA\], section 3.1.5).
    Logon {
        /// `alice@corp.example.com`.
        upn: String,
    },
    /// An OpenSSH certificate; of a host where the usage is `server`, else of a user. Its serial is the low half of the
    /// authorisation's, its key id the holder's URI, and `public_key` is one line without a comment, as in `id_ed25519.pub`;
    /// its pin is SHA-256 of the key's blob (RFC 4253, section 6.6), and of an ECDSA P-256 key that of X.509.
    Ssh {
        /// The names of a host, or the accounts that a user may log in to.
        principals: Vec<String>,
        /// `force-command`, `source-address`, `verify-required`; of users only.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        critical_options: BTreeMap<String, String>,
        /// `permit-pty` and the like; of users only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        extensions: Vec<String>,
    },
    /// A token (RFC 7519) about the holder. `public_key` is what it is sealed to: the asker's, and certified by nobody.
    Jwt {
        /// The claim `iss`: where the key set is found.
        issuer: String,
        /// The claim `aud`.
        audience: Vec<String>,
    },
}

impl Form {
    /// The kind of key that signs it.
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Tls | Self::Logon { .. } => KeyKind::Tls,
            Self::Ssh { .. } => KeyKind::Ssh,
            Self::Jwt { .. } => KeyKind::Jwt,
        }
    }

    /// What is wrong with it, in words that follow "the"; whose it is, is for others to judge.
    ///
    /// # Errors
    /// What OpenSSH would misread, or a reader of tokens refuse.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Tls => Ok(()),
            Self::Logon { upn } if is_upn(upn) => Ok(()),
            Self::Logon { upn } => Err(format!(
                "text {:?} is no user's name in a directory, such as alice@corp.example.com",
                plain(upn)
            )),
            Self::Ssh {
                principals,
                critical_options,
                extensions,
            } => check_ssh(principals, critical_options, extensions),
            Self::Jwt { issuer, audience } => {
                if audience.is_empty() || audience.len() > MOST_AUDIENCES {
                    return Err(format!("token needs 1 to {MOST_AUDIENCES} audiences"));
                }
                match audience.iter().chain([issuer]).find(|text| !is_text(text)) {
                    Some(bad) => Err(format!(
                        "audience or issuer {:?} is not 1 to {LONGEST_TEXT} printable characters without spaces",
                        plain(bad)
                    )),
                    None => Ok(()),
                }
            }
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        *self == Self::Tls
    }
}

fn check_ssh(
    principals: &[String],
    critical_options: &BTreeMap<String, String>,
    extensions: &[String],
) -> Result<(), String> {
    if principals.is_empty() || principals.len() > MOST_PRINCIPALS {
        return Err(format!(
            "certificate needs 1 to {MOST_PRINCIPALS} principals: one without any is good for every account"
        ));
    }
    if let Some(bad) = principals.iter().find(|text| !is_principal(text)) {
        return Err(format!("text {:?} is no principal", plain(bad)));
    }
    let unknown = |known: &[&str], name: &String| !known.contains(&name.as_str());
    if let Some(bad) = critical_options
        .keys()
        .find(|name| unknown(&CRITICAL_OPTIONS, name))
    {
        let known = CRITICAL_OPTIONS.join(", ");
        return Err(format!(
            "text {:?} is no critical option; there are {known}",
            plain(bad)
        ));
    }
    if let Some(bad) = extensions.iter().find(|name| unknown(&EXTENSIONS, name)) {
        let known = EXTENSIONS.join(", ");
        return Err(format!(
            "text {:?} is no extension; there are {known}",
            plain(bad)
        ));
    }
    let is_value = |value: &String| value.len() <= LONGEST_OPTION && !value.chars().any(char::is_control);
    if !critical_options.values().all(is_value) {
        return Err(format!(
            "value of a critical option is longer than {LONGEST_OPTION} bytes, or holds control characters"
        ));
    }
    Ok(())
}

/// Printable, without spaces, and not too long.
pub fn is_text(text: &str) -> bool {
    (1..=LONGEST_TEXT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A user, an at sign and a domain, as Active Directory has it in `userPrincipalName`.
fn is_upn(text: &str) -> bool {
    let is_domain = |domain: &str| domain.parse::<Hostname>().is_ok();
    let parts = text.split_once('@');
    is_text(text)
        && text.len() <= LONGEST_UPN
        && parts.is_some_and(|(user, domain)| !user.is_empty() && is_domain(domain))
}

/// May it be a principal? ssh takes those of a host for patterns, and sshd those of a user for a list.
pub(crate) fn is_principal(text: &str) -> bool {
    is_text(text) && !text.contains(['*', '?', '!', ',', '"']) && !text.starts_with('-')
}
