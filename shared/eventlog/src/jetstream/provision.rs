//! What the administrator of a broker does once, and again for more replicas: no service may change a stream.

use async_nats::jetstream::{
    Context,
    stream::{Config, Stream},
};
use serde::Serialize;

use super::{
    JetStreamLog, JetStreamOpenError, JetStreamOptions, context,
    lease::Leases,
    open::{self, SYNC_KEY},
    protections,
};
use crate::bus::{self, BusOptions};

/// What the streams of a cluster's log are to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provision {
    /// Whose.
    pub cluster: String,
    /// On how many servers each event is kept.
    pub replicas: usize,
    /// The administrator states that these servers sync always.
    pub syncs_always: bool,
}

/// What was done to a stream, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// It was not there.
    Made,
    /// It is as it is to be.
    Left,
    /// These settings were changed, from what to what.
    Changed(Vec<String>),
}

/// A stream of the log, or beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Provisioned {
    /// Its name.
    pub stream: String,
    /// What was done.
    pub done: Done,
    /// As it is then, in the words of NATS.
    pub config: serde_json::Value,
}

impl JetStreamLog {
    /// Makes the stream of events and the bucket of leases, or brings replicas and the statement about sync to what is
    /// wanted. `dry_run` changes nothing.
    ///
    /// # Errors
    /// [`JetStreamOpenError`]. A stream with other settings that the log rests on is refused and not mended: what they have let
    /// through is for a person to look at.
    pub async fn provision(
        bus: &BusOptions,
        wanted: &Provision,
        dry_run: bool,
    ) -> Result<Vec<Provisioned>, JetStreamOpenError> {
        let client = bus::connect(bus).await?;
        protections::check_server(&client)?;
        let context = context(client);
        let options = JetStreamOptions {
            cluster: wanted.cluster.clone(),
            // A stream with fewer is not unsafe here: it gets more.
            replicas: 1,
        };
        let mut events = protections::wanted(&options);
        events.num_replicas = wanted.replicas;
        if wanted.syncs_always {
            events.metadata.insert(SYNC_KEY.into(), "always".into());
        }
        let least = protections::wanted(&options);
        let is_safe = |have: &Config| protections::differences(have, &least);
        let leases = Leases::new(context.clone(), &wanted.cluster, wanted.replicas);
        let made = one(&context, events, is_safe, dry_run).await?;
        let beside = one(&context, leases.stream_config(), |_| vec![], dry_run).await?;
        Ok(vec![made, beside])
    }
}

/// Makes one stream, or brings it to what is wanted.
async fn one(
    context: &Context,
    wanted: Config,
    differences: impl Fn(&Config) -> Vec<String>,
    dry_run: bool,
) -> Result<Provisioned, JetStreamOpenError> {
    let name = wanted.name.clone();
    let provisioned = |done, config: &Config| Provisioned {
        stream: name.clone(),
        done,
        config: serde_json::to_value(config).expect("a configuration is plain data"),
    };
    let failed =
        |error: &dyn std::fmt::Display| open::failed(&name, std::io::Error::other(error.to_string()));
    let Some(stream) = open::found(context, &name).await? else {
        if !dry_run {
            context.create_stream(&wanted).await.map_err(|e| failed(&e))?;
        }
        return Ok(provisioned(Done::Made, &wanted));
    };
    let have = config_of(&stream);
    let unsafe_settings = differences(&have);
    if !unsafe_settings.is_empty() {
        return Err(JetStreamOpenError::Unprotected {
            stream: name.clone(),
            differences: unsafe_settings,
        });
    }
    let (next, changes) = brought(&have, &wanted);
    if changes.is_empty() {
        return Ok(provisioned(Done::Left, &have));
    }
    if !dry_run {
        context.update_stream(&next).await.map_err(|e| failed(&e))?;
    }
    Ok(provisioned(Done::Changed(changes), &next))
}

fn config_of(stream: &Stream) -> Config {
    stream.cached_info().config.clone()
}

/// The stream with the replicas and the statement that are wanted, and nothing else changed; and what that changes.
fn brought(have: &Config, wanted: &Config) -> (Config, Vec<String>) {
    let (mut next, mut changes) = (have.clone(), vec![]);
    if have.num_replicas != wanted.num_replicas {
        changes.push(format!(
            "replicas from {} to {}",
            have.num_replicas, wanted.num_replicas
        ));
        next.num_replicas = wanted.num_replicas;
    }
    let (was, is) = (have.metadata.get(SYNC_KEY), wanted.metadata.get(SYNC_KEY));
    // Not stated is not denied: the statement is taken back by hand.
    if let Some(is) = is.filter(|is| was != Some(is)) {
        changes.push(format!("{SYNC_KEY} to {is}"));
        next.metadata.insert(SYNC_KEY.into(), is.clone());
    }
    (next, changes)
}
