//! `auth sign`, `auth token`, `login` and `certificates`: credentials that no agent renews.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use domain::{AuthorityType, Hostname, Serial, TokenId, UserName};

use super::values::{parse_duration, parse_option, parse_type};

/// `auth sign`.
#[derive(Args, Debug, Clone)]
pub struct SignArgs {
    /// Which authority: host, user, db, db_client, openssh, saml_idp, spiffe, awsra, windows.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
    /// The party's name in the log, such as `pg-1`; it stands in the certificate.
    #[arg(long, value_name = "NAME")]
    pub name: UserName,
    /// The certificate request, PEM (`-` is stdin): only its key is taken.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "ssh_key",
        conflicts_with = "ssh_key"
    )]
    pub csr: Option<PathBuf>,
    /// The SSH public key, one line as in id_ed25519.pub (`-` is stdin).
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Of `windows`: the user in its directory, such as alice@corp.example.com, who is to log in with it.
    #[arg(long, value_name = "USER@DOMAIN", requires = "csr")]
    pub upn: Option<String>,
    /// A DNS name of the server; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<Hostname>,
    /// An address of the server; may be given several times.
    #[arg(long, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// An account that the SSH certificate is good for; may be given several times.
    #[arg(long, value_name = "ACCOUNT", requires = "ssh_key")]
    pub principal: Vec<String>,
    /// A critical option of the SSH certificate, such as `source-address=10.0.0.0/8`; may be given several times.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = parse_option, requires = "ssh_key")]
    pub option: Vec<(String, String)>,
    /// An extension of the SSH certificate, such as permit-pty; may be given several times.
    #[arg(long, value_name = "NAME", requires = "ssh_key")]
    pub extension: Vec<String>,
    /// Its life, where that is to be shorter than what the type gives.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub ttl: Option<Duration>,
    /// Write it there instead of to stdout; a file that is there is replaced.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `auth token`.
#[derive(Args, Debug, Clone)]
pub struct TokenArgs {
    /// Which authority: jwt, oidc_idp, okta, spiffe.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
    /// Whose token it is: the claim `sub` (for spiffe, the last part of the SPIFFE ID).
    #[arg(long, value_name = "NAME")]
    pub name: UserName,
    /// For whom it is: the claim `aud`; may be given several times.
    #[arg(long, value_name = "TEXT", required = true)]
    pub audience: Vec<String>,
    /// Its life, where that is to be shorter than what the cluster gives.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub ttl: Option<Duration>,
}

/// `login`.
#[derive(Args, Debug, Clone)]
pub struct LoginArgs {
    /// Where to write the certificates and their keys [default: beside the identity file, NAME.login].
    #[arg(long, value_name = "DIR", conflicts_with = "ssh_key")]
    pub out: Option<PathBuf>,
    /// Certify this SSH public key instead, and write FILE-cert.pub beside it; nothing else is made.
    #[arg(long, value_name = "FILE.pub")]
    pub ssh_key: Option<PathBuf>,
}

/// `certificates`.
#[derive(Subcommand, Debug)]
pub enum CertificatesCommand {
    /// Make certificates count no more before their end (needs --reason).
    Revoke(RevokeArgs),
}

/// `certificates revoke`.
#[derive(Args, Debug, Clone)]
#[group(required = true, multiple = false)]
pub struct RevokeArgs {
    /// The one with this serial number.
    pub serial: Option<Serial>,
    /// All of a node's, by its host name or id; it needs a new join token afterwards.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// All of a person's; somebody has to make a new identity afterwards.
    #[arg(long, value_name = "NAME")]
    pub user: Option<UserName>,
    /// All that a party without an agent got.
    #[arg(long, value_name = "NAME")]
    pub external: Option<UserName>,
    /// All of every node that joined with this token.
    #[arg(long, value_name = "ID")]
    pub issued_by_token: Option<TokenId>,
}
