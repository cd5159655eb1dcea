//! The address of a control plane as people write it.

use std::{fmt, str::FromStr};

/// The port when none is given.
const DEFAULT_PORT: u16 = 3025;

/// `https://HOST:PORT`, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerUrl {
    host: String,
    port: u16,
}

/// Why a text is no such address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a control plane's address; write https://HOST:PORT")]
pub struct InvalidServer(pub String);

impl ServerUrl {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidServer;
    /// `https://` may be left out, and the port; a path may not follow.
    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let invalid = || InvalidServer(text.chars().take(120).collect());
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(invalid()),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match (rest.rfind(':'), rest.rfind(']')) {
            (Some(colon), bracket) if bracket.is_none_or(|b| b < colon) => {
                let port = rest[colon + 1..].parse().map_err(|_| invalid())?;
                (&rest[..colon], port)
            }
            _ => (rest, DEFAULT_PORT),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_host = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            }
        };
        if is_host && port != 0 {
            Ok(Self {
                host: host.into(),
                port,
            })
        } else {
            Err(invalid())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_scheme_and_port() {
        for (text, authority) in [
            ("https://cp.acme:4000", "cp.acme:4000"),
            ("https://cp.acme/", "cp.acme:3025"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("https://[::1]:9", "[::1]:9"),
            ("https://[::1]", "[::1]:3025"),
        ] {
            assert_eq!(
                text.parse::<ServerUrl>().unwrap().authority(),
                authority,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "http://x",
            "https://",
            "a/b",
            "x:0",
            "x:99999",
            "::1",
            "https://user@x",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }
}
