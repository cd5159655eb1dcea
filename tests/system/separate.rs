//! Services in processes of their own, each as its own user of the broker: any of them may die in the middle.

use std::collections::BTreeMap;

use carousel_tests::{PATIENCE, Proc, deadline, run};

use crate::world::{World, carousel, text};

/// The processes of a control plane, by a name of the test's.
struct Apart {
    world: World,
    procs: BTreeMap<&'static str, Proc>,
    urls: BTreeMap<&'static str, String>,
}

/// What each runs; the signer where the keys are.
const PROCESSES: [(&str, &str); 7] = [
    ("signer", "signer"),
    ("orchestrator-1", "orchestrator"),
    ("orchestrator-2", "orchestrator"),
    ("projector-1", "projector"),
    ("projector-2", "projector"),
    ("gateway-1", "gateway"),
    ("gateway-2", "gateway"),
];

impl Apart {
    /// A cluster that was begun in one process and goes on in seven.
    fn start(test: &str) -> Option<Self> {
        let mut world = World::start_shipped(test)?;
        let mut whole = world.serve.take().expect("it serves");
        whole.terminate();
        assert!(whole.wait(PATIENCE).success(), "{}", whole.transcript());
        let mut apart = Self {
            world,
            procs: BTreeMap::new(),
            urls: BTreeMap::new(),
        };
        // In any order: each waits for nobody that is not there.
        for (name, service) in PROCESSES.into_iter().rev() {
            apart.begin(name, service);
        }
        apart.all_ready();
        apart.ask("gateway-1");
        Some(apart)
    }

    fn begin(&mut self, name: &'static str, service: &str) {
        let (log, listen) = (self.world.bus_url(service), self.urls.get(name));
        let listen = listen.map_or("127.0.0.1:0", |url| url.trim_start_matches("https://"));
        let mut command = carousel(&["serve", "--services", service, "--admin-listen", "127.0.0.1:0"]);
        // Not on the command line, where everybody could read the password.
        command.env("CAROUSEL_EVENT_LOG", log).args(["--listen", listen]);
        if service == "signer" {
            command.arg("--data-dir").arg(self.world.data());
        } else {
            command.args(["--cluster", "acme.cluster", "--data-dir"]);
            command.arg(self.world.dir.join(name));
        }
        self.procs.insert(name, Proc::start(name, &mut command));
    }

    fn all_ready(&mut self) {
        for (name, _) in PROCESSES {
            self.ready(name);
        }
    }

    fn ready(&mut self, name: &'static str) {
        let proc = self.procs.get_mut(name).expect("it was started");
        let line = proc.wait_for_line("ready ", PATIENCE);
        if let Some((_, url)) = line.split_once("ready https://") {
            self.urls.insert(name, format!("https://{}", url.trim()));
        }
    }

    /// Operators ask this gateway from now on.
    fn ask(&mut self, gateway: &'static str) {
        self.world.server = Some(self.urls[gateway].clone());
        self.world.url = self.urls[gateway].clone();
    }

    fn kill(&mut self, name: &'static str) {
        self.procs.remove(name).expect("it runs").kill9();
    }

    /// A node whose agent knows both gateways, this one first.
    fn join(&mut self, node: &str, first: &'static str, second: &'static str) {
        self.ask(first);
        let (token, pins, bundle) = self.world.token(&["--name", node]);
        let second = self.urls[second].clone();
        let agent = self.world.arrive(node, &token, &pins, &bundle);
        agent.args.extend(["--server".into(), second]);
        agent.start();
        self.world.until_reached(node);
    }

    fn online(&self) -> Vec<String> {
        let nodes = self.world.json(&["get", "nodes"]);
        let nodes = nodes.as_array().expect("nodes").iter();
        let online = nodes.filter(|node| node["status"]["online"] == true);
        online.map(|node| text(&node["spec"]["hostname"])).collect()
    }
}

#[test]
fn a_rotation_goes_on_whichever_of_the_services_is_killed_and_the_log_verifies() {
    let Some(mut apart) = Apart::start("separate") else {
        return;
    };
    apart.join("n1", "gateway-1", "gateway-2");
    apart.join("n2", "gateway-2", "gateway-1");
    for gateway in ["gateway-1", "gateway-2"] {
        apart.ask(gateway);
        deadline(PATIENCE, "each gateway tells of the nodes at the other", || {
            (apart.online() == ["n1", "n2"]).then_some(())
        });
    }
    // One of two is gone for good; the only signer, and the gateway that is asked, come back.
    apart.kill("orchestrator-1");
    apart.world.enter_and_wait("host", "init");
    apart.kill("projector-2");
    apart.world.enter_and_wait("host", "update_clients");
    apart.kill("signer");
    apart.begin("signer", "signer");
    apart.world.enter_and_wait("host", "update_servers");
    apart.kill("gateway-1");
    apart.begin("gateway-1", "gateway");
    apart.world.enter_and_wait("host", "standby");
    for node in ["n1", "n2"] {
        apart.world.until_reached(node);
    }
    assert!(apart.world.host()["rotation"]["last_rotated"].is_string());
    let _ = apart.world.carousel(&["audit", "verify"]).expect_code(0);
    // Without an orchestrator nothing is decided, and that is said; what is known is still told.
    apart.kill("orchestrator-2");
    let refused = apart.world.enter("host", "init");
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("no orchestrator takes commands"),
        "{}",
        refused.stderr
    );
    let _ = apart.world.carousel(&["status"]).expect_code(0);
    apart.begin("orchestrator-2", "orchestrator");
    apart.world.enter_and_wait("host", "init");
}

#[test]
fn services_that_cannot_run_apart_say_why() {
    let dir = carousel_tests::TestDir::new("separate-refused");
    let data = dir.join("cp");
    let serve = |args: &[&str]| {
        let mut command = carousel(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        run(command.args(args).arg("--data-dir").arg(&data))
    };
    for (args, code, expected) in [
        (&["--services", "signers"][..], 2, "\"signers\" is none of them"),
        (
            &["--services", "signer", "--cluster", "acme.cluster"],
            1,
            "a signer needs them",
        ),
        (&["--services", "gateway"], 1, "carousel init"),
        (
            &["--services", "gateway", "--cluster", "acme.cluster"],
            1,
            "only over NATS",
        ),
        (
            &["--services", "gateway", "--cluster", "other.cluster"],
            1,
            "belongs to the cluster acme.cluster",
        ),
    ] {
        let refused = serve(args);
        assert_eq!(refused.code, Some(code), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{args:?}: {}", refused.stderr);
    }
}
