//! sshd: the host certificates that it presents, as OpenSSH's own `ssh-keyscan` reads them.

use std::{net::SocketAddr, path::Path, process::Stdio, sync::OnceLock};

use domain::{
    authority::KeyKind,
    probe::{Presented, Sight},
};
use pki::{
    PublicKey,
    ssh::{SshCertificate, SshRole},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::Known;

/// Where it is looked for: in these places and not by PATH, which is whoever starts the gateway's.
const PLACES: [&str; 3] = [
    "/usr/bin/ssh-keyscan",
    "/usr/local/bin/ssh-keyscan",
    "/usr/sbin/ssh-keyscan",
];
/// The most that is read of its answer: three certificates have some kilobytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// How long it waits for the other side, in seconds: less than we wait for it, so that it ends by itself.
const PATIENCE_S: &str = "8";
/// The kinds of host keys that are asked for, each in a connection of its own.
const KEY_TYPES: [&str; 3] = ["ecdsa", "ed25519", "rsa"];
/// How the program shows, on stderr, that a connection reached an SSH server: `# HOST:PORT SSH-2.0-...`.
const GREETED: &str = " SSH-2.0";
/// How the type of a certificate ends in its line.
const CERTIFICATE: &str = "-cert-v01@openssh.com";

pub(super) async fn look(at: SocketAddr, known: &Known) -> Result<Sight, String> {
    let program = keyscan().ok_or(
        "ssh-keyscan is not installed on the gateway's machine: install OpenSSH's client there (openssh-client)",
    )?;
    let answer = scan(program, at).await?;
    all_greeted(&answer.said)?;
    Ok(sight(&answer.keys, known))
}

/// The program, once it was found.
fn keyscan() -> Option<&'static Path> {
    static FOUND: OnceLock<&Path> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Some(found);
    }
    let found = PLACES.iter().map(Path::new).find(|path| path.is_file())?;
    Some(FOUND.get_or_init(|| found))
}

/// What the program printed: the keys, and what it said besides.
struct Answer {
    keys: String,
    said: String,
}

/// A server that shuts out some of the connections shows some of its keys, and those that it did not show may be of the
/// old authority.
fn all_greeted(said: &str) -> Result<(), String> {
    let greeted = said
        .lines()
        .filter(|line| line.starts_with('#') && line.contains(GREETED));
    match greeted.count() {
        0 => Err("no SSH server answered there".into()),
        n if n < KEY_TYPES.len() => Err(format!(
            "the SSH server took {n} of {} connections, one for each kind of key: see MaxStartups and \
             PerSourcePenaltyExemptList in its sshd_config",
            KEY_TYPES.len()
        )),
        _ => Ok(()),
    }
}

/// The address is one that was looked up: nothing that somebody wrote is an argument.
async fn scan(program: &Path, at: SocketAddr) -> Result<Answer, String> {
    let failed = |error: std::io::Error| format!("{} could not be run: {error}", program.display());
    let mut child = Command::new(program)
        .args(["-c", "-T", PATIENCE_S, "-t", &KEY_TYPES.join(","), "-p"])
        .arg(at.port().to_string())
        .arg(at.ip().to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let none = "ssh-keyscan has no output";
    let (output, said) = (child.stdout.take().ok_or(none)?, child.stderr.take().ok_or(none)?);
    let (keys, said) = tokio::try_join!(read(output), read(said)).map_err(failed)?;
    Ok(Answer { keys, said })
    // Dropped here: it has ended, or has said more than anybody listens to and is ended.
}

async fn read(output: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut answer = Vec::new();
    output.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The host certificates in the answer that one of the type's authorities signed. Versions of the program differ in what
/// stands before the key.
pub(super) fn sight(answer: &str, known: &Known) -> Sight {
    let keys = known.own_of(KeyKind::Ssh);
    let authorities: Vec<_> = keys
        .filter_map(|key| Some((key.id, PublicKey::from_base64(&key.public_key).ok()?)))
        .collect();
    let mut presents: Vec<Presented> = vec![];
    for line in answer.lines() {
        let Some(certificate) = certificate(line).filter(|c| c.profile().role == SshRole::Host) else {
            continue;
        };
        let signer = authorities
            .iter()
            .find(|(_, key)| certificate.verify(key).is_ok());
        let presented = signer.map(|(issuer, _)| Presented {
            issuer: *issuer,
            not_after: certificate.profile().valid_before,
        });
        presents.extend(presented.filter(|p| !presents.contains(p)));
    }
    Sight::Ssh { presents }
}

fn certificate(line: &str) -> Option<SshCertificate> {
    let mut words = line
        .split_ascii_whitespace()
        .skip_while(|word| !word.ends_with(CERTIFICATE));
    let (kind, key) = (words.next()?, words.next()?);
    SshCertificate::parse(&format!("{kind} {key}")).ok()
}
