//! A real `carousel serve`, in a process of its own that can be killed and weighed.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::bench::{BenchError, machine::memory_kib};

/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(120);

/// The control plane at work; it ends with this.
pub(crate) struct Serve {
    child: Child,
    process: u32,
    /// `https://127.0.0.1:PORT`.
    pub(crate) url: String,
}

impl Serve {
    /// Starts it on its directory and waits until it is ready. What it says stands in `serve.log` there.
    pub(crate) async fn start(dir: &Path, listen: &str) -> Result<Self, BenchError> {
        let mut child = spawn(dir, listen).map_err(BenchError::Process)?;
        let process = child.id().unwrap_or_default();
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.strip_prefix("ready ") {
                    return Some(url.to_owned());
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(Some(url)) => Ok(Self { child, process, url }),
            Ok(None) | Err(_) => Err(BenchError::Stuck(format!(
                "`carousel serve` does not serve; it says why in {}",
                said(dir).display()
            ))),
        }
    }

    /// Its address, to be listened on again.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("https://")
    }

    /// Memory now, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        memory_kib(self.process, "VmRSS:")
    }

    /// Memory at the most, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        memory_kib(self.process, "VmHWM:") / 1024
    }

    /// As a failing machine would end it.
    pub(crate) async fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill().await.map_err(BenchError::Process)
    }
}

fn spawn(dir: &Path, listen: &str) -> std::io::Result<Child> {
    let says = File::options().create(true).append(true).open(said(dir))?;
    Command::new(std::env::current_exe()?)
        .args([
            "serve",
            "--admin-listen",
            "127.0.0.1:0",
            "--listen",
            listen,
            "--data-dir",
        ])
        .arg(dir)
        .env("CAROUSEL_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(says)
        .kill_on_drop(true)
        .spawn()
}

fn said(dir: &Path) -> PathBuf {
    dir.with_extension("log")
}
