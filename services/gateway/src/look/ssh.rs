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
const KEY_TYPES: &str = "ecdsa,ed25519,rsa";
/// How the type of a certificate ends in its line.
const CERTIFICATE: &str = "-cert-v01@openssh.com";

pub(super) async fn look(at: SocketAddr, known: &Known) -> Result<Sight, String> {
    let program = keyscan().ok_or(
        "ssh-keyscan is not installed on the gateway's machine: install OpenSSH's client there (openssh-client)",
    )?;
    let answer = scan(program, at).await?;
    Ok(sight(&answer, known))
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

/// The address is one that was looked up: nothing that somebody wrote is an argument.
async fn scan(program: &Path, at: SocketAddr) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{} could not be run: {error}", program.display());
    let mut child = Command::new(program)
        .args(["-c", "-T", PATIENCE_S, "-t", KEY_TYPES, "-p"])
        .arg(at.port().to_string())
        .arg(at.ip().to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take().ok_or("ssh-keyscan has no output")?;
    read(output).await.map_err(failed)
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
