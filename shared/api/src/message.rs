//! Commands as messages on the bus: their subjects, and what a body asks for.
//!
//! `carousel.v1.<cluster>.cmd.<sender>.<command>`, a request that is answered like the same command over HTTP. Who sends it
//! is told by the subject, and proven by the bus: a user may publish below its own name alone. A body is that of the HTTP
//! route; what stands in the path there is `name` here:
//!
//! ```text
//! carousel.v1.acme_cluster.cmd.user-deploy.nodes-exclude
//! {"id": "0198f3c2-77a1-7d01-9b1e-5c2f6a10e9d3", "name": "db-07", "reason": "CHG-4411"}
//! ```
//!
//! Commands that certify a key are not among them: its proof is checked at the door, where the key comes in.

use std::collections::BTreeMap;

use domain::{ClusterName, Code, CommandId, MemberId, NodeId, Order, Principal, Timestamp, UserName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    Problem,
    command::{
        AttestRequest, ConsumerRequest, PlainRequest, RevokeRequest, RotateRequest, TokenRequest, Wanted,
        WithdrawRequest, node_called,
    },
};

/// The header that carries the trace (W3C Trace Context).
pub const TRACE_HEADER: &str = "traceparent";

/// The command under which a gateway sends on the commands of its callers. The bus lets nobody else publish below the name
/// of a member.
pub const FORWARD: &str = "forward";

/// The commands that can be sent, by the names that events and metrics call them by.
pub const COMMANDS: [&str; 12] = [
    "rotate",
    "nodes-exclude",
    "nodes-include",
    "nodes-rm",
    "tokens-add",
    "tokens-rm",
    "users-rm",
    "consumers-add",
    "consumers-attest",
    "consumers-withdraw",
    "certificates-revoke",
    "clock-accept",
];

/// What every command subject of a cluster begins with, the last dot included.
pub fn command_prefix(cluster: &ClusterName) -> String {
    format!("carousel.v1.{}.cmd.", cluster.as_token())
}

/// The subject on which this principal sends a command.
pub fn command_subject(cluster: &ClusterName, sender: &Principal, command: &str) -> String {
    format!("{}{}.{command}", command_prefix(cluster), sender.holder_token())
}

/// Who sends on this subject, and which command; none where it is no subject of a person or program.
pub fn sender_of<'a>(cluster: &ClusterName, subject: &'a str) -> Option<(Principal, &'a str)> {
    let rest = subject.strip_prefix(&command_prefix(cluster))?;
    let (sender, command) = rest.split_once('.')?;
    let name: UserName = sender
        .strip_prefix("user-")?
        .replace('_', ".")
        .replace('U', "_")
        .parse()
        .ok()?;
    let sender_is_spelled_so = Principal::User(name.clone()).holder_token() == sender;
    sender_is_spelled_so.then_some((Principal::User(name), command))
}

/// The subject on which a gateway sends on what it was given at its door.
pub fn forward_subject(cluster: &ClusterName, gateway: MemberId) -> String {
    format!("{}{gateway}.{FORWARD}", command_prefix(cluster))
}

/// Which gateway sends on this subject; none where it is not for what gateways send on.
pub fn gateway_of(cluster: &ClusterName, subject: &str) -> Option<MemberId> {
    let rest = subject.strip_prefix(&command_prefix(cluster))?;
    let (gateway, command) = rest.split_once('.')?;
    (command == FORWARD).then(|| gateway.parse().ok())?
}

/// The subject on which the projectors of a cluster are asked: one of them answers, with what
/// [`Query::answer`](crate::queries::Query::answer) packs.
pub fn query_subject(cluster: &ClusterName) -> String {
    format!("carousel.v1.{}.qry", cluster.as_token())
}

/// What a gateway is asked: whom it has now, or has had since then. Asked so, one that has not run for long enough to be a judge of
/// that says no.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PresenceQuestion {
    /// Since when; none: whomever it knows of, for a list.
    pub since: Option<Timestamp>,
}

/// Who that is, and when each was last heard.
pub type PresenceAnswer = BTreeMap<NodeId, Timestamp>;

/// The subject on which one gateway is asked whom it sees: a [`PresenceQuestion`], answered by a [`PresenceAnswer`].
pub fn presence_subject(cluster: &ClusterName, gateway: MemberId) -> String {
    format!("carousel.v1.{}.seen.{gateway}", cluster.as_token())
}

/// What is known where a body is read: the state, as far as a name or the clock needs it.
pub struct Known<'a> {
    /// The node of this name or id.
    pub node: &'a dyn Fn(&str) -> Option<NodeId>,
    /// How far the clock is behind the log, in milliseconds.
    pub behind_ms: u64,
}

