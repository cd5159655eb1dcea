//! Every decision of these tests is decided again from its facts; and facts that nobody decided are found.

use domain::{
    access::Uses,
    authority::AuthorityType,
    command::{Command, Given, Order},
    decide::{
        Decision,
        again::{Difference, again},
    },
    event::{
        AccessUserRemoved, AuthorityRetired, CertificateRevoked, CommandRef, CommandRefused, Event, Fact,
        Header, LeafUse, NodeReported, RotationOutcome,
    },
    id::*,
    refusal::{Code, Refusal},
};
use uuid::Uuid;

use crate::world::*;

impl World {
    /// What was decided here is decided again from its facts alone, and a refusal from what the log says of it.
    pub(crate) fn decide_again(&self, command: &Command, given: &Given, decided: &Result<Decision, Refusal>) {
        let facts = match decided {
            Ok(decision) => decision.facts.clone(),
            Err(refusal) => vec![refused(command, refusal.code)],
        };
        let mut events = self.as_one(
            &command.principal,
            facts,
            command.order.is_command().then_some(command.id),
        );
        for event in &mut events {
            event.header.reason.clone_from(&command.reason);
        }
        let again = again(&self.state, &events, given.sha256);
        assert_eq!(again, Ok(events.len()), "{}", command.order.name());
    }

    /// Facts as they would stand in the log, decided on the state as it is.
    fn as_one(&self, actor: &Principal, facts: Vec<Fact>, command: Option<CommandId>) -> Vec<Event> {
        let digest = BodyDigest([1; 32]);
        let place = |n: u64| Header {
            position: Position(self.state.position.0 + n),
            id: EventId(Uuid::nil()),
            time: self.now,
            actor: actor.clone(),
            credential: self.shown.map(domain::Credential::Certificate),
            command: command.map(|id| CommandRef { id, digest }),
            reason: Some("a test".into()),
            decided_at: Some(self.state.position),
        };
        let events = (1..).zip(facts).map(|(n, fact)| Event {
            header: place(n),
            fact,
        });
        events.collect()
    }

    /// What is found about forged facts of a command.
    fn judged(&mut self, actor: Principal, facts: Vec<Fact>) -> Result<usize, Difference> {
        let id = CommandId(self.uuid());
        again(&self.state, &self.as_one(&actor, facts, Some(id)), |_| [0; 32])
    }

    /// What is found about forged facts that no command led to.
    fn judged_alone(&self, actor: Principal, fact: impl Into<Fact>) -> Result<usize, Difference> {
        again(&self.state, &self.as_one(&actor, vec![fact.into()], None), |_| {
            [0; 32]
        })
    }

    /// The facts of a join that would be right just now.
    fn join_facts(&mut self) -> Vec<Fact> {
        let (token, key) = (self.token(&["db-9"], 1), self.key());
        let mut ahead = self.copy();
        let order = Self::join_order(token, "db-9", key, None);
        ahead.decide(Principal::Anonymous, order).unwrap().facts
    }

    /// The facts of a node's request that would be right just now.
    fn renewal(&mut self, node: NodeId) -> Vec<Fact> {
        let mut ahead = self.copy();
        ahead.request(node, LeafUse::Client, None).unwrap();
        vec![ahead.last_granted().into()]
    }
}

fn refused(command: &Command, code: Code) -> Fact {
    let fact = CommandRefused {
        principal: command.principal.clone(),
        command: command.order.name().into(),
        target: command.order.target(),
        code,
        text: "in the words of another version".into(),
        count: 1,
        order: Some(Box::new(command.order.clone())),
    };
    fact.into()
}

fn signer() -> Principal {
    Principal::System(SystemActor::Signer)
}

fn code(found: Result<usize, Difference>) -> Code {
    match found {
        Err(Difference::Refused(refusal)) => refusal.code,
        other => panic!("refused, not {other:?}"),
    }
}

#[test]
fn a_join_with_more_than_its_token_granted_was_not_decided() {
    let mut world = World::new();
    let honest = world.join_facts();
    assert_eq!(world.judged(Principal::Anonymous, honest.clone()), Ok(3));
    let mut wider = honest.clone();
    if let Fact::NodeJoined(f) = &mut wider[1] {
        f.grant.uses.insert(AuthorityType::Db, Uses::ALL);
    }
    let found = world.judged(Principal::Anonymous, wider);
    assert!(
        matches!(found, Err(Difference::Fact { at, .. }) if at.0 == world.state.position.0 + 2),
        "{found:?}"
    );
    let mut renamed = honest.clone();
    if let Fact::AccessTokenUsed(f) = &mut renamed[0] {
        f.hostname = "web-1".parse().unwrap();
    }
    assert_eq!(
        code(world.judged(Principal::Anonymous, renamed)),
        Code::NameNotGranted
    );
    let mut invented = honest.clone();
    if let Fact::AccessTokenUsed(f) = &mut invented[0] {
        f.token = TokenId(Uuid::nil());
    }
    assert_eq!(
        code(world.judged(Principal::Anonymous, invented)),
        Code::TokenUnknown
    );
}

#[test]
fn a_part_of_an_append_was_not_decided() {
    let mut world = World::new();
    let honest = world.join_facts();
    for cut in [&honest[..1], &honest[..2]] {
        let found = world.judged(Principal::Anonymous, cut.to_vec());
        assert!(matches!(found, Err(Difference::Incomplete(_))), "{found:?}");
    }
    let found = world.judged(Principal::Anonymous, honest[1..].to_vec());
    assert!(
        matches!(found, Err(Difference::NoOrder(_))),
        "a node out of nothing"
    );
    let found = world.judged(Principal::Anonymous, honest[2..].to_vec());
    assert!(
        matches!(found, Err(Difference::NoOrder(_))),
        "an authorisation of no join"
    );
}

