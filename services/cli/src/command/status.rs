//! `carousel status`.

use api::{route, shape::Status};

use crate::{
    args::StatusArgs,
    failure::{Exit, Failure},
    run::Context,
    screen,
};

pub(super) async fn status(context: &Context, args: &StatusArgs) -> Result<Exit, Failure> {
    let path = match &args.at {
        Some(at) => format!("{}?at={}", route::STATUS, route::encode(&context.moment(at)?)),
        None => route::STATUS.into(),
    };
    let session = context.session().await?;
    let status: Status = context.get(&session, &path).await?;
    show(context, &status, args.at.is_some())
}

/// The status of now or of an earlier moment, live or replayed: the same screen.
pub(super) fn show(context: &Context, status: &Status, as_of: bool) -> Result<Exit, Failure> {
    context.terminal.show(
        status,
        |look| screen::status::render(status, context.is_wide(), as_of, look),
        || vec![status.cluster.name.clone()],
    )?;
    Ok(Exit::Done)
}
