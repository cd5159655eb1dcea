//! The paths of the API. Parts in braces are filled with [`fill`].

/// The signed trust bundle of a type; public.
pub const TRUST: &str = "/v1/trust/{type}";
/// The keys that verify a type's tokens; public.
pub const JWKS: &str = "/v1/jwks/{type}";
/// What an authority for TLS has signed and somebody revoked (RFC 5280, section 5), DER; public. The authority is named by
/// its pin.
pub const CRL: &str = "/v1/crl/{authority}";
/// The SPIFFE trust domain's bundle; public.
pub const SPIFFE_BUNDLE: &str = "/v1/spiffe/bundle";
/// Joining with a token; public.
pub const JOIN: &str = "/v1/join";
/// Coming back with the key of an old certificate; public.
pub const RECOVER: &str = "/v1/recover";
/// A node's event stream.
pub const NODE_STREAM: &str = "/v1/node/stream";
/// A node's desired state, once.
pub const NODE_DESIRED: &str = "/v1/node/desired";
/// A node's request for a certificate of its own.
pub const NODE_CERTIFICATES: &str = "/v1/node/certificates";
/// A node's facts.
pub const NODE_FACTS: &str = "/v1/node/facts";
/// The cluster's status.
pub const STATUS: &str = "/v1/status";
/// All nodes.
pub const NODES: &str = "/v1/nodes";
/// All authorities.
pub const AUTHORITIES: &str = "/v1/authorities";
/// All rotations, newest first.
pub const ROTATIONS: &str = "/v1/rotations";
/// All join tokens.
pub const TOKENS: &str = "/v1/tokens";
/// All certificates that still matter.
pub const CERTIFICATES: &str = "/v1/certificates";
/// All operators.
pub const USERS: &str = "/v1/users";
/// All external consumers.
pub const CONSUMERS: &str = "/v1/consumers";
/// Says for an external consumer that it has done what the current phase asks of it.
pub const CONSUMER_ATTEST: &str = "/v1/consumers/{name}/attest";
/// Looks at an external consumer, and attests for it if that proves it.
pub const CONSUMER_PROBE: &str = "/v1/consumers/{name}/probe";
/// Withdraws one.
pub const CONSUMER_WITHDRAW: &str = "/v1/consumers/{name}/withdraw";
/// A certificate for a party without an agent.
pub const SIGN: &str = "/v1/sign";
/// A token for an application.
pub const SIGN_TOKEN: &str = "/v1/sign/token";
/// Makes certificates count no more.
pub const CERTIFICATES_REVOKE: &str = "/v1/certificates/revoke";
/// A person's own SSH certificate.
pub const USER_SSH: &str = "/v1/users/self/ssh";
/// What OpenID Connect readers ask first (OpenID Connect Discovery 1.0, section 4); public.
pub const OIDC_DISCOVERY: &str = "/v1/oidc/{type}/.well-known/openid-configuration";
/// What the next steps of a type would do.
pub const PLAN: &str = "/v1/plan/{type}";
/// Who the caller is to the control plane.
pub const WHOAMI: &str = "/v1/whoami";
/// Preflight and health in one.
pub const CHECK: &str = "/v1/check";
/// A phase command.
pub const ROTATE: &str = "/v1/rotate";
/// Takes a node out of the rotations in progress.
pub const NODE_EXCLUDE: &str = "/v1/nodes/{name}/exclude";
/// Takes it in again.
pub const NODE_INCLUDE: &str = "/v1/nodes/{name}/include";
/// Removes it for good.
pub const NODE_REMOVE: &str = "/v1/nodes/{name}/remove";
/// Removes a join token.
pub const TOKEN_REMOVE: &str = "/v1/tokens/{id}/remove";
/// Removes an operator.
pub const USER_REMOVE: &str = "/v1/users/{name}/remove";
/// A person's own next certificate.
pub const USER_RENEW: &str = "/v1/users/self/certificate";
/// Accepts the clock after it was suspect.
pub const CLOCK_ACCEPT: &str = "/v1/clock/accept";
/// Dials a node and says what it serves.
pub const PROBE: &str = "/v1/probe/{node}";
/// Follows a type's phase until everybody has reached it.
pub const WATCH: &str = "/v1/watch/{type}";
/// Stored events, a page at a time.
pub const EVENTS: &str = "/v1/events";
/// Stored events as they come.
pub const EVENTS_FOLLOW: &str = "/v1/events/follow";
/// The state at an earlier moment, from the log alone.
pub const AUDIT_REPLAY: &str = "/v1/audit/replay";
/// What changed between two moments.
pub const AUDIT_DIFF: &str = "/v1/audit/diff";
/// One event by itself: decided again, and what its actor was then.
pub const AUDIT_EVENT: &str = "/v1/audit/events/{position}";
/// Re-reads the log and checks it.
pub const AUDIT_VERIFY: &str = "/v1/audit/verify";

/// Fills the one part in braces of a path; the value is percent-encoded.
///
/// ```
/// assert_eq!(api::route::fill(api::route::TRUST, "host"), "/v1/trust/host");
/// ```
pub fn fill(path: &str, value: &str) -> String {
    let (Some(open), Some(close)) = (path.find('{'), path.find('}')) else {
        return path.to_owned();
    };
    format!("{}{}{}", &path[..open], encode(value), &path[close + 1..])
}

/// Percent-encodes everything but RFC 3986's unreserved characters, for one path segment or query value.
pub fn encode(value: &str) -> String {
    use std::fmt::Write;
    value
        .bytes()
        .fold(String::with_capacity(value.len()), |mut out, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
                _ => write!(out, "%{byte:02X}").expect("a string takes everything"),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_leave_its_segment() {
        assert_eq!(fill(NODE_REMOVE, "../x?y#z"), "/v1/nodes/..%2Fx%3Fy%23z/remove");
        assert_eq!(fill(STATUS, "ignored"), STATUS);
    }
}
