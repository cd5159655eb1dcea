//! From a request to its answer: route, admission, the right to serve, then the endpoint's function.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use domain::{BodyDigest, Code, Command, Order, Principal, access::Action, command::Answered};
use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    app::App,
    body::Wanted,
    caller::{Caller, admit},
    door::Connection,
    reply::{self, Body, No, Reply},
    route::{self, Accepts, Endpoint, Matched, Unmatched},
};

mod audit;
mod check;
mod commands;
mod consumers;
mod events;
mod join;
mod leave;
mod node;
mod plan;
mod probe;
mod published;
mod reads;
mod rotate;
mod sign;
mod users;
mod watch;

/// A request on its way to its function.
pub(crate) struct Asked {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Caller,
    pub(crate) connection: Connection,
    /// What stands in place of the part in braces.
    pub(crate) part: String,
    pub(crate) query: Option<String>,
    /// Method and path as they came: what a command is aimed at stands there as often as in its body.
    pub(crate) target: String,
    /// The raw body; empty for `GET`.
    pub(crate) body: Bytes,
    /// The term in which it was asked: an answer counts only as long as that lasts.
    pub(crate) term: CancellationToken,
    /// What comes beside an answer that is a stream, for whoever takes it; `GET` only.
    pub(crate) beside: Mutex<Option<Incoming>>,
}

