//! `consumers`: parties without an agent that trust an exported authority.

use clap::{Args, Subcommand};
use domain::{AuthorityType, ConsumerName, Phase, probe::ProbeAddress};

use super::values::{parse_phase, parse_type};

/// `consumers`.
#[derive(Subcommand, Debug)]
pub enum ConsumersCommand {
    /// Register one; rotations of its type wait for it from now on.
    Add(ConsumerAddArgs),
    /// Say that it has done what the current phase asks of it, such as trusting old and new.
    Attest {
        /// Which.
        #[command(flatten)]
        consumer: ConsumerArgs,
        /// The phase that it has done, refused if the rotation is in another one [default: the current one].
        #[arg(long, value_parser = parse_phase)]
        phase: Option<Phase>,
    },
    /// Have the control plane look at it now; what it sees attests for the current phase, if it proves that. Exit 1 if not.
    Probe(ConsumerArgs),
    /// Wait for it no more: it is gone, or nobody's business of this cluster.
    Withdraw(ConsumerArgs),
    /// List them.
    Ls {
        /// Of one authority only.
        #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
        authority_type: Option<AuthorityType>,
    },
}

/// One consumer of one authority.
#[derive(Args, Debug, Clone)]
pub struct ConsumerArgs {
    /// Its name, such as `billing-etl`.
    pub name: ConsumerName,
    /// Which authority it trusts.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
}

/// `consumers add`.
#[derive(Args, Debug, Clone)]
pub struct ConsumerAddArgs {
    /// Which.
    #[command(flatten)]
    pub consumer: ConsumerArgs,
    /// Who answers for it: a team or a person.
    #[arg(long, value_name = "TEXT")]
    pub owner: String,
    /// How to reach them when a rotation waits.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub contact: String,
    /// Where it can be looked at instead of asked: tls://HOST:PORT, ssh://HOST:PORT (of `host`) or http://HOST:PORT/PATH, a
    /// reader of tokens that answers with the key ids it holds.
    #[arg(long, value_name = "URL")]
    pub probe: Option<ProbeAddress>,
}
