//! `carousel get`.

use api::{
    route,
    shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, RotationDoc, Status, TokenDoc, UserDoc},
};
use domain::AuthorityType;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    args::{Format, GetArgs, Kind},
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
    screen::{lists, nodes},
    text::Look,
};

pub(super) async fn get(context: &Context, args: &GetArgs) -> Result<Exit, Failure> {
    if args.kind == Kind::Nodes {
        let filter = filter(args)?;
        let session = context.session().await?;
        return list_nodes(context, &session, args.authority_type, &filter).await;
    }
    if args.lagging.is_some() || args.offline || args.excluded || !args.label.is_empty() {
        return Err(Failure::usage(
            "--lagging, --offline, --excluded and -l filter nodes only",
        ));
    }
    let session = context.session().await?;
    let of = |t: AuthorityType| args.authority_type.is_none_or(|wanted| wanted == t);
    let wide = context.is_wide();
    match args.kind {
        Kind::Authorities => {
            let keep = |d: &AuthorityDoc| of(d.authority_type);
            let name = |d: &AuthorityDoc| d.authority_type.to_string();
            list(
                context,
                &session,
                route::AUTHORITIES,
                keep,
                lists::authorities,
                name,
            )
            .await
        }
        Kind::Rotations => {
            let keep = |d: &RotationDoc| of(d.authority_type);
            list(context, &session, route::ROTATIONS, keep, lists::rotations, |d| {
                d.id.to_string()
            })
            .await
        }
        Kind::Tokens => {
            let all = |_: &TokenDoc| true;
            list(context, &session, route::TOKENS, all, lists::tokens, |d| {
                d.id.to_string()
            })
            .await
        }
        Kind::Certificates => {
            let keep = |d: &CertificateDoc| of(d.authority_type);
            let text = |list: &[CertificateDoc], look: &Look| lists::certificates(list, wide, look);
            list(context, &session, route::CERTIFICATES, keep, text, |d| {
                d.digest.to_string()
            })
            .await
        }
        Kind::Consumers => {
            let keep = |d: &ConsumerDoc| of(d.authority_type);
            list(context, &session, route::CONSUMERS, keep, lists::consumers, |d| {
                d.name.clone()
            })
            .await
        }
        Kind::Users => users(context, &session).await,
        Kind::Nodes => Ok(Exit::Done),
    }
}

/// Also `users ls`.
pub(super) async fn users(context: &Context, session: &Session) -> Result<Exit, Failure> {
    let all = |_: &UserDoc| true;
    list(context, session, route::USERS, all, lists::users, |d| {
        d.name.clone()
    })
    .await
}

pub(super) async fn list<T: DeserializeOwned + Serialize>(
    context: &Context,
    session: &Session,
    path: &str,
    keep: impl Fn(&T) -> bool,
    text: impl Fn(&[T], &Look) -> String,
    name: impl Fn(&T) -> String,
) -> Result<Exit, Failure> {
    let mut docs: Vec<T> = context.get(session, path).await?;
    docs.retain(keep);
    context.terminal.show(
        &docs,
        |look| text(&docs, look),
        || docs.iter().map(name).collect(),
    )?;
    Ok(Exit::Done)
}

async fn list_nodes(
    context: &Context,
    session: &Session,
    wanted: Option<AuthorityType>,
    filter: &nodes::Filter,
) -> Result<Exit, Failure> {
    let all: Vec<NodeDoc> = context.get(session, route::NODES).await?;
    let shown: Vec<NodeDoc> = all.iter().filter(|node| filter.passes(node)).cloned().collect();
    let names = || shown.iter().map(|node| node.spec.hostname.clone()).collect();
    if !matches!(context.terminal.format, Format::Text | Format::Wide) {
        context.terminal.show(&shown, |_| String::new(), names)?;
        return Ok(Exit::Done);
    }
    // Only people need to be told which pin is the old one.
    let status: Status = context.get(session, route::STATUS).await?;
    let of_filter = filter.lagging.flatten();
    let authority = wanted.or(of_filter).unwrap_or_else(|| nodes::subject(&status));
    let shows = nodes::Shows {
        wide: context.is_wide(),
        presence: true,
    };
    let text = |look: &Look| nodes::table(&shown, authority, &status, shows, look);
    context.terminal.show(&shown, text, names)?;
    context
        .terminal
        .progress(&nodes::footer(&all, authority, &status));
    Ok(Exit::Done)
}

fn filter(args: &GetArgs) -> Result<nodes::Filter, Failure> {
    let lagging = match args.lagging.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(name) => match name.parse::<AuthorityType>() {
            Ok(authority) => Some(Some(authority)),
            Err(_) => {
                return Err(Failure::usage(format!(
                    "{name:?} is not an authority type; valid: {}",
                    AuthorityType::names()
                )));
            }
        },
    };
    let labels = args
        .label
        .iter()
        .map(|pair| {
            let split = pair
                .split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
            split.ok_or_else(|| Failure::usage(format!("{pair:?} is not a label; write -l key=value")))
        })
        .collect::<Result<_, _>>()?;
    Ok(nodes::Filter {
        lagging,
        offline: args.offline,
        excluded: args.excluded,
        labels,
    })
}
