//! The address that an administrator registers for a probe.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    authority::{AuthorityType, KeyKind},
    id::{Hostname, InvalidId, text_serde},
};

/// The longest address, in bytes.
const LONGEST: usize = 300;
const EXPECTED: &str = "an address to probe: tls://HOST:PORT, ssh://HOST:PORT or http://HOST[:PORT]/PATH";

/// What stands at an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// A TLS server.
    Tls,
    /// sshd.
    Ssh,
    /// A reader of the key set that says over plain HTTP which keys it holds.
    Http,
}

/// Where a consumer can be looked at: `tls://HOST:PORT`, `ssh://HOST:PORT` or `http://HOST[:PORT]/PATH`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeAddress {
    scheme: Scheme,
    host: Host,
    port: u16,
    /// With its query; `/` at least for HTTP, else empty.
    path: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    Name(Hostname),
    Address(IpAddr),
}

impl ProbeAddress {
    /// What stands there.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.to_string(),
            Host::Address(ip) => ip.to_string(),
        }
    }

    /// `HOST:PORT`, as it is dialled.
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Name(name) => format!("{name}:{}", self.port),
            Host::Address(IpAddr::V4(ip)) => format!("{ip}:{}", self.port),
            Host::Address(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
        }
    }

    /// The path with its query, for HTTP.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Can anything of this type be seen at such an address? Of SSH only what hosts present: whom sshd lets in by
    /// certificate it tells nobody.
    pub fn fits(&self, authority_type: AuthorityType) -> bool {
        match self.scheme {
            Scheme::Tls => authority_type.has(KeyKind::Tls),
            Scheme::Ssh => authority_type == AuthorityType::Host,
            Scheme::Http => authority_type.has(KeyKind::Jwt),
        }
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for ProbeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }
}

impl fmt::Debug for ProbeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ProbeAddress {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        read(s).ok_or_else(|| InvalidId::new(s, EXPECTED))
    }
}

fn read(text: &str) -> Option<ProbeAddress> {
    // What is printed is what is dialled: no escapes that hide, nothing that a terminal would obey, nobody's name or
    // password, and no part that never reaches the other side.
    let is_plain = text.len() <= LONGEST && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_plain || text.contains(['@', '#', '\\', '"', '<', '>', '`', '\'']) {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let scheme = match scheme {
        "tls" => Scheme::Tls,
        "ssh" => Scheme::Ssh,
        "http" => Scheme::Http,
        _ => return None,
    };
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = match scheme {
        Scheme::Http if path.is_empty() => "/",
        Scheme::Http if path.starts_with('/') => path,
        Scheme::Http => return None,
        Scheme::Tls | Scheme::Ssh if path.is_empty() => path,
        Scheme::Tls | Scheme::Ssh => return None,
    };
    let (host, port) = host_and_port(authority, scheme)?;
    Some(ProbeAddress {
        scheme,
        host,
        port,
        path: path.to_owned(),
    })
}

fn host_and_port(authority: &str, scheme: Scheme) -> Option<(Host, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            let ip: Ipv6Addr = ip.parse().ok()?;
            (Host::Address(IpAddr::V6(ip)), port)
        }
        None => {
            let at = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at(at);
            (named(host)?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        // Nothing but digits: a sign would be read as one too.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None if port.is_empty() && scheme == Scheme::Http => 80,
        None => return None,
    };
    (port != 0).then_some((host, port))
}

fn named(host: &str) -> Option<Host> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some(Host::Address(IpAddr::V4(ip)));
    }
    // `1.2.3`, `0x7f.1` and the like are addresses to some resolvers.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    host.parse().ok().map(Host::Name)
}

text_serde! { ProbeAddress: "^(tls|ssh|http)://[!-~]+$"; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_one_host_and_port_and_is_written_as_it_was_read() {
        for (given, written) in [
            ("tls://pg.example.com:5432", "tls://pg.example.com:5432"),
            ("tls://192.0.2.7:443", "tls://192.0.2.7:443"),
            ("ssh://[2001:db8::7]:22", "ssh://[2001:db8::7]:22"),
            (
                "http://127.0.0.1:8080/keys?all=1",
                "http://127.0.0.1:8080/keys?all=1",
            ),
            ("http://reader.example", "http://reader.example:80/"),
        ] {
            let address: ProbeAddress = given.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<ProbeAddress>().unwrap(), address);
        }
    }

    #[test]
    fn what_hides_where_it_leads_or_forges_a_line_is_no_address() {
        let long = format!("http://reader.example/{}", "a".repeat(LONGEST));
        for bad in [
            "",
            "pg.example.com:5432",
            "https://reader.example/keys",
            "file:///etc/passwd",
            "tls://pg.example.com",
            "tls://pg.example.com:0",
            "tls://pg.example.com:65536",
            "tls://pg.example.com:+443",
            "tls://pg.example.com:5432/",
            "tls://user:pw@pg.example.com:5432",
            "http://reader.example/keys#part",
            "http://reader.example?x",
            "http://reader.example/a b",
            "http://reader.example/\u{1b}[31m",
            "http://reader.example/\r\nHost: x",
            "ssh://[::1:22",
            "ssh://::1:22",
            "ssh://-oProxyCommand=x:22",
            "tls://0x7f.1:443",
            "tls://1.2.3:443",
            "tls://:443",
            &long,
        ] {
            assert!(bad.parse::<ProbeAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_what_a_type_shows_there_is_looked_for() {
        use AuthorityType::{Db, Host, Jwt, Openssh, Spiffe, User};
        let fits = |address: &str| -> Vec<AuthorityType> {
            let address: ProbeAddress = address.parse().unwrap();
            [Host, User, Db, Openssh, Jwt, Spiffe]
                .into_iter()
                .filter(|t| address.fits(*t))
                .collect()
        };
        assert_eq!(fits("tls://a:1"), [Host, User, Db, Spiffe]);
        assert_eq!(fits("ssh://a:1"), [Host]);
        assert_eq!(fits("http://a/"), [Jwt, Spiffe]);
    }
}
