//! The audit's routes: the questions are read here, the answers are the audit's.

use api::{At, audit::AuditView};
use domain::Position;

use super::Asked;
use crate::reply::{self, No, Reply};

/// `GET /v1/audit/replay?as_of=&view=`.
pub(super) async fn replay(asked: &Asked) -> Reply {
    let at: At = required(asked, "as_of")?;
    let view: AuditView = required(asked, "view")?;
    reply::json(&asked.app.audit.replay(at, view).await?)
}

/// `GET /v1/audit/diff?a=&b=`.
pub(super) async fn diff(asked: &Asked) -> Reply {
    let (before, after) = (required(asked, "a")?, required(asked, "b")?);
    reply::json(&asked.app.audit.diff(before, after).await?)
}

/// `GET /v1/audit/events/{position}`.
pub(super) async fn event(asked: &Asked) -> Reply {
    let position = asked
        .part
        .parse()
        .map_err(|_| No::bad_request("a position is a number, counted from 1"))?;
    reply::json(&asked.app.audit.event(Position(position)).await?)
}

/// `GET /v1/audit/verify`.
pub(super) async fn verify(asked: &Asked) -> Reply {
    reply::json(&asked.app.audit.verify().await?)
}

fn required<T: std::str::FromStr>(asked: &Asked, name: &str) -> Result<T, No>
where
    T::Err: std::fmt::Display,
{
    asked
        .parse_parameter(name)?
        .ok_or_else(|| No::bad_request(format!("`{name}` is missing")))
}
