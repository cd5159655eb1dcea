//! `carousel auth rotate`.

use api::{
    command::{CommandAnswer, RotateRequest},
    plan::Plan,
    route,
    shape::{Status, command_id},
};
use domain::{
    Answer, AuthorityType, Phase,
    command::{Expectation, Mode},
};

use super::{refused, required_type, wait::follow, warn};
use crate::{
    args::RotateArgs,
    connect::Session,
    failure::{Exit, Failure},
    guided,
    run::Context,
    screen::{self, refusal::Asked},
    text::{Look, milliseconds},
};

pub(super) async fn rotate(context: &Context, args: &RotateArgs) -> Result<Exit, Failure> {
    if guided::is_meant(context, args) {
        return Box::pin(guided::run(context)).await;
    }
    let authority = required_type(args.authority_type)?;
    check_usage(args, context.global.reason.as_deref())?;
    let session = context.session().await?;
    if args.plan {
        return plan(context, &session, authority, args.phase).await;
    }
    // What the caller stands on. A rotation must go on even where the views do not answer, so this may fail.
    let status: Option<Status> = session.get(route::STATUS).await.ok();
    let body = RotateRequest {
        id: command_id(session.now(), pki::random()),
        reason: context.global.reason.clone(),
        authority_type: authority,
        phase: args.phase,
        manual: args.manual,
        grace_period_ms: args.grace_period.map(milliseconds),
        on_lagging: args.on_lagging.map(Into::into),
        force: args.force,
        expects: status.as_ref().and_then(|s| expectation(s, authority)),
    };
    context.sends();
    let sent = session.post::<_, CommandAnswer>(route::ROTATE, &body).await;
    let answer = sent.map_err(|error| {
        let asked = Asked {
            status: status.as_ref(),
            authority: Some(authority),
        };
        refused(context, error, asked)
    })?;
    say(context, authority, &answer)?;
    if args.wait {
        let target = match &answer.answer {
            Answer::Phase {
                mode: Some(Mode::Automatic),
                ..
            } => None,
            Answer::Phase { phase, .. } => Some(*phase),
            _ => args.phase,
        };
        return follow(context, &session, authority, target, args.timeout).await;
    }
    Ok(Exit::Done)
}

/// What can be seen to be wrong before anybody is asked.
fn check_usage(args: &RotateArgs, reason: Option<&str>) -> Result<(), Failure> {
    // Asked for even where no gate would be closed: what is forced without a word today is forced out of habit.
    if args.force && reason.is_none_or(|reason| reason.trim().is_empty()) {
        return Err(Failure::usage(
            "--force needs --reason TEXT: it stands in the audit log beside whoever is cut off",
        ));
    }
    let starts = matches!(args.phase, None | Some(Phase::Init));
    if args.grace_period.is_some() && !starts {
        return Err(Failure::usage(
            "--grace-period can only be given where a rotation starts: without --phase, or with --phase=init",
        ));
    }
    if args.on_lagging.is_some() && (args.manual || args.phase.is_some()) {
        return Err(Failure::usage(
            "--on-lagging belongs to a semi-automatic rotation: give it without --manual and --phase",
        ));
    }
    Ok(())
}

/// What a command of now expects of the authority.
pub(crate) fn expectation(status: &Status, authority: AuthorityType) -> Option<Expectation> {
    let found = status
        .authorities
        .iter()
        .find(|a| a.authority_type == authority)?;
    Some(Expectation {
        rotation: found.rotation.current_id,
        phase: found.rotation.phase,
    })
}

/// Where the plan up to a phase is, or to the end.
pub(crate) fn plan_path(authority: AuthorityType, until: Option<Phase>) -> String {
    let path = route::fill(route::PLAN, authority.name());
    match until {
        Some(phase) => format!("{path}?phase={phase}"),
        None => path,
    }
}

async fn plan(
    context: &Context,
    session: &Session,
    authority: AuthorityType,
    phase: Option<Phase>,
) -> Result<Exit, Failure> {
    let plan: Plan = context.get(session, &plan_path(authority, phase)).await?;
    context.terminal.show(
        &plan,
        |look| screen::plan::render(&plan, look),
        || plan.steps.iter().map(|step| step.phase.to_string()).collect(),
    )?;
    Ok(Exit::Done)
}

/// The sentence that scripts know on stdout, everything else on stderr.
fn say(context: &Context, authority: AuthorityType, answer: &CommandAnswer) -> Result<(), Failure> {
    let text = sentence(authority, &answer.answer);
    if context.terminal.format == crate::args::Format::Json {
        context.terminal.json_line(answer);
    } else {
        context
            .terminal
            .show(answer, |_| text, || vec![authority.to_string()])?;
    }
    if context.terminal.is_machine() {
        warn(context, answer.warning.as_deref());
    } else {
        context.terminal.note(&beside(answer, context.look()));
    }
    Ok(())
}

/// An answer as people read it: the sentence, and whatever is to be said beside it.
pub(crate) fn spoken(authority: AuthorityType, answer: &CommandAnswer, look: &Look) -> String {
    sentence(authority, &answer.answer) + &beside(answer, look)
}

