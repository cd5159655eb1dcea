//! Where a name leads, and what of that a gateway dials.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};

/// How long a name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);
/// How many of a name's addresses are tried.
const TRIES: usize = 4;

/// Where the address leads, looked up once: what is judged here is what is dialled. A granted name is somebody
/// else's to point anywhere, also at what only this machine can reach.
pub(crate) async fn places(addr: &str, allow_loopback: bool) -> Result<Vec<SocketAddr>, String> {
    let found = match timeout(LOOKUP, lookup_host(addr)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("{addr} cannot be looked up: {error}")),
        Err(_) => return Err(format!("{addr} was not looked up within {} s", LOOKUP.as_secs())),
    };
    let places: Vec<_> = found
        .filter(|place| may_be_dialled(place.ip(), allow_loopback))
        .take(TRIES)
        .collect();
    if places.is_empty() {
        return Err(format!("{addr} leads to no address that a gateway dials"));
    }
    Ok(places)
}

/// Nobody is there: these are this machine, this link, or many machines at once.
fn may_be_dialled(ip: IpAddr, allow_loopback: bool) -> bool {
    let ip = ip.to_canonical();
    let is_nowhere = match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    !is_nowhere && !ip.is_multicast() && (allow_loopback || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_may_be_somebodys_address_is_dialled_wherever_a_name_leads() {
        for nowhere in [
            "169.254.169.254:80",
            "0.0.0.0:3025",
            "0.1.2.3:3025",
            "255.255.255.255:3025",
            "224.0.0.1:3025",
            "[::]:3025",
            "[fe80::1]:3025",
            "[ff02::1]:3025",
            "[::ffff:169.254.169.254]:80",
        ] {
            places(nowhere, true).await.expect_err(nowhere);
        }
        for own in [
            "127.0.0.1:3025",
            "[::1]:3025",
            "[::ffff:127.0.0.1]:3025",
            "localhost:3025",
        ] {
            places(own, false).await.expect_err(own);
            assert!(!places(own, true).await.unwrap().is_empty(), "{own}");
        }
        for somewhere in ["10.0.0.5:3025", "192.0.2.7:3025", "[2001:db8::7]:3025"] {
            assert_eq!(places(somewhere, false).await.unwrap().len(), 1, "{somewhere}");
        }
    }
}
