//! A real nats-server for tests: free port, own store, synced always, killed by its process id.

#![allow(
    clippy::print_stderr,
    reason = "a skipped test says so where the runner collects it"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde::Deserialize;

pub use tamper::tamper;

mod tamper;

/// A running nats-server. It is killed when this is dropped, and its store stays in the directory given.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    directory: PathBuf,
    settings: String,
    port: u16,
    child: Option<Child>,
}

/// What the server writes into its ports file once it accepts connections.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Starts a server that keeps its store in `directory` and waits until it accepts connections.
    ///
    /// `None` if there is no server to start: the test is skipped, and says so; with `CI=true` it fails.
    pub async fn start(directory: impl AsRef<Path>) -> Option<Self> {
        Self::start_with(directory, "").await
    }

    /// The same with further lines of configuration.
    pub async fn start_with(directory: impl AsRef<Path>, settings: &str) -> Option<Self> {
        let binary = Self::binary_or_skip()?;
        let directory = directory.as_ref().to_owned();
        let mut server = Self {
            binary,
            directory,
            settings: settings.into(),
            port: 0,
            child: None,
        };
        server.launch().await;
        Some(server)
    }

    /// The server to use: `$NATS_SERVER`, then `PATH`, then what `tests/run` has fetched; 2.12.3 or newer.
    pub fn binary() -> Option<PathBuf> {
        let named = env::var_os("NATS_SERVER").map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|directory| directory.join("nats-server"));
        let here = env::current_exe().unwrap_or_default();
        let fetched = here
            .ancestors()
            .map(|directory| directory.join("tools/bin/nats-server"));
        named
            .into_iter()
            .chain(on_path)
            .chain(fetched)
            .find(|candidate| is_new_enough(candidate))
    }

    /// The URL to connect to; it stays the same over restarts.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it at once, as a crash would; the store stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill and only its status to collect.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it if it runs, and starts it again on the same port with the same store.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    fn binary_or_skip() -> Option<PathBuf> {
        let found = Self::binary();
        if found.is_none() {
            let why = "no nats-server 2.12.3 or newer at $NATS_SERVER, on PATH or in target/tools/bin";
            assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
            eprintln!("SKIPPED: {}: {why}", thread::current().name().unwrap_or("a test"));
        }
        found
    }

    async fn launch(&mut self) {
        // Port -1 lets the server choose; a restart names the port that it had chosen.
        let port = if self.port == 0 { -1 } else { i32::from(self.port) };
        let (store, ports) = (self.directory.join("jetstream"), self.directory.join("ports"));
        fs::create_dir_all(&ports).expect("the test's directory is writable");
        let config = format!(
            "host: 127.0.0.1\nport: {port}\nserver_name: test\nserver_tags: [\"sync:always\"]\n\
             ports_file_dir: {ports:?}\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n{}\n",
            self.settings
        );
        let path = self.directory.join("nats.conf");
        fs::write(&path, config).expect("the test's directory is writable");
        let log =
            fs::File::create(self.directory.join("nats.log")).expect("the test's directory is writable");
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a nats-server that told its version starts");
        let file = ports.join(format!("nats-server_{}.ports", child.id()));
        self.child = Some(child);
        self.port = self.wait_for_port(&file).await;
    }

    async fn wait_for_port(&mut self, file: &Path) -> u16 {
        for _ in 0..2_000 {
            if let Some(port) = fs::read(file).ok().and_then(|text| port_in(&text)) {
                // A server that is killed leaves the file behind, and another process may get its id.
                let _ = fs::remove_file(file);
                return port;
            }
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                panic!("nats-server ended with {status}: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("nats-server was not ready in 10 s: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("nats.log")).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn port_in(text: &[u8]) -> Option<u16> {
    let ports: Ports = serde_json::from_slice(text).ok()?;
    ports.nats.first()?.rsplit(':').next()?.parse().ok()
}

fn is_new_enough(binary: &Path) -> bool {
    let Ok(output) = Command::new(binary).arg("--version").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(version) = text.trim().rsplit('v').next() else {
        return false;
    };
    let numbers: Vec<i64> = version
        .split(['.', '-'])
        .take(3)
        .map_while(|number| number.parse().ok())
        .collect();
    numbers.as_slice() >= &[2, 12, 3][..]
}
