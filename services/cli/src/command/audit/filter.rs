//! Which events `audit ls` and `follow` show: judged by what they say, never by the letters they are written with.

use std::collections::BTreeSet;

use domain::{AuthorityType, Event, Fact, Timestamp};
use serde_json::Value;

use crate::{
    args::AuditFilter,
    failure::Failure,
    run::Context,
    screen::describe::{Names, who},
};

/// The filter, made ready.
pub(super) struct Wanted {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) names: Names,
    /// The names and ids of the node that is asked for.
    node: Option<Node>,
    args: AuditFilter,
}

/// A node by everything that an event may call it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Node(BTreeSet<String>);

impl Node {
    /// The node of this name, or with this id, among those that are there.
    pub(super) fn find(wanted: &str, names: &Names) -> Option<Self> {
        let is_it = |(id, name): &(&domain::NodeId, &String)| **name == wanted || id.to_string() == wanted;
        Self::of(names.iter().filter(is_it).map(|(id, name)| (*id, name.as_str())))
    }

    /// The same among all that have ever joined: a node that was removed stays in the log.
    pub(super) fn joined<'a>(wanted: &str, events: impl IntoIterator<Item = &'a Event>) -> Option<Self> {
        let joined = events.into_iter().filter_map(|event| match &event.fact {
            Fact::NodeJoined(f) => Some((f.node, f.hostname.as_str())),
            Fact::NodeRejoined(f) => Some((f.node, f.hostname.as_str())),
            _ => None,
        });
        Self::of(joined.filter(|(id, name)| *name == wanted || id.to_string() == wanted))
    }

    fn of<'a>(found: impl Iterator<Item = (domain::NodeId, &'a str)>) -> Option<Self> {
        let words: BTreeSet<String> = found
            .flat_map(|(id, name)| [id.to_string(), format!("node/{id}"), name.to_owned()])
            .collect();
        (!words.is_empty()).then_some(Self(words))
    }

    /// Does the event speak of it, by its author or anywhere in its data?
    fn is_in(&self, event: &Event, data: &Value) -> bool {
        self.0.contains(&event.header.actor.to_string()) || self.is_said(data)
    }

    fn is_said(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.0.contains(text),
            Value::Array(items) => items.iter().any(|item| self.is_said(item)),
            Value::Object(fields) => fields.values().any(|field| self.is_said(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

/// Is the event about this authority?
fn is_about(wanted: AuthorityType, event: &Event, data: &Value) -> bool {
    let is_type = |value: &Value| value.get("type").and_then(Value::as_str) == Some(wanted.name());
    match &event.fact {
        Fact::NodeExcluded(f) => f.rotations.contains_key(&wanted),
        Fact::NodeIncluded(f) => f.rotations.contains_key(&wanted),
        // A refusal names the one thing that was asked for; the rest of the order stands one deeper.
        Fact::CommandRefused(f) => f.target.as_deref() == Some(wanted.name()) || is_ordered(wanted, data),
        Fact::CommandNoop(_) => is_ordered(wanted, data),
        _ => is_type(data),
    }
}

/// Does the order in the data name the authority?
fn is_ordered(wanted: AuthorityType, data: &Value) -> bool {
    let order = data.get("order").and_then(Value::as_object);
    let mut fields = order.into_iter().flat_map(|order| order.values());
    fields.any(|of| of.get("authority_type").and_then(Value::as_str) == Some(wanted.name()))
}

impl Wanted {
    pub(super) fn new(
        context: &Context,
        args: &AuditFilter,
        names: Names,
        node: Option<Node>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            since: args
                .since
                .as_deref()
                .map(|text| time(context, text))
                .transpose()?,
            until: args
                .until
                .as_deref()
                .map(|text| time(context, text))
                .transpose()?,
            names,
            node,
            args: args.clone(),
        })
    }

    /// Does the event pass? Times are not looked at: those are found by search.
    pub(super) fn passes(&self, event: &Event, raw: &str) -> bool {
        let actor = |wanted: &String| {
            let principal = event.header.actor.to_string();
            principal == *wanted || who(&event.header.actor, &self.names) == *wanted
        };
        let of_type = |wanted: &String| {
            let name = event.fact.type_name();
            let short = name.strip_prefix("carousel.").unwrap_or(name);
            let bare = short.rsplit_once('.').map_or(short, |(bare, _)| bare);
            name == wanted || short == wanted || bare == wanted || event.fact.family() == wanted
        };
        let data = || {
            let whole: Option<Value> = serde_json::from_str(raw).ok();
            whole.and_then(|mut event| event.get_mut("data").map(Value::take))
        };
        let data = if self.node.is_some() || self.args.ca.is_some() {
            data().unwrap_or_default()
        } else {
            Value::Null
        };
        self.args.actor.as_ref().is_none_or(actor)
            && self.args.event_type.as_ref().is_none_or(of_type)
            && self.node.as_ref().is_none_or(|node| node.is_in(event, &data))
            && self.args.ca.is_none_or(|wanted| is_about(wanted, event, &data))
            && self
                .args
                .rotation
                .as_ref()
                .is_none_or(|id| raw.contains(&id.to_string()))
    }

    /// Does the wanted time end before this moment? Then nothing more can come.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now > until)
    }

    /// Are events left out beside those before and after a time?
    pub(super) fn is_all(&self) -> bool {
        self.args.all
    }
}