/// What is to be said beside the sentence: a line each, or nothing.
fn beside(answer: &CommandAnswer, look: &Look) -> String {
    let became_manual = match &answer.answer {
        Answer::Phase { became_manual, .. } => *became_manual,
        Answer::Token { .. }
        | Answer::Joined { .. }
        | Answer::Authorized { .. }
        | Answer::Revoked { .. }
        | Answer::Done
        | Answer::Noop { .. } => false,
    };
    let mut lines = Vec::new();
    if became_manual {
        lines.push("The rotation is manual from now on: nothing happens by itself any more.".to_owned());
    }
    lines.extend(cut_off(&answer.answer));
    let locked_out = answer.locked_out.as_ref().map(screen::refusal::locked_out);
    let warnings = locked_out.into_iter().chain(answer.warning.clone());
    lines.extend(warnings.map(|warning| format!("{} {warning}", look.attention())));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Who pays for the end of a rotation, said to whoever ended it.
fn cut_off(answer: &Answer) -> Option<String> {
    let Answer::Phase { cut_off, .. } = answer else {
        return None;
    };
    (!cut_off.is_empty()).then(|| {
        format!(
            "Cut off until they return and recover: {}. They may still accept the retired CA until then.",
            cut_off.join(", ")
        )
    })
}

fn sentence(authority: AuthorityType, answer: &Answer) -> String {
    let title = authority.row().title;
    match answer {
        Answer::Phase {
            phase, noop: true, ..
        } => {
            format!("{title} is already in phase \"{phase}\". Nothing was changed.\n")
        }
        Answer::Phase {
            phase: Phase::Init,
            mode: Some(Mode::Automatic),
            ..
        } => "Initiated certificate authority rotation. To check status use 'carousel status'\n".into(),
        Answer::Phase { phase, .. } => {
            format!("Updated rotation phase to \"{phase}\". To check status use 'carousel status'\n")
        }
        Answer::Noop { text } => format!("{}. Nothing was changed.\n", capital(text)),
        Answer::Token { .. }
        | Answer::Joined { .. }
        | Answer::Authorized { .. }
        | Answer::Revoked { .. }
        | Answer::Done => "Done.\n".into(),
    }
}

/// The domain's half sentence as a sentence.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{AuthCommand, Cli, Command};

    fn args(line: &str) -> RotateArgs {
        let words = ["carousel", "auth", "rotate"]
            .into_iter()
            .chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Auth(AuthCommand::Rotate(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_grace_period_with_a_later_phase_is_a_usage_error() {
        assert!(check_usage(&args("--type=host --grace-period=48h"), None).is_ok());
        assert!(
            check_usage(
                &args("--type=host --manual --phase=init --grace-period=200h"),
                None
            )
            .is_ok()
        );
        let error = check_usage(
            &args("--type=host --phase=update_clients --grace-period=8h"),
            None,
        )
        .unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(check_usage(&args("--type=host --manual --on-lagging=hold"), None).is_err());
    }

    #[test]
    fn force_without_a_reason_is_a_usage_error_whatever_the_gate_says() {
        let forced = args("--type=host --manual --phase=standby --force");
        for reason in [None, Some(""), Some("  ")] {
            let error = check_usage(&forced, reason).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.page.contains("--reason"), "{}", error.page);
        }
        assert!(check_usage(&forced, Some("in repair")).is_ok());
    }

    #[test]
    fn a_missing_type_is_said_as_the_guide_says_it() {
        let error = required_type(args("--manual").authority_type).unwrap_err();
        assert!(
            error.page.starts_with("error: required flag --type not provided"),
            "{}",
            error.page
        );
        assert_eq!(error.exit, Exit::Usage);
    }

    #[test]
    fn an_unknown_type_or_phase_lists_the_valid_ones() {
        for (line, valid) in [
            ("--type=hots", "valid: host, user"),
            ("--type=host --phase=x", "valid: init, update_clients"),
        ] {
            let words = ["carousel", "auth", "rotate"]
                .into_iter()
                .chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(valid), "{error}");
        }
    }

    #[test]
    fn the_answers_are_the_sentences_of_the_contract() {
        let phase = |phase, mode, noop| Answer::Phase {
            authority_type: AuthorityType::Host,
            rotation: None,
            phase,
            mode: Some(mode),
            noop,
            became_manual: false,
            cut_off: vec![],
        };
        for (answer, text) in [
            (
                phase(Phase::Init, Mode::Manual, false),
                "Updated rotation phase to \"init\". To check status use 'carousel status'\n",
            ),
            (
                phase(Phase::Init, Mode::Automatic, false),
                "Initiated certificate authority rotation. To check status use 'carousel status'\n",
            ),
            (
                phase(Phase::Init, Mode::Manual, true),
                "Host CA is already in phase \"init\". Nothing was changed.\n",
            ),
            (
                Answer::Noop {
                    text: "the host CA is already in phase init".into(),
                },
                "The host CA is already in phase init. Nothing was changed.\n",
            ),
        ] {
            assert_eq!(sentence(AuthorityType::Host, &answer), text);
        }
    }

    #[test]
    fn whoever_ends_a_rotation_is_told_who_is_cut_off() {
        let ended = |cut_off: &[&str]| Answer::Phase {
            authority_type: AuthorityType::Host,
            rotation: None,
            phase: Phase::Standby,
            mode: Some(Mode::Manual),
            noop: false,
            became_manual: false,
            cut_off: cut_off.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(cut_off(&ended(&[])), None);
        let note = cut_off(&ended(&["db-07", "edge-3"])).unwrap();
        assert!(
            note.starts_with("Cut off until they return and recover: db-07, edge-3."),
            "{note}"
        );
    }
}
