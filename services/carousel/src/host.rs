//! Commands that only this host may give: a socket in the data directory, for its owner alone.
//!
//! There is one: a new administrator identity. It must work when every operator's identity has expired, so
//! it cannot come through the door; whoever can open this socket could read the keys beside it anyway.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{Answer, Order, Principal, UserName, id::SystemActor};
use execution::{ExecuteError, Executor, Fold};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The longest request or answer.
const MAX_BYTES: u64 = 1024 * 1024;
/// How long one exchange may take; the signer answers within it or not at all.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest path in a socket's address on every system that this is built for; Linux takes four bytes more.
const MAX_SOCKET_PATH: usize = 103;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecoverRequest {
    /// The administrator.
    pub user: UserName,
    /// The certificate request, PEM.
    pub csr: String,
    /// Why, for the audit log.
    pub reason: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoverAnswer {
    /// The certificate, DER, base64, and the newest host bundle.
    Issued {
        /// DER, base64.
        certificate: String,
        /// What to trust.
        bundle: Box<domain::trust::SignedBundle>,
        /// The address to put into the identity file.
        server: String,
    },
    /// The rules say no: the code and its sentence.
    Refused(String),
    /// It is not possible now.
    Failed(String),
}

/// The socket, bound; its name goes with it.
pub struct HostSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl HostSocket {
    /// Makes the socket, for its owner alone. Whoever connects waits until it is served.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn bind(path: &Path) -> io::Result<Self> {
        // A socket left by a killed process: the directory's lock says that nobody uses it.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(ShortName::of(path)?.name())?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path: path.into(),
        })
    }

    /// Serves it until shutdown. `server` is the address for identity files.
    pub async fn serve(self, fold: Fold, executor: Executor, server: String, shutdown: CancellationToken) {
        let mut exchanges = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = exchanges.join_next() => {}
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let (fold, executor, server) = (fold.clone(), executor.clone(), server.clone());
                    exchanges.spawn(async move {
                        if !matches!(timeout(PATIENCE, exchange(stream, fold, executor, server)).await, Ok(Ok(()))) {
                            tracing::warn!("a request of this host was not answered");
                        }
                    });
                }
            }
        }
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A name of a socket that fits into an address, whatever the length of its path.
enum ShortName {
    /// The path itself.
    Path(PathBuf),
    /// Through the opened directory, which has to stay open while the name is used.
    Through { name: PathBuf, _dir: File },
}

impl ShortName {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self::Path(path.into()));
        }
        let parts = path.parent().zip(path.file_name());
        let Some((dir, file)) = parts.filter(|_| cfg!(target_os = "linux")) else {
            let text =
                format!("the path is longer than {MAX_SOCKET_PATH} bytes; give a shorter data directory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let dir = File::open(dir)?;
        let name = Path::new("/proc/self/fd")
            .join(dir.as_raw_fd().to_string())
            .join(file);
        Ok(Self::Through { name, _dir: dir })
    }

    fn name(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Through { name, .. } => name,
        }
    }
}

/// Asks the running control plane of this data directory.
///
/// # Errors
/// When none runs, or it does not answer.
pub async fn ask(socket: &Path, request: &RecoverRequest) -> io::Result<RecoverAnswer> {
    let exchange = async {
        let socket = ShortName::of(socket)?;
        let mut stream = UnixStream::connect(socket.name()).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    };
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(stream: UnixStream, fold: Fold, executor: Executor, server: String) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    (&mut stream).take(MAX_BYTES).read_until(b'\n', &mut line).await?;
    let answer = match serde_json::from_slice::<RecoverRequest>(&line) {
        Ok(request) => recover(&fold, &executor, &request, server).await,
        Err(error) => RecoverAnswer::Failed(format!("the request cannot be read: {error}")),
    };
    let mut stream = stream.into_inner();
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await
}

/// Executes the one command of this host.
pub async fn recover(
    fold: &Fold,
    executor: &Executor,
    request: &RecoverRequest,
    server: String,
) -> RecoverAnswer {
    match try_recover(fold, executor, request).await {
        Ok((certificate, bundle)) => RecoverAnswer::Issued {
            certificate,
            bundle: Box::new(bundle),
            server,
        },
        Err(no) => no,
    }
}

async fn try_recover(
    fold: &Fold,
    executor: &Executor,
    request: &RecoverRequest,
) -> Result<(String, domain::trust::SignedBundle), RecoverAnswer> {
    let failed = |why: String| RecoverAnswer::Failed(why);
    let key = pki::csr::parse_and_verify(request.csr.as_bytes()).map_err(|e| failed(e.to_string()))?;
    let order = Order::RecoverAdmin {
        user: request.user.clone(),
        key,
    };
    let mut command = executor.own_command(Principal::System(SystemActor::Host), order);
    command.reason.clone_from(&request.reason);
    let answered = executor.execute(command).await.map_err(|error| match error {
        ExecuteError::Refused(refusal) => RecoverAnswer::Refused(refusal.to_string()),
        ExecuteError::Unavailable(why) => failed(why),
    })?;
    let Answer::Authorized { authorization } = answered.answer else {
        return Err(failed("the control plane gave an unexpected answer".into()));
    };
    let issued = fold
        .issued(authorization, Duration::from_secs(10))
        .await
        .map_err(|e| failed(e.to_string()))?;
    let bundle = fold.bundle(domain::AuthorityType::Host).await.map_err(failed)?;
    let bundle =
        bundle.ok_or_else(|| failed("the host bundle is not signed yet; try again in a moment".into()))?;
    Ok((issued.certificate, bundle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_data_directory_with_a_long_name_has_a_socket_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir
            .path()
            .join("a-long-name".repeat(9))
            .join("and-another".repeat(9));
        std::fs::create_dir_all(&long).unwrap();
        let path = long.join("host.sock");
        assert!(path.as_os_str().len() > 200);
        // Twice: the second finds what a killed process left.
        std::mem::forget(HostSocket::bind(&path).unwrap());
        let socket = HostSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let answering = async {
            let (stream, _) = socket.listener.accept().await.unwrap();
            let (mut stream, mut asked) = (BufReader::new(stream), String::new());
            stream.read_line(&mut asked).await.unwrap();
            assert!(asked.contains("admin"), "{asked}");
            stream.write_all(br#"{"refused":"not today"}"#).await.unwrap();
        };
        let request = RecoverRequest {
            user: "admin".parse().unwrap(),
            csr: String::new(),
            reason: None,
        };
        let (answer, ()) = tokio::join!(ask(&path, &request), answering);
        assert!(matches!(answer.unwrap(), RecoverAnswer::Refused(why) if why == "not today"));
        drop(socket);
        assert!(!path.exists(), "its name goes with it");
    }
}
