//! A process full of agents: the product's own, without a disk, each with its own connections.
//!
//! What it is to do comes as one line of JSON by its stdin; how far its agents are goes out by its stdout, a line
//! whenever that has changed. It ends when its stdin does, so that none is left behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use agent::{Agent, Config, Handle, Pace, Server, Settings, Token};
use domain::{AuthorityType, Phase, SpkiPin};
use runtime::clock::SystemClock;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::bench::BenchError;

/// How often agents are counted.
const LOOK: Duration = Duration::from_millis(50);
/// How often an agent looks at its clock. Thousands share a processor here, and a look is not free.
const TICK: Duration = Duration::from_secs(5);
/// Agents behind one address. A gateway limits what one source may do, and a fleet has many of them.
const PER_SOURCE: u32 = 256;

/// What a process is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Crew {
    pub(crate) server: String,
    /// The number of the first agent, and how many there are.
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) token: String,
    pub(crate) ca_pins: BTreeSet<SpkiPin>,
    pub(crate) bundle_pin: SpkiPin,
}

/// How far its agents are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Count {
    /// They have reported the certificate that they joined with.
    pub(crate) joined: u32,
    /// They hold a stream, and something came by it.
    pub(crate) connected: u32,
    /// They hold the whole row of this phase, certificates included.
    pub(crate) holds: BTreeMap<Phase, u32>,
    /// They have ended, which none should; and why one of them did.
    pub(crate) ended: u32,
    pub(crate) why: Option<String>,
}

impl Count {
    pub(crate) fn holds(&self, phase: Phase) -> u32 {
        self.holds.get(&phase).copied().unwrap_or_default()
    }

    /// Both together.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.joined += other.joined;
        self.connected += other.connected;
        self.ended += other.ended;
        for (phase, count) in &other.holds {
            *self.holds.entry(*phase).or_default() += count;
        }
        self.why = self.why.or_else(|| other.why.clone());
        self
    }
}

/// The process.
pub(crate) async fn run() -> Result<(), BenchError> {
    if let Err(error) = runtime::harden::raise_open_files() {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    stdin.read_line(&mut line).await.map_err(BenchError::Process)?;
    let crew: Crew = serde_json::from_str(&line).map_err(|_| {
        BenchError::Stuck("this is a part of `bench gateway` and no command by itself".into())
    })?;
    let stop = CancellationToken::new();
    let mut agents = JoinSet::new();
    let mut handles = vec![];
    for number in crew.first..crew.first + crew.count {
        let agent = Agent::bare(config(&crew, number)?, SystemClock::shared())?;
        handles.push(agent.handle());
        agents.spawn(agent.run(stop.child_token()));
    }
    let (mut look, mut said) = (tokio::time::interval(LOOK), Count::default());
    let (mut ended, mut why, mut byte) = (0, None, [0]);
    loop {
        tokio::select! {
            _ = stdin.read(&mut byte) => break,
            Some(done) = agents.join_next() => {
                ended += 1;
                why = Some(match done {
                    Ok(Ok(())) => "it stopped".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                });
            }
            _ = look.tick() => {
                let count = Count { ended, why: why.clone(), ..count(&handles) };
                if count != said {
                    anstream::println!("{}", serde_json::to_string(&count).expect("counts are plain data"));
                    said = count;
                }
            }
        }
    }
    stop.cancel();
    Ok(())
}

fn count(handles: &[Handle]) -> Count {
    let mut count = Count::default();
    for handle in handles {
        let status = handle.status();
        let status = status.borrow();
        count.joined += u32::from(status.reported.is_some());
        count.connected += u32::from(status.connected);
        if let Some(host) = status
            .authorities
            .get(&AuthorityType::Host)
            .filter(|host| host.held)
        {
            *count.holds.entry(host.phase).or_default() += 1;
        }
    }
    count
}

fn config(crew: &Crew, number: u32) -> Result<Config, BenchError> {
    let server = Server::parse(&crew.server).map_err(BenchError::Stuck)?;
    Ok(Config {
        data_dir: Default::default(),
        servers: vec![Server {
            from: Some(source(number)),
            ..server
        }],
        hostname: format!("n{number}.fleet.bench").parse().expect("a host name"),
        ca_pins: crew.ca_pins.clone(),
        bundle_pin: Some(crew.bundle_pin),
        token: Some(Token::parse(&crew.token).map_err(|e| BenchError::Stuck(e.into()))?),
        listen: None,
        settings: Settings::default(),
        config_file: None,
        metrics: None,
        pace: Pace {
            tick: TICK,
            ..Pace::default()
        },
    })
}

/// An address of the loopback network for each few hundred agents.
fn source(number: u32) -> IpAddr {
    let [_, _, third, fourth] = (number / PER_SOURCE + 1).to_be_bytes();
    Ipv4Addr::new(127, 1, third, fourth).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_hundred_agents_share_an_address_of_the_loopback_network() {
        assert_eq!(source(0), source(PER_SOURCE - 1));
        assert_ne!(source(0), source(PER_SOURCE));
        let sources: BTreeSet<_> = (0..100_000).map(source).collect();
        assert_eq!(sources.len(), 100_000_usize.div_ceil(PER_SOURCE as usize));
        assert!(sources.iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn counts_of_two_processes_add_up() {
        let one = Count {
            joined: 2,
            connected: 1,
            holds: [(Phase::Init, 2)].into(),
            ..Count::default()
        };
        let both = one.clone().and(&one);
        assert_eq!((both.joined, both.connected, both.holds(Phase::Init)), (4, 2, 4));
        assert_eq!(both.holds(Phase::Standby), 0);
    }
}
