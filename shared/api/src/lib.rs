//! The HTTP contract: what travels between the gateway and its callers, and a client that knows no TLS.
//!
//! One place for both sides, so that a field cannot be spelled differently in the gateway, the agent and the
//! operator's tool. Nothing here decides anything: `domain` does, and these are its shapes on the wire.
//!
//! - [`problem`]: RFC 9457 problems with the refusal's code and, for a closed gate, who lags;
//! - [`join`], [`node`]: what agents say and hear;
//! - [`command`]: the bodies of state-changing requests and their answers;
//! - [`message`]: the same commands as messages on the bus;
//! - [`shape`], [`plan`], [`audit`]: what people read (contract, section 3);
//! - [`queries`]: what the gateway asks of the projector and the audit, in one process or over a bus;
//! - [`route`]: the paths, so that nobody writes one twice;
//! - [`client`]: requests and event streams over any [`client::Connect`].

pub mod audit;
pub mod client;
pub mod command;
pub mod join;
pub mod message;
pub mod node;
pub mod plan;
pub mod problem;
pub mod queries;
pub mod route;
pub mod shape;

pub use client::{Client, ClientError, Connect, ConnectError};
pub use problem::Problem;
pub use queries::{At, Audit, Queries, QueryError};

/// The largest request body in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// The response header that tells the control plane's version, so that a client can say "you are older".
pub const VERSION_HEADER: &str = "carousel-version";

/// The key of a member's heartbeat, a lease in the log's store: the gateway writes it every 5 s, the
/// orchestrator watches its revision.
pub fn member_lease(member: domain::MemberId) -> String {
    format!("member.{member}")
}