/// Answers a request, whatever comes of it.
pub(crate) async fn answer(
    app: Arc<App>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let begun = app.clock.monotonic();
    let found = route::find(request.method(), request.uri().path());
    let template = found.as_ref().map_or("none", |m| m.route.path);
    let methods = matches!(found, Err(Unmatched::NoMethod)).then(|| route::methods(request.uri().path()));
    let methods = methods.and_then(|methods| HeaderValue::try_from(methods).ok());
    let span = tracing::info_span!("request", method = %request.method(), route = template);
    if let Some(parent) = request.headers().get("traceparent").and_then(|v| v.to_str().ok()) {
        runtime::telemetry::with_parent(&span, parent);
    }
    let asking = async {
        match found {
            Ok(matched) => respond(app.clone(), connection, matched, request).await,
            Err(unmatched) => Err(no_route(unmatched, request.method())),
        }
    };
    let mut response = match asking.instrument(span).await {
        Ok(response) => response,
        Err(no) => reply::problem(&no),
    };
    // A 405 says what there is instead (RFC 9110, section 15.5.6).
    if let Some(methods) = methods {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    let took = app.clock.monotonic().saturating_sub(begun);
    let status = response.status();
    let seconds = app
        .metrics
        .histogram("carousel_gateway_request_seconds", &[template, status.as_str()]);
    seconds.observe(took.as_secs_f64());
    response
}

async fn respond(
    app: Arc<App>,
    connection: Connection,
    matched: Matched,
    request: Request<Incoming>,
) -> Reply {
    // The right to serve comes before everything but the public documents: a gateway that fell behind must
    // not even say who somebody is.
    if matched.route.endpoint == Endpoint::Trust {
        return let_in(app, connection, matched, request, CancellationToken::new()).await;
    }
    let term = app.serving.term().map_err(not_serving)?;
    let route = matched.route;
    let result = let_in(app.clone(), connection, matched, request, term.clone()).await;
    // What an operator's command did is in the log, and true whoever says it: taken for undone it would be done twice.
    let is_operators = matches!(route.action, Action::Rotate | Action::Administer | Action::Sign);
    if result.is_ok() && is_operators && route.is_command() {
        return result;
    }
    // Everything else may have waited for longer than the right lasted, and be of a state that others have left.
    app.serving.still(&term).map_err(not_serving)?;
    result
}

fn not_serving(why: String) -> No {
    let text = format!("this gateway may not serve now: {why}; ask again, or another one");
    No::new(Code::NotServing, text).retry_after(1)
}

async fn let_in(
    app: Arc<App>,
    connection: Connection,
    matched: Matched,
    request: Request<Incoming>,
    term: CancellationToken,
) -> Reply {
    let Matched { route, part } = matched;
    let caller = admit(&app, &connection, route).await?;
    let (Parts { uri, method, .. }, request) = split(request);
    let (body, beside) = if method == Method::POST {
        (reply::read(request).await?, None)
    } else {
        (Bytes::new(), Some(request.into_body()))
    };
    let query = uri.query().map(ToOwned::to_owned);
    let target = format!("{method} {}", uri.path());
    let asked = Asked {
        app,
        caller,
        connection,
        part,
        query,
        target,
        body,
        term,
        beside: Mutex::new(beside),
    };
    let is_public = route.accepts == Accepts::Public;
    let result = match dispatch(route.endpoint, &asked).await {
        // Whoever may not is told that, whatever else is wrong with what was sent: authorisation comes first.
        Err(no) if no.0.status < 500 && !asked.caller.may(route.action) => {
            Err(asked.caller.lacks(route.action))
        }
        result => result,
    };
    if let (true, Err(no)) = (is_public && route.endpoint != Endpoint::Trust, &result) {
        asked.app.strangers.count(no.code().name());
    }
    result
}

async fn dispatch(endpoint: Endpoint, asked: &Asked) -> Reply {
    match endpoint {
        Endpoint::Trust => join::trust(asked).await,
        Endpoint::Jwks => published::jwks(asked).await,
        Endpoint::SpiffeBundle => published::spiffe(asked).await,
        Endpoint::Join => join::join(asked).await,
        Endpoint::Recover => join::recover(asked).await,
        Endpoint::NodeStream => node::stream(asked).await,
        Endpoint::NodeDesired => node::desired(asked).await,
        Endpoint::NodeCertificates => node::certificate(asked).await,
        Endpoint::NodeFacts => node::facts(asked).await,
        Endpoint::Status => reads::status(asked).await,
        Endpoint::Nodes => reads::nodes(asked).await,
        Endpoint::Authorities => reads::authorities(asked).await,
        Endpoint::Rotations => reads::rotations(asked).await,
        Endpoint::Tokens => reads::tokens(asked).await,
        Endpoint::Certificates => reads::certificates(asked).await,
        Endpoint::Users => reads::users(asked).await,
        Endpoint::Consumers => reads::consumers(asked).await,
        Endpoint::Plan => plan::plan(asked).await,
        Endpoint::Whoami => reads::whoami(asked).await,
        Endpoint::Check => check::check(asked).await,
        Endpoint::Watch => watch::watch(asked).await,
        Endpoint::Events => events::page(asked).await,
        Endpoint::EventsFollow => events::follow(asked).await,
        Endpoint::AuditReplay => audit::replay(asked).await,
        Endpoint::AuditDiff => audit::diff(asked).await,
        Endpoint::AuditEvent => audit::event(asked).await,
        Endpoint::AuditVerify => audit::verify(asked).await,
        Endpoint::Rotate => rotate::rotate(asked).await,
        Endpoint::NodeExclude => commands::exclude(asked).await,
        Endpoint::NodeInclude => commands::include(asked).await,
        Endpoint::NodeRemove => commands::remove_node(asked).await,
        Endpoint::TokenAdd => commands::add_token(asked).await,
        Endpoint::TokenRemove => commands::remove_token(asked).await,
        Endpoint::UserAdd => users::add(asked).await,
        Endpoint::UserRemove => users::remove(asked).await,
        Endpoint::UserRenew => users::renew(asked).await,
        Endpoint::UserSsh => sign::ssh(asked).await,
        Endpoint::Sign => sign::sign(asked).await,
        Endpoint::SignToken => sign::token(asked).await,
        Endpoint::CertificatesRevoke => sign::revoke(asked).await,
        Endpoint::Crl => published::crl(asked).await,
        Endpoint::OidcDiscovery => published::discovery(asked).await,
        Endpoint::ConsumerAdd => commands::add_consumer(asked).await,
        Endpoint::ConsumerAttest => commands::attest_consumer(asked).await,
        Endpoint::ConsumerProbe => consumers::probe(asked).await,
        Endpoint::ConsumerWithdraw => commands::withdraw_consumer(asked).await,
        Endpoint::ClockAccept => commands::accept_clock(asked).await,
        Endpoint::Probe => probe::probe(asked).await,
    }
}

impl Asked {
    /// A command of the caller, with the digest of the request as it came.
    pub(crate) fn command(&self, wanted: Wanted) -> Command {
        Command {
            id: wanted.id,
            principal: self.caller.principal.clone(),
            credential: self.caller.credential(),
            digest: digest_of(&self.target, &self.body),
            reason: wanted.reason,
            order: wanted.order,
        }
    }

    /// Executes a command of the caller.
    pub(crate) async fn execute(&self, command: Command) -> Result<Answered, No> {
        let name = command.order.name();
        let result = self
            .app
            .executor
            .execute_traced(command, runtime::telemetry::current_traceparent())
            .await;
        let outcome = execution::outcome(&result);
        self.app
            .metrics
            .counter("carousel_commands_total", &[name, outcome])
            .inc();
        Ok(result?)
    }

    /// An order that is no command of a person: a fact report, a join.
    pub(crate) async fn execute_own(&self, principal: Principal, order: Order) -> Result<Answered, No> {
        let mut command = self.app.executor.own_command(principal, order);
        command.credential = self.caller.credential();
        self.execute(command).await
    }

    /// What the caller sends beside the answer, once.
    pub(crate) fn take_beside(&self) -> Option<Incoming> {
        // A body is there or not, whatever panicked elsewhere.
        self.beside.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A value of the query string.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        route::parameter(self.query.as_deref(), name)
    }

    /// The part in braces as what it should be.
    pub(crate) fn parse_part<T: std::str::FromStr>(&self) -> Result<T, No>
    where
        T::Err: std::fmt::Display,
    {
        self.part.parse().map_err(|e: T::Err| No::bad_request(e))
    }

    /// A value of the query string as what it should be.
    pub(crate) fn parse_parameter<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, No>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |text: String| {
            text.parse()
                .map_err(|e| No::bad_request(format!("`{name}`: {e}")))
        };
        self.parameter(name).map(parse).transpose()
    }
}

/// The digest of a request: its target and its body. The body of an exclusion names nobody, so with the body
/// alone an id that is used again for another node would get the first answer, and nothing would be done.
fn digest_of(target: &str, body: &[u8]) -> BodyDigest {
    // No path holds a line break: two different requests never read as one.
    let whole = [target.as_bytes(), b"\n", body].concat();
    BodyDigest(execution::sha256(&whole))
}

/// The head of a request, and the request again for its body.
fn split(request: Request<Incoming>) -> (Parts, Request<Incoming>) {
    let (head, body) = request.into_parts();
    (head.clone(), Request::from_parts(head, body))
}

fn no_route(unmatched: Unmatched, method: &Method) -> No {
    match unmatched {
        Unmatched::NoPath => No::new(Code::NotFound, "there is no such route"),
        Unmatched::NoMethod => {
            let mut no = No::new(Code::BadRequest, format!("this route does not take {method}"));
            no.0.status = 405;
            no
        }
    }
}
