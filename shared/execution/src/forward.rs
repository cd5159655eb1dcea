//! Commands that are decided in another process: what whoever may not write the log sends over the bus, and the answer.
//!
//! A letter is a whole command, made at the door: who asked and with which certificate is the door's word. The bus lets
//! nobody but the gateway's user send one.

use std::time::Duration;

use domain::{
    BodyDigest, CertDigest, Code, Command, CommandId, Credential, Order, Principal, Refusal,
    command::Answered, gate::Gate,
};
use eventlog::bus::{Answer, AskError, Bus};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::ExecuteError;

/// The header that carries the trace (W3C Trace Context).
const TRACE_HEADER: &str = "traceparent";
/// How long a letter may be under way: longer than an append that is not answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long nobody may be there to take it: while an orchestrator is started again.
const NOBODY_FOR: Duration = Duration::from_secs(5);
/// The pause before it is sent again to nobody.
const PAUSE: Duration = Duration::from_millis(100);

/// A command on its way.
#[derive(Serialize, Deserialize)]
struct Letter {
    id: CommandId,
    principal: Principal,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertDigest>,
    digest: BodyDigest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    order: Order,
}

/// What came of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Done(Answered),
    Refused {
        code: Code,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<Box<Gate>>,
    },
    Unavailable(String),
}

/// The reply, with what whoever decides thinks of its clock.
#[derive(Serialize, Deserialize)]
struct Replied {
    reply: Reply,
    #[serde(default)]
    clock_suspect: bool,
}

/// Reads a letter.
///
/// # Errors
/// In words.
pub fn read(body: &[u8]) -> Result<Command, String> {
    let letter: Letter = serde_json::from_slice(body).map_err(domain::plain)?;
    Ok(Command {
        id: letter.id,
        principal: letter.principal,
        credential: letter.certificate.map(Credential::Certificate),
        digest: letter.digest,
        reason: letter.reason,
        order: letter.order,
    })
}

/// What is answered to a letter.
pub fn reply(answered: Result<Answered, ExecuteError>, clock_suspect: bool) -> Answer {
    let reply = match answered {
        Ok(answered) => Reply::Done(answered),
        Err(ExecuteError::Refused(Refusal { code, text, gate })) => Reply::Refused { code, text, gate },
        Err(ExecuteError::Unavailable(why)) => Reply::Unavailable(why),
    };
    let replied = Replied { reply, clock_suspect };
    Answer {
        body: serde_json::to_vec(&replied).expect("a reply has string keys only"),
        no: None,
    }
}

/// Sends commands to where they are decided.
#[derive(Clone, Debug)]
pub struct Forwarder {
    bus: Bus,
    subject: String,
}

/// What is known after a letter was sent: what came of the command, and whether the clock is suspect where it is decided.
pub(crate) type Delivered = (Result<Answered, ExecuteError>, Option<bool>);

impl Forwarder {
    /// Sends on this subject, which is the gateway's own.
    pub fn new(bus: Bus, subject: String) -> Self {
        Self { bus, subject }
    }

    /// Sends a command and waits for what comes of it.
    pub(crate) async fn deliver(&self, command: &Command, traceparent: Option<&str>) -> Delivered {
        let letter = Letter {
            id: command.id,
            principal: command.principal.clone(),
            certificate: command.credential.as_ref().and_then(Credential::certificate),
            digest: command.digest,
            reason: command.reason.clone(),
            order: command.order.clone(),
        };
        let body = serde_json::to_vec(&letter).expect("an order has string keys only");
        let headers: Vec<_> = traceparent
            .map(|trace| (TRACE_HEADER, trace))
            .into_iter()
            .collect();
        let unavailable = |why: String| (Err(ExecuteError::Unavailable(why)), None);
        let nobody_until = Instant::now() + NOBODY_FOR;
        let answer = loop {
            match self
                .bus
                .ask(&self.subject, &headers, body.clone(), PATIENCE)
                .await
            {
                Ok(answer) => break answer,
                // Heard by nobody, so that nothing was done: the same letter again.
                Err(AskError::Nobody { .. }) if Instant::now() < nobody_until => sleep(PAUSE).await,
                Err(AskError::Nobody { .. }) => {
                    return unavailable("no orchestrator takes commands; is one running?".into());
                }
                Err(AskError::Unknown { detail, .. }) => {
                    return unavailable(format!(
                        "whether the command was taken is not known ({detail}); repeat the same command"
                    ));
                }
            }
        };
        if let Some((_, why)) = answer.no {
            return unavailable(format!(
                "the orchestrator does not take it: {}",
                domain::plain(why)
            ));
        }
        match serde_json::from_slice::<Replied>(&answer.body) {
            Ok(Replied { reply, clock_suspect }) => (outcome_of(reply), Some(clock_suspect)),
            Err(error) => unavailable(format!(
                "the orchestrator's answer cannot be read ({}); are both of one version?",
                domain::plain(error)
            )),
        }
    }
}

fn outcome_of(reply: Reply) -> Result<Answered, ExecuteError> {
    match reply {
        Reply::Done(answered) => Ok(answered),
        Reply::Refused { code, text, gate } => Err(ExecuteError::Refused(Refusal { code, text, gate })),
        Reply::Unavailable(why) => Err(ExecuteError::Unavailable(why)),
    }
}

#[cfg(test)]
mod tests {
    use domain::{AuthorityType, Phase, command::Rotate, gate};

    use super::*;

    /// The reply as it is read again, with the flag.
    fn back(answered: Result<Answered, ExecuteError>) -> (Result<Answered, ExecuteError>, bool) {
        let answer = reply(answered, true);
        let read: Replied = serde_json::from_slice(&answer.body).unwrap();
        (outcome_of(read.reply), read.clock_suspect)
    }

    #[test]
    fn a_closed_gate_arrives_whole_and_so_does_what_is_unknown() {
        let gate = gate::evaluate(
            &domain::ClusterState::default(),
            AuthorityType::Host,
            Phase::Init,
            domain::Timestamp(0),
        );
        let refusal = Refusal::closed(Code::NodesLagging, "1 of 3", gate);
        let (read, is_suspect) = back(Err(refusal.clone().into()));
        assert!(is_suspect);
        assert!(matches!(read, Err(ExecuteError::Refused(found)) if found == refusal));
        let (read, _) = back(Err(ExecuteError::Unavailable("the log is away".into())));
        assert!(matches!(read, Err(ExecuteError::Unavailable(why)) if why == "the log is away"));
    }

    #[test]
    fn a_letter_that_is_none_is_said() {
        let order = Order::Rotate(Rotate {
            authority_type: AuthorityType::Host,
            target: None,
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        });
        let whole = serde_json::json!({
            "id": "0198f3c2-77a1-7d01-9b1e-5c2f6a10e9d3",
            "principal": "user/alice",
            "digest": format!("sha256:{}", "07".repeat(32)),
            "order": order,
        });
        let command = read(whole.to_string().as_bytes()).unwrap();
        assert_eq!(command.order, order);
        assert_eq!(command.credential, None);
        for missing in ["id", "principal", "digest", "order"] {
            let mut short = whole.clone();
            short.as_object_mut().unwrap().remove(missing);
            let why = read(short.to_string().as_bytes()).unwrap_err();
            assert!(why.contains(missing), "{why}");
        }
    }
}