#[test]
fn an_authorisation_for_another_name_or_of_another_asker_was_not_decided() {
    let mut world = World::new();
    let (node, other) = (world.node("db-1"), world.node("db-2"));
    let honest = world.renewal(node);
    assert_eq!(world.judged(Principal::Node(node), honest.clone()), Ok(1));
    let mut named = honest.clone();
    if let Fact::AuthorizationGranted(f) = &mut named[0] {
        f.names.push("db-2".parse().unwrap());
    }
    let found = world.judged(Principal::Node(node), named);
    assert!(matches!(found, Err(Difference::Fact { .. })), "{found:?}");
    let found = world.judged(Principal::Node(other), honest.clone());
    assert!(matches!(found, Err(Difference::NoOrder(_))), "{found:?}");
    let mut long = honest;
    if let Fact::AuthorizationGranted(f) = &mut long[0] {
        f.not_after = f.not_after.plus_ms(1);
    }
    let found = world.judged(Principal::Node(node), long);
    assert!(matches!(found, Err(Difference::Fact { .. })), "{found:?}");
}

#[test]
fn what_an_actor_might_not_do_was_not_decided() {
    let mut world = World::new();
    let user: UserName = "ada".parse().unwrap();
    let order = Order::AddUser {
        user: user.clone(),
        roles: roles(&[domain::access::RoleName::Auditor]),
        key: world.key(),
        logins: vec![],
    };
    world.ask(admin(), order).unwrap();
    let removal = vec![AccessUserRemoved { user: user.clone() }.into()];
    assert_eq!(world.judged(admin(), removal.clone()), Ok(1));
    assert_eq!(
        code(world.judged(Principal::User(user), removal)),
        Code::NotPermitted
    );
}

#[test]
fn a_report_that_would_be_refused_was_not_decided() {
    let mut world = World::new();
    let node = world.node("db-1");
    let honest = NodeReported {
        node,
        report: world.report_of(1, 1),
        seen: world.seen(node),
    };
    assert_eq!(world.judged_alone(Principal::Node(node), honest.clone()), Ok(1));
    let mut strange = honest.clone();
    let facts = strange.report.authorities.get_mut(&AuthorityType::Host).unwrap();
    facts.trusted.insert(pin(0xbad));
    assert_eq!(
        code(world.judged_alone(Principal::Node(node), strange)),
        Code::ReportInvalid
    );
    let found = world.judged(Principal::Node(node), vec![honest.into()]);
    assert!(matches!(found, Err(Difference::Command(_))), "{found:?}");
}

#[test]
fn the_signer_writes_nothing_that_it_does_not_owe() {
    let mut world = World::new();
    let node = world.node("db-1");
    let (digest, certificate) = world.newest(&Principal::Node(node));
    let revoked = CertificateRevoked {
        holder: Principal::Node(node),
        certificates: vec![digest],
        why: "because".into(),
    };
    let retired = AuthorityRetired {
        authority_type: AuthorityType::Host,
        authority: certificate.issuer,
        outcome: RotationOutcome::Completed,
    };
    let key = domain::event::AuthorityKeyGenerated {
        authority_type: AuthorityType::Host,
        key: world.authority_key(2, Some(RotationId(Uuid::nil()))),
    };
    for forged in [Fact::from(revoked.clone()), retired.into(), key.into()] {
        let found = world.judged_alone(signer(), forged);
        assert!(matches!(found, Err(Difference::NotOwed(_))), "{found:?}");
    }
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    assert_eq!(world.judged_alone(signer(), revoked.clone()), Ok(1));
    let found = world.judged_alone(host(), revoked);
    assert_eq!(found, Err(Difference::NotTheSigner(host())));
}

#[test]
fn a_refusal_that_would_be_a_yes_was_not_decided() {
    let mut world = World::new();
    let node = world.node("db-1");
    let command = Command {
        id: CommandId(world.uuid()),
        principal: admin(),
        credential: None,
        digest: BodyDigest([1; 32]),
        reason: None,
        order: Order::RemoveNode { node },
    };
    let found = world.judged(admin(), vec![refused(&command, Code::NodeUnknown)]);
    assert!(matches!(found, Err(Difference::Answer { .. })), "{found:?}");
}

#[test]
fn a_refusal_is_of_what_was_asked_and_of_nothing_else() {
    let mut world = World::new();
    let node = world.node("db-1");
    let absent = NodeId(world.uuid());
    let command = |node| Command {
        id: CommandId(Uuid::nil()),
        principal: admin(),
        credential: None,
        digest: BodyDigest([1; 32]),
        reason: None,
        order: Order::RemoveNode { node },
    };
    let honest = refused(&command(absent), Code::NodeUnknown);
    let Fact::CommandRefused(mut other) = honest.clone() else {
        panic!("a refusal")
    };
    other.target = command(node).order.target();
    assert_eq!(world.judged(admin(), vec![honest]), Ok(1));
    let found = world.judged(admin(), vec![other.into()]);
    assert!(matches!(found, Err(Difference::Answer { .. })), "{found:?}");
}

#[test]
fn the_facts_of_one_decision_have_one_time_and_one_actor() {
    let mut world = World::new();
    let honest = world.join_facts();
    let id = CommandId(world.uuid());
    let mut events = world.as_one(&Principal::Anonymous, honest, Some(id));
    events[2].header.time = world.now.plus_ms(1);
    let found = again(&world.state, &events, |_| [0; 32]);
    assert_eq!(found, Err(Difference::Circumstances(events[2].header.position)));
    for event in &mut events {
        event.header.time = world.state.time.minus_ms(1);
    }
    assert_eq!(again(&world.state, &events, |_| [0; 32]), Err(Difference::Early));
}
