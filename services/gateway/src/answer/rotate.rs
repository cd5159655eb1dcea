//! Phase commands: given when the control plane's own parts can follow, answered when they have.

use api::command::CommandAnswer;
use domain::{Answer, AuthorityType, ClusterState, Command, Phase, own_parts};
use tokio::time::Instant;

use super::{Asked, plan, reads};
use crate::{
    app::{App, PATIENCE},
    body,
    reply::{self, No, Reply},
};

/// `POST /v1/rotate`.
pub(super) async fn rotate(asked: &Asked) -> Reply {
    let (wanted, rotate) = body::rotation(&asked.body)?;
    let authority_type = rotate.authority_type;
    let command = asked.command(wanted);
    let deadline = Instant::now() + PATIENCE;
    wait_for_own_parts(&asked.app, &command, deadline).await;
    // Asked before the step: afterwards nobody waits for them any more.
    let app = &asked.app;
    let to = rotate.target.filter(|_| rotate.force);
    let locked_out = to.and_then(|to| {
        app.fold
            .read(|s| plan::locked_out_by(s, authority_type, to, s.now(app.now())))
    });
    let answered = match asked.execute(command).await {
        Ok(answered) => answered,
        Err(no) => return Err(explained(&asked.app, no).await),
    };
    let warning = match &answered.answer {
        Answer::Phase {
            phase, noop: false, ..
        } => {
            let holds = asked
                .app
                .wait_until(deadline, |s| {
                    own_parts_hold(&asked.app, s, authority_type, *phase)
                })
                .await;
            holds
                .is_none()
                .then(|| lagging_in_words(&asked.app, authority_type))
        }
        _ => None,
    };
    reply::json(&CommandAnswer {
        position: answered.position,
        locked_out: locked_out.filter(|_| is_step(&answered.answer)),
        answer: answered.answer,
        warning,
    })
}

/// Was a phase entered by this command?
fn is_step(answer: &Answer) -> bool {
    matches!(answer, Answer::Phase { noop: false, .. })
}

/// A command that finds only the control plane's own parts lagging waits for them.
async fn wait_for_own_parts(app: &App, command: &Command, deadline: Instant) {
    let goes = |state: &ClusterState| {
        (!own_parts::hold_back(state, command, app.now(), execution::sha256)).then_some(())
    };
    app.wait_until(deadline, goes).await;
}

/// Every own part has followed, and this gateway too by its own word.
fn own_parts_hold(
    app: &App,
    state: &ClusterState,
    authority_type: AuthorityType,
    phase: Phase,
) -> Option<()> {
    let has_gone_on = state.types.get(&authority_type)?.phase != phase;
    let follow = own_parts::have_followed(state, authority_type, phase);
    (follow && (has_gone_on || app.holds_rows(state))).then_some(())
}

fn lagging_in_words(app: &App, authority_type: AuthorityType) -> String {
    let mut missing = app
        .fold
        .read(|state| own_parts::missing_in_words(state, authority_type));
    if missing.is_empty() {
        missing.push("this gateway has not reported the new row".to_owned());
    }
    own_parts::not_followed(&missing, PATIENCE.as_secs())
}

/// Adds to a closed gate what a person at 3 a.m. needs: who is there, and what would break.
async fn explained(app: &App, mut no: No) -> No {
    if let Some(gate) = &mut no.0.gate {
        reads::see(app, &mut gate.lagging).await;
        app.fold.read(|s| plan::consequences(s, gate));
    }
    no
}
