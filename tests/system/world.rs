//! A control plane and its agents as processes, driven by the real command line.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use carousel_tests::{Finished, NatsServer, PATIENCE, Proc, TestDir, bin, broker, deadline, run};
use serde_json::Value;
use uuid::Uuid;

use crate::wire::runtime;

/// A refusal, by the contract, takes an agent no longer.
const SOON: Duration = Duration::from_secs(15);

/// Which log a test runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Log {
    Embedded,
    JetStream,
}

/// A cluster on this machine.
pub(crate) struct World {
    pub(crate) dir: TestDir,
    pub(crate) serve: Option<Proc>,
    pub(crate) url: String,
    listen: String,
    pub(crate) agents: Vec<Agent>,
    nats: Option<NatsServer>,
    /// Where the broker is, also while somebody else holds it.
    log_url: Option<String>,
    /// Further variables of the control plane's environment.
    pub(crate) env: Vec<(String, String)>,
    /// Whom operators ask instead of the server that their identity names.
    pub(crate) server: Option<String>,
}

/// A node's agent.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) proc: Option<Proc>,
    pub(crate) args: Vec<String>,
    /// Further variables of its environment.
    pub(crate) env: Vec<(String, String)>,
}

impl World {
    /// A cluster that serves on the log, or `None` where the log is not to be had (the skip is printed).
    pub(crate) fn start(test: &str, log: Log) -> Option<Self> {
        Self::start_with(test, log, None)
    }

    /// The same with other durations than a product's (`init --settings`).
    pub(crate) fn start_with(test: &str, log: Log, settings: Option<&str>) -> Option<Self> {
        Self::start_in(TestDir::new(test), log, settings)
    }

    /// The same in a directory that may hold something already, such as disks of its own.
    pub(crate) fn start_in(dir: TestDir, log: Log, settings: Option<&str>) -> Option<Self> {
        let mut world = Self::empty_in(dir, log)?;
        let _ = run(&mut world.init_command(settings)).expect_code(0);
        world.serve();
        Some(world)
    }

    /// A cluster on a broker with the users and permissions that are shipped.
    pub(crate) fn start_shipped(test: &str) -> Option<Self> {
        let dir = TestDir::new(test);
        let nats = runtime().block_on(broker::shipped(&dir.join("nats")))?;
        let url = broker::url_of(&nats, "control-plane");
        let mut world = Self::on(dir, Some(nats), Some(url));
        let _ = run(&mut world.init_command(None)).expect_code(0);
        world.serve();
        Some(world)
    }

    /// A place for a cluster, and nothing in it yet.
    pub(crate) fn empty(test: &str, log: Log) -> Option<Self> {
        Self::empty_in(TestDir::new(test), log)
    }

    fn empty_in(dir: TestDir, log: Log) -> Option<Self> {
        let nats = match log {
            Log::Embedded => None,
            Log::JetStream => Some(runtime().block_on(NatsServer::start(dir.join("nats")))?),
        };
        let log_url = nats.as_ref().map(NatsServer::url);
        Some(Self::on(dir, nats, log_url))
    }

    fn on(dir: TestDir, nats: Option<NatsServer>, log_url: Option<String>) -> Self {
        Self {
            dir,
            serve: None,
            url: String::new(),
            listen: "127.0.0.1:0".into(),
            agents: vec![],
            log_url,
            nats,
            env: vec![],
            server: None,
        }
    }

    pub(crate) fn init_command(&self, settings: Option<&str>) -> Command {
        let mut init = carousel(&["init", "--cluster", "acme.cluster", "--data-dir"]);
        init.arg(self.data());
        if let Some(settings) = settings {
            init.arg("--settings")
                .arg(self.dir.write("settings.toml", settings));
        }
        init
    }