/// Reads the body of a command.
///
/// # Errors
/// `bad_request`, `token_invalid`, `node_unknown`: with what is wrong, and what to do.
pub fn read(command: &str, body: &[u8], known: &Known<'_>) -> Result<Wanted, Box<Problem>> {
    let mut body = Body::of(body)?;
    match command {
        "rotate" => {
            let request: RotateRequest = body.rest()?;
            let order = Order::Rotate(request.order());
            Ok(wanted(request.id, request.reason, order))
        }
        "nodes-exclude" => body.on_node(known, |node| Order::ExcludeNode { node }),
        "nodes-include" => body.on_node(known, |node| Order::IncludeNode { node }),
        "nodes-rm" => body.on_node(known, |node| Order::RemoveNode { node }),
        "tokens-add" => {
            let request: TokenRequest = body.rest()?;
            let (id, reason) = (request.id, request.reason.clone());
            Ok(wanted(id, reason, request.order()?))
        }
        "tokens-rm" => {
            let token = body.name()?;
            body.plain(Order::RemoveToken { token })
        }
        "users-rm" => {
            let user = body.name()?;
            body.plain(Order::RemoveUser { user })
        }
        "consumers-add" => {
            let request: ConsumerRequest = body.rest()?;
            let (id, reason) = (request.id, request.reason.clone());
            Ok(wanted(id, reason, request.order()?))
        }
        "consumers-attest" => {
            let consumer = body.name()?;
            let request: AttestRequest = body.rest()?;
            let (id, reason) = (request.id, request.reason.clone());
            Ok(wanted(id, reason, request.order(consumer)))
        }
        "consumers-withdraw" => {
            let consumer = body.name()?;
            let request: WithdrawRequest = body.rest()?;
            let order = request.order(consumer);
            Ok(wanted(request.id, request.reason, order))
        }
        "certificates-revoke" => {
            let request: RevokeRequest = body.rest()?;
            let target = request.target.resolve(known.node)?;
            Ok(wanted(
                request.id,
                request.reason,
                Order::RevokeCertificates { target },
            ))
        }
        "clock-accept" => {
            let behind_ms = known.behind_ms;
            body.plain(Order::AcceptClock { behind_ms })
        }
        _ => Err(bad(format!(
            "no command {:?} is taken here; those that are: {}. What certifies a key goes over HTTPS",
            command.chars().take(40).collect::<String>(),
            COMMANDS.join(", ")
        ))),
    }
}

/// A body, as far as it was read.
struct Body(Map<String, Value>);

impl Body {
    fn of(bytes: &[u8]) -> Result<Self, Box<Problem>> {
        if bytes.len() > crate::MAX_BODY_BYTES {
            let text = format!("a command has at most {} bytes", crate::MAX_BODY_BYTES);
            return Err(Box::new(Problem::new(Code::TooLarge, text)));
        }
        serde_json::from_slice(bytes).map(Self).map_err(unread)
    }

    /// What stands in the path over HTTP.
    fn name<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T, Box<Problem>> {
        let name: String = match self.0.remove("name") {
            Some(Value::String(name)) => name,
            _ => return Err(bad("the body says in `name`, as text, what it is about")),
        };
        name.parse().map_err(|error: T::Err| bad(error.to_string()))
    }

    fn rest<T: DeserializeOwned>(self) -> Result<T, Box<Problem>> {
        serde_json::from_value(Value::Object(self.0)).map_err(unread)
    }

    fn plain(self, order: Order) -> Result<Wanted, Box<Problem>> {
        let request: PlainRequest = self.rest()?;
        Ok(wanted(request.id, request.reason, order))
    }

    fn on_node(
        mut self,
        known: &Known<'_>,
        order: impl FnOnce(NodeId) -> Order,
    ) -> Result<Wanted, Box<Problem>> {
        let name: String = self.name()?;
        let node = node_called(known.node, &name)?;
        self.plain(order(node))
    }
}

fn wanted(id: CommandId, reason: Option<String>, order: Order) -> Wanted {
    Wanted { id, reason, order }
}

fn unread(error: serde_json::Error) -> Box<Problem> {
    bad(format!("the body cannot be read: {}", domain::plain(error)))
}

fn bad(text: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(Code::BadRequest, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_read_back_from_its_subject_and_nobody_else_is() {
        let cluster: ClusterName = "acme.cluster".parse().unwrap();
        for name in ["alice", "deploy.bot", "deploy_bot", "a-b.c_d"] {
            let sender = Principal::User(name.parse().unwrap());
            let subject = command_subject(&cluster, &sender, "rotate");
            assert_eq!(
                sender_of(&cluster, &subject),
                Some((sender, "rotate")),
                "{subject}"
            );
        }
        for subject in [
            "carousel.v1.acme_cluster.cmd.alice.rotate",
            "carousel.v1.acme_cluster.cmd.user-.rotate",
            "carousel.v1.acme_cluster.cmd.user-Alice.rotate",
            "carousel.v1.other_cluster.cmd.user-alice.rotate",
            "carousel.v1.acme_cluster.evt.user-alice.rotate",
            "carousel.v1.acme_cluster.cmd.user-alice",
        ] {
            assert_eq!(sender_of(&cluster, subject), None, "{subject}");
        }
    }

    #[test]
    fn every_command_that_is_named_is_read_and_a_body_says_what_it_is_about() {
        let known = Known {
            node: &|_| None,
            behind_ms: 7,
        };
        for command in COMMANDS {
            let refused = read(command, b"{}", &known).unwrap_err();
            assert!(
                !refused.detail.contains("no command"),
                "{command}: {}",
                refused.detail
            );
        }
        let id = "0198f3c2-77a1-7d01-9b1e-5c2f6a10e9d3";
        let accept = format!("{{\"id\": \"{id}\", \"reason\": \"looked\"}}");
        let wanted = read("clock-accept", accept.as_bytes(), &known).unwrap();
        assert_eq!(wanted.order, Order::AcceptClock { behind_ms: 7 });
        assert_eq!(wanted.reason.as_deref(), Some("looked"));
        let user = format!("{{\"id\": \"{id}\", \"name\": \"eve\", \"force\": true}}");
        let refused = read("users-rm", user.as_bytes(), &known).unwrap_err();
        assert!(refused.detail.contains("force"), "{}", refused.detail);
        let large = vec![b' '; crate::MAX_BODY_BYTES + 1];
        assert_eq!(read("rotate", &large, &known).unwrap_err().code, Code::TooLarge);
    }
}