fn time(context: &Context, text: &str) -> Result<Timestamp, Failure> {
    let moment = context.moment(text)?;
    moment.parse().map_err(|_| {
        Failure::usage(format!(
            "{text:?} is a position; give a time, or so long ago (30m)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use domain::{
        EventId, Header, NodeId, Phase, Position, Principal, RotationId,
        command::{LaggingPolicy, Mode},
        event::{CommandRefused, GateRecord, NodeExcluded, RotationPhaseEntered},
    };
    use uuid::Uuid;

    use super::*;

    fn event(fact: impl Into<Fact>) -> (Event, Value) {
        let event = Event {
            header: Header {
                position: Position(1),
                id: EventId(Uuid::nil()),
                time: Timestamp(0),
                actor: Principal::User("alice".parse().unwrap()),
                credential: None,
                command: None,
                reason: None,
                decided_at: None,
            },
            fact: fact.into(),
        };
        let data = match &event.fact {
            Fact::NodeExcluded(f) => serde_json::to_value(f).unwrap(),
            Fact::RotationPhaseEntered(f) => serde_json::to_value(f).unwrap(),
            _ => Value::Null,
        };
        (event, data)
    }

    fn forced(passed_over: &str) -> RotationPhaseEntered {
        RotationPhaseEntered {
            authority_type: AuthorityType::Host,
            rotation: RotationId(Uuid::nil()),
            from: Phase::Init,
            to: Phase::UpdateClients,
            outcome: None,
            mode: Mode::Manual,
            grace_period_ms: 1,
            on_lagging: LaggingPolicy::Hold,
            gate: GateRecord::default(),
            forced: true,
            passed_over: vec![passed_over.into()],
            passed_over_digest: None,
        }
    }

    #[test]
    fn a_node_is_found_by_every_word_for_it_and_by_no_part_of_one() {
        let id = NodeId(Uuid::from_u128(7));
        let names = Names::from([
            (id, "db-07".into()),
            (NodeId(Uuid::from_u128(8)), "db-077".into()),
        ]);
        assert_eq!(Node::find("db", &names), None, "no node has that name");
        let node = Node::find("db-07", &names).unwrap();
        assert_eq!(Node::find(&id.to_string(), &names), Some(node.clone()));
        let (step, data) = event(forced("db-07"));
        assert!(node.is_in(&step, &data), "a step over it is about it");
        let (other, data) = event(forced("db-077"));
        assert!(!node.is_in(&other, &data));
        let (mut by_it, _) = event(forced("db-077"));
        by_it.header.actor = Principal::Node(id);
        assert!(node.is_in(&by_it, &Value::Null));
    }

    #[test]
    fn a_refused_step_is_about_the_authority_that_it_was_for() {
        let refused = CommandRefused {
            principal: Principal::User("alice".parse().unwrap()),
            command: "rotate".into(),
            target: Some("host".into()),
            code: domain::Code::NodesLagging,
            text: "1 of 3".into(),
            count: 2,
            order: None,
        };
        let (event, data) = event(refused);
        assert!(is_about(AuthorityType::Host, &event, &data));
        assert!(!is_about(AuthorityType::User, &event, &data));
        let data =
            serde_json::json!({ "order": { "rotate": { "authority_type": "user", "target": "init" } } });
        assert!(is_ordered(AuthorityType::User, &data));
        assert!(!is_ordered(AuthorityType::Host, &data));
    }

    #[test]
    fn what_excludes_a_node_is_about_the_authority_whose_rotation_it_leaves() {
        let excluded = NodeExcluded {
            node: NodeId(Uuid::from_u128(7)),
            rotations: [(AuthorityType::Host, RotationId(Uuid::nil()))].into(),
        };
        let (event, data) = event(excluded);
        assert!(is_about(AuthorityType::Host, &event, &data));
        assert!(!is_about(AuthorityType::User, &event, &data));
    }
}