    /// The control plane's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("cp")
    }

    /// Starts the control plane; after the first time on the address of the first time.
    pub(crate) fn serve(&mut self) {
        let mut command = self.serve_command();
        self.serve_by(&mut command);
    }

    /// The same by another command, such as one with more arguments.
    pub(crate) fn serve_by(&mut self, command: &mut Command) {
        let mut proc = Proc::start("serve", command);
        let line = proc.wait_for_line("ready https://", PATIENCE);
        self.url = line.trim().trim_start_matches("ready ").to_owned();
        self.listen = self.url.trim_start_matches("https://").to_owned();
        self.serve = Some(proc);
    }

    pub(crate) fn serve_command(&self) -> Command {
        self.serve_command_for(&self.data(), &self.listen)
    }

    /// The same for another data directory on another address.
    pub(crate) fn serve_command_for(&self, data: &Path, listen: &str) -> Command {
        let data = data.display().to_string();
        let mut command = carousel(&["serve", "--data-dir", &data, "--listen", listen]);
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.envs(self.env.iter().cloned());
        if let Some(url) = &self.log_url {
            command.args(["--log", url]);
        }
        command
    }

    /// Where the broker is, for one of the users that are shipped.
    pub(crate) fn bus_url(&self, user: &str) -> String {
        broker::url_of(self.nats.as_ref().expect("a world with a broker"), user)
    }

    /// Kills the broker; its store stays.
    pub(crate) fn stop_broker(&mut self) {
        self.nats.as_mut().expect("a test on JetStream").kill();
    }

    /// Takes the broker out, so that it can be killed while others use the world.
    pub(crate) fn take_broker(&mut self) -> NatsServer {
        self.nats.take().expect("a test on JetStream")
    }

    /// Puts it back.
    pub(crate) fn put_broker(&mut self, nats: NatsServer) {
        self.nats = Some(nats);
    }

    /// Starts it again on the same port with the same store.
    pub(crate) fn start_broker(&mut self) {
        let nats = self.nats.as_mut().expect("a test on JetStream");
        runtime().block_on(nats.restart());
    }

    /// An operator's command.
    pub(crate) fn carousel(&self, args: &[&str]) -> Finished {
        run(&mut self.command(args))
    }

    /// The same, not run yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = carousel(args);
        command.env("CAROUSEL_IDENTITY", self.data().join("admin.identity"));
        if let Some(server) = &self.server {
            command.env("CAROUSEL_SERVER", server);
        }
        command
    }

    /// The JSON of a command that succeeds.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--format=json");
        self.carousel(&args).json()
    }

    /// A join token for a name: (token, CA pins, bundle pin).
    pub(crate) fn token(&self, args: &[&str]) -> (String, Vec<String>, String) {
        let mut all = vec!["tokens", "add"];
        all.extend(args);
        let answer = self.json(&all);
        let pins = answer["ca_pins"]
            .as_array()
            .expect("ca_pins")
            .iter()
            .map(text)
            .collect();
        (text(&answer["token"]), pins, text(&answer["bundle_pin"]))
    }

    /// A node that joins with a token of its own; returns when it has reached the current phase.
    pub(crate) fn join(&mut self, name: &str) {
        let (token, pins, bundle) = self.token(&["--name", name]);
        self.join_with(name, &token, &pins, &bundle);
        self.until_reached(name);
    }

    /// A node that joins with these; does not wait.
    pub(crate) fn join_with(&mut self, name: &str, token: &str, pins: &[String], bundle: &str) {
        self.arrive(name, token, pins, bundle).start();
    }

    /// The same node before its agent is started.
    pub(crate) fn arrive(&mut self, name: &str, token: &str, pins: &[String], bundle: &str) -> &mut Agent {
        let agent = self.agent_for(name, token, pins, bundle);
        self.agents.push(agent);
        self.agents.last_mut().expect("it was just put there")
    }

    /// The agent of a node that would join with these; not started yet, and nobody's.
    pub(crate) fn agent_for(&self, name: &str, token: &str, pins: &[String], bundle: &str) -> Agent {
        let dir = self.dir.join(&format!("node-{name}"));
        let token_file = self.dir.write(&format!("token-{name}"), token);
        let mut args: Vec<String> = vec!["start".into(), "--data-dir".into(), dir.display().to_string()];
        args.extend([
            "--server".into(),
            self.url.clone(),
            "--hostname".into(),
            name.into(),
        ]);
        args.extend(pins.iter().flat_map(|pin| ["--ca-pin".to_owned(), pin.clone()]));
        args.extend([
            "--bundle-pin".into(),
            bundle.into(),
            "--listen".into(),
            "127.0.0.1:0".into(),
        ]);
        args.extend(["--token-file".into(), token_file.display().to_string()]);
        Agent {
            name: name.into(),
            dir,
            proc: None,
            args,
            env: vec![],
        }
    }

    /// Somebody who is no node yet, on a directory of its own, at whatever answers there.
    pub(crate) fn first_contact(
        &self,
        server: &str,
        (name, token): (&str, &str),
        pins: (&[String], &str),
    ) -> Proc {
        let place = Uuid::now_v7();
        let token_file = self.dir.write(&format!("token-{place}"), token);
        let dir = self.dir.join(&format!("stranger-{place}"));
        self.run_line(&dir, server, (name, &token_file), pins)
    }

    /// The line that `tokens add` prints, with the token in a file.
    pub(crate) fn run_line(
        &self,
        dir: &Path,
        server: &str,
        (name, token_file): (&str, &Path),
        (pins, bundle): (&[String], &str),
    ) -> Proc {
        let mut command = Command::new(bin("carousel-agent"));
        command.args(["start", "--server", server, "--hostname", name]);
        command.args(pins.iter().flat_map(|pin| ["--ca-pin", pin]));
        command.args(["--bundle-pin", bundle]);
        command.arg("--data-dir").arg(dir);
        command.arg("--token-file").arg(token_file);
        Proc::start("stranger", command.env_remove("CAROUSEL_TOKEN"))
    }

    pub(crate) fn agent(&mut self, name: &str) -> &mut Agent {
        self.agents
            .iter_mut()
            .find(|a| a.name == name)
            .expect("an agent of this name")
    }

    /// The node as `get nodes` has it.
    pub(crate) fn node(&self, name: &str) -> Option<Value> {
        let nodes = self.json(&["get", "nodes"]);
        nodes
            .as_array()?
            .iter()
            .find(|n| n["spec"]["hostname"] == name)
            .cloned()
    }

    /// Waits until the node has reached the cluster's phase by the gate's own rules.
    pub(crate) fn until_reached(&self, name: &str) {
        deadline(PATIENCE, &format!("{name} reaches the cluster's phase"), || {
            let node = self.node(name)?;
            let host = &node["spec"]["authorities"]["host"];
            (host.is_object() && host["missing"].is_null()).then_some(())
        });
    }

    /// The host authority in `status`.
    pub(crate) fn host(&self) -> Value {
        authority(&self.json(&["status"]), "host")
    }

    /// Waits until every required node and the control plane itself have reached the phase, and in standby until the
    /// log says that nobody accepts the retired authority any more.
    pub(crate) fn until_all_reached(&self) {
        deadline(PATIENCE, "all nodes reach the phase", || {
            let status = self.json(&["status"]);
            let host = authority(&status, "host");
            let members = status["members"].as_array()?;
            let idle = host["rotation"]["state"] == "standby";
            let reached = host["nodes"]["lagging"] == 0
                && members.iter().all(|member| member["reached"]["host"] == true)
                && (!idle || host["rotation"]["settled"] == true);
            reached.then_some(())
        });
    }

    /// Enters a phase by hand, as soon as the status allows.
    pub(crate) fn enter(&self, authority_type: &str, phase: &str) -> Finished {
        self.carousel(&[
            "auth",
            "rotate",
            "--manual",
            &format!("--type={authority_type}"),
            &format!("--phase={phase}"),
        ])
    }

    /// The same, and waits until everybody has reached it.
    pub(crate) fn enter_and_wait(&self, authority_type: &str, phase: &str) {
        let (of, to) = (format!("--type={authority_type}"), format!("--phase={phase}"));
        let args = [
            "auth",
            "rotate",
            "--manual",
            &of,
            &to,
            "--wait",
            "--timeout",
            "60s",
        ];
        let _ = self.carousel(&args).expect_code(0);
    }
}

