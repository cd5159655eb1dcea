//! Which events `audit ls` and `follow` show.

use domain::{Event, Timestamp};

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
    args: AuditFilter,
}

impl Wanted {
    pub(super) fn new(context: &Context, args: &AuditFilter, names: Names) -> Result<Self, Failure> {
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
        // The id of a node stands in every event about it, in the actor or in the data.
        let about = |wanted: &String| {
            let id = self
                .names
                .iter()
                .find(|(_, name)| *name == wanted)
                .map(|(id, _)| id.to_string());
            raw.contains(id.as_deref().unwrap_or(wanted))
        };
        let of_authority = |wanted: &domain::AuthorityType| raw.contains(&format!("\"type\":\"{wanted}\""));
        self.args.actor.as_ref().is_none_or(actor)
            && self.args.event_type.as_ref().is_none_or(of_type)
            && self.args.node.as_ref().is_none_or(about)
            && self.args.ca.as_ref().is_none_or(of_authority)
            && self
                .args
                .rotation
                .as_ref()
                .is_none_or(|id| raw.contains(&id.to_string()))
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
