//! Where a PKCS#11 token is (RFC 7512): `pkcs11:token=NAME?module-path=FILE&pin-source=file:FILE`, and for one key in it
//! `;object=LABEL` behind the name.

use std::{fmt, path::PathBuf, str::FromStr};

use domain::plain;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// A token, the library that speaks with it, and where its PIN is. Nothing in it is a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenUri {
    text: String,
    /// The token's label.
    pub token: String,
    /// Its serial number, where several bear the label.
    pub serial: Option<String>,
    /// The label of a key in it.
    pub object: Option<String>,
    /// The library of its vendor.
    pub module: PathBuf,
    /// A file that only its owner can read, with the user's PIN.
    pub pin: PathBuf,
}

/// Why a text names no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenUriError {
    /// It is none, or something is missing in it.
    #[error(
        "this names no PKCS#11 token ({0}); write pkcs11:token=NAME?module-path=/FULL/PATH.so&pin-source=file:/FULL/PATH"
    )]
    Malformed(String),
    /// It holds the PIN.
    #[error(
        "a PIN in the URI would stand in process lists and files; write it into a file that only its owner can read, and \
         name that by pin-source=file:/FULL/PATH"
    )]
    Pin,
}

impl FromStr for TokenUri {
    type Err = TokenUriError;

    fn from_str(text: &str) -> Result<Self, TokenUriError> {
        let bad = |why: String| TokenUriError::Malformed(plain(why));
        // First of all, so that no error below shows one.
        if text.contains("pin-value") {
            return Err(TokenUriError::Pin);
        }
        let rest = text
            .strip_prefix("pkcs11:")
            .ok_or_else(|| bad("it does not begin with pkcs11:".into()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let attributes = path
            .split(';')
            .chain(query.split('&'))
            .filter(|one| !one.is_empty());
        let (mut token, mut serial, mut object, mut module, mut pin) = (None, None, None, None, None);
        for attribute in attributes {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| bad("an attribute has no value".into()))?;
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| bad(format!("{name} is no text")))?;
            let place = match name {
                "token" => &mut token,
                "serial" => &mut serial,
                "object" => &mut object,
                "module-path" => &mut module,
                "pin-source" => &mut pin,
                other => return Err(bad(format!("{other} is not understood here"))),
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(bad(format!("{name} is there twice")));
            }
        }
        let file = |text: Option<String>, name: &str| match text {
            None => Err(bad(format!("{name} is missing"))),
            Some(text) => {
                let path = PathBuf::from(text.strip_prefix("file:").unwrap_or(&text));
                path.is_absolute()
                    .then_some(path)
                    .ok_or_else(|| bad(format!("{name} is no absolute path")))
            }
        };
        Ok(Self {
            text: text.to_owned(),
            token: token
                .filter(|label| !label.is_empty())
                .ok_or_else(|| bad("token is missing".into()))?,
            serial,
            object: object.filter(|label| !label.is_empty()),
            module: file(module, "module-path")?,
            pin: file(pin, "pin-source")?,
        })
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for TokenUri {
    type Error = TokenUriError;
    fn try_from(text: String) -> Result<Self, TokenUriError> {
        text.parse()
    }
}

impl From<TokenUri> for String {
    fn from(uri: TokenUri) -> Self {
        uri.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_its_label_its_module_and_the_file_with_its_pin() {
        let text = "pkcs11:token=My%20CA;serial=7?module-path=/usr/lib/p11.so&pin-source=file:/run/pin";
        let uri: TokenUri = text.parse().unwrap();
        assert_eq!((&*uri.token, uri.serial.as_deref()), ("My CA", Some("7")));
        assert_eq!(
            (uri.module.to_str(), uri.pin.to_str()),
            (Some("/usr/lib/p11.so"), Some("/run/pin"))
        );
        assert_eq!(uri.to_string(), text);
    }

    #[test]
    fn a_key_in_a_token_can_be_named_where_one_is_used_and_not_where_new_ones_are_made() {
        let text = "pkcs11:token=a;object=our%20kek?module-path=/m&pin-source=/p";
        let uri: TokenUri = text.parse().unwrap();
        assert_eq!(uri.object.as_deref(), Some("our kek"));
        let refused = text.parse::<crate::KeyPlace>().unwrap_err().to_string();
        assert!(refused.contains("object is not understood here"), "{refused}");
    }

    #[test]
    fn what_names_no_token_is_refused_in_words_and_no_pin_is_shown() {
        for (text, words) in [
            ("", "does not begin"),
            ("file:/x", "does not begin"),
            ("pkcs11:token=a", "module-path is missing"),
            ("pkcs11:?module-path=/m&pin-source=/p", "token is missing"),
            (
                "pkcs11:token=a?module-path=m.so&pin-source=/p",
                "module-path is no absolute path",
            ),
            (
                "pkcs11:token=a?module-path=/m&pin-source=|/bin/pin",
                "pin-source is no absolute path",
            ),
            (
                "pkcs11:token=a;token=b?module-path=/m&pin-source=/p",
                "token is there twice",
            ),
            (
                "pkcs11:token=a;manufacturer=k?module-path=/m&pin-source=/p",
                "manufacturer is not understood",
            ),
            ("pkcs11:token?module-path=/m&pin-source=/p", "no value"),
            ("pkcs11:token=a?module-path=/m&pin-value=1234", "process lists"),
        ] {
            let error = text.parse::<TokenUri>().unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("1234"), "{error}");
        }
    }
}