impl Agent {
    pub(crate) fn start(&mut self) {
        let mut command = self.command();
        self.start_by(&mut command);
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(bin("carousel-agent"));
        command
            .args(&self.args)
            .env_remove("CAROUSEL_TOKEN")
            .envs(self.env.iter().cloned());
        command
    }

    /// Starts it by another command.
    pub(crate) fn start_by(&mut self, command: &mut Command) {
        self.proc = Some(Proc::start(&self.name, command));
    }

    /// Starts it once with another server, such as one that is none.
    pub(crate) fn start_with_server(&mut self, url: &str) {
        let mut args = self.args.clone();
        let server = args.iter().position(|arg| arg == "--server");
        args[server.expect("it was started with one") + 1] = url.to_owned();
        let mut command = Command::new(bin("carousel-agent"));
        command.args(args).env_remove("CAROUSEL_TOKEN");
        self.start_by(&mut command);
    }

    /// Starts it with other arguments from now on, such as without its token.
    pub(crate) fn start_without_token(&mut self) {
        if let Some(at) = self.args.iter().position(|a| a == "--token-file") {
            self.args.drain(at..at + 2);
        }
        self.start();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut proc) = self.proc.take() {
            proc.kill9();
        }
    }
}

pub(crate) fn carousel(args: &[&str]) -> Command {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BIN.get_or_init(|| bin("carousel")));
    command
        .args(args)
        .env_remove("CAROUSEL_IDENTITY")
        .env_remove("CAROUSEL_SERVER")
        .env("NO_COLOR", "1");
    command
}

/// What an agent said that ends by itself in the time of the contract.
pub(crate) fn given_up(mut agent: Proc) -> Finished {
    Finished {
        code: agent.wait(SOON).code(),
        stdout: agent.stdout(),
        stderr: agent.stderr(),
    }
}

/// One authority of a `status` document.
pub(crate) fn authority(status: &Value, name: &str) -> Value {
    let all = status["authorities"].as_array().expect("authorities");
    all.iter()
        .find(|a| a["type"] == name)
        .cloned()
        .unwrap_or_else(|| panic!("no {name} in {status}"))
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}
