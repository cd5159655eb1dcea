//! An sshd whose agent keeps its certificate, and a client whose agent keeps its known hosts: nobody signs by hand, and
//! nobody is asked about a host key.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use carousel_tests::{PATIENCE, deadline, eventually, skip};
use serde_json::Value;

use super::{
    enter,
    openssh::{BACK, FORWARD, Host, Machine, Person, new_host_key, own_account, sshd},
};
use crate::world::{Log, World};

#[test]
fn an_agent_keeps_the_certificate_of_its_sshd_and_no_login_ever_asks_about_a_host_key() {
    let test = "verifiers-kept";
    if sshd().is_none() {
        return skip(test, "sshd is not installed");
    }
    let mut world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    world.join("bastion");
    let (web, bastion) = (world.dir.join("node-web-1"), world.dir.join("node-bastion"));
    let host = Host {
        certificate: web.join("current/ssh_host_key-cert.pub"),
        trusted_people: web.join("current/openssh/trusted_user_ca_keys"),
        revoked_people: Some(web.join("current/openssh/revoked_keys")),
        known_hosts: bastion.join("current/ssh_known_hosts"),
        revoked_hosts: Some(bastion.join("current/ssh_revoked_hosts")),
        name: "web-1",
    };
    // The key first: an agent that finds none says so.
    new_host_key(&world);
    web_joins(&mut world);
    let mut machine = Machine::with_key(&world, own_account(), host);
    let person = machine.person("deploy");
    machine.deploy_is_signed(&person);
    deadline(PATIENCE, "the first certificate", || {
        fs::exists(&machine.host.certificate).ok()?.then_some(())
    });
    machine.begin();

    let (stop, logins, failed) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        Mutex::<Vec<String>>::default(),
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                match machine.login(&person) {
                    Ok(()) => drop(logins.fetch_add(1, Ordering::SeqCst)),
                    Err(said) => failed.lock().expect("nobody panics with it").push(said),
                }
            }
        });
        let rotations = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for phase in BACK.into_iter().chain(FORWARD) {
                enter(&world, "host", phase);
                let before = logins.load(Ordering::SeqCst);
                // The first that ends may have begun in the phase before.
                eventually(&format!("logins in {phase}"), || {
                    logins.load(Ordering::SeqCst) >= before + 2
                });
                assert_eq!(generation(&world), serving(phase), "{phase}");
            }
        }));
        stop.store(true, Ordering::SeqCst);
        rotations.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    machine.nobody_was_kept_out(failed);
    let lines = fs::read_to_string(&machine.host.known_hosts).expect("the client's agent keeps it");
    assert_eq!(
        lines.lines().count(),
        1,
        "only the new authority is known: {lines}"
    );
    what_is_revoked_is_refused(&world, &machine, &person);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// By sshd and by ssh, from the lists that agents keep for them.
fn what_is_revoked_is_refused(world: &World, machine: &Machine<'_>, person: &Person) {
    let revoke = |whose: [&str; 2]| {
        let args = ["certificates", "revoke", whose[0], whose[1], "--reason", "lost"];
        let _ = world.carousel(&args).expect_code(0);
        deadline(PATIENCE, "the refusal", || machine.login(person).err())
    };
    let _ = revoke(["--external", "deploy"]);
    machine.deploy_is_signed(person);
    assert_eq!(
        machine.login(person),
        Ok(()),
        "the next certificate is another one"
    );
    let said = revoke(["--node", "web-1"]);
    assert!(said.contains("revoked"), "{said}");
}

/// The agent beside sshd: it is told of the key, and whom to tell of a new certificate.
fn web_joins(world: &mut World) {
    let at = |file: &str| world.dir.join(file).display().to_string();
    let (key, pid) = (at("host_key.pub"), at("sshd.pid"));
    // Before sshd runs there is nobody to tell.
    let tell = format!("test ! -e {pid} || kill -HUP $(cat {pid})");
    let config = format!("ssh_host_key = '{key}'\n[[reload]]\ncommand = ['/bin/sh', '-c', '{tell}']\n");
    let config = world.dir.write("web-1.toml", &config).display().to_string();
    let (token, pins, bundle) = world.token(&["--name", "web-1", "--use", "openssh"]);
    let agent = world.arrive("web-1", &token, &pins, &bundle);
    agent.args.extend(["--config".into(), config]);
    agent.start();
    world.until_reached("web-1");
}

/// The generation whose authority signed what sshd presents, by the node's own report.
fn generation(world: &World) -> Option<Value> {
    let held = world.node("web-1")?["spec"]["authorities"]["host"]["ssh_issuer"].clone();
    let host = world.host();
    let keys = host["keys"].as_array()?;
    let of_ssh = keys
        .iter()
        .find(|key| key["protocol"] == "ssh" && key["pin"] == held)?;
    Some(of_ssh["status"].clone())
}

/// What the new authority is called in a phase in which sshd presents it, or the old one where it does not.
fn serving(phase: &str) -> Option<Value> {
    Some(
        if phase == "update_servers" {
            "prepared"
        } else {
            "active"
        }
        .into(),
    )
}
