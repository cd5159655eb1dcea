//! `auth rotate` at a terminal, as a person has it: a pty, keys, and what the screen shows.

use crate::{
    pty::{Pty, SIZE},
    terminal::{kept, same},
    world::{Log, World},
};

const ENTER: &str = "\r";
const DOWN: &str = "\x1b[B";
const ESCAPE: &str = "\x1b";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

/// The command at a terminal that can do everything.
fn sit(world: &World) -> Pty {
    Pty::start(&mut command(world))
}

fn command(world: &World) -> std::process::Command {
    let mut command = world.command(&["auth", "rotate"]);
    command
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR")
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Takes the first authority, which is the host's, and waits until its steps are there.
fn take_host(pty: &mut Pty) {
    pty.asks("Authority 1-");
    pty.types(ENTER);
    pty.asks("Step 1-");
    pty.shows(" reached");
}

/// From the steps to the confirmation of the marked one.
fn up_to_the_word(pty: &mut Pty, word: &str) {
    pty.types(ENTER);
    pty.asks("Reason for the audit log");
    pty.types(ENTER);
    pty.asks(&format!("Type \"{word}\" to send it"));
}

/// Makes the marked step.
fn make(pty: &mut Pty, word: &str) {
    up_to_the_word(pty, word);
    pty.types(word);
    pty.types(ENTER);
}

fn fleet(test: &str, names: &[&str]) -> Option<World> {
    let mut world = World::start(test, Log::Embedded)?;
    names.iter().for_each(|name| world.join(name));
    Some(world)
}

/// From the last place where this stands.
fn from<'a>(text: &'a str, mark: &str) -> &'a str {
    &text[text
        .rfind(mark)
        .unwrap_or_else(|| panic!("no {mark:?} in\n{text}"))..]
}

/// What differs from run to run made the same: times, pins, ages, and how long things took.
fn settled(text: &str) -> String {
    let plan = |line: &str| match line.split_once(" at position ") {
        Some((title, rest)) if rest.ends_with(" UTC). Nothing was changed.") => {
            format!("{title} at position <n> (<time>). Nothing was changed.")
        }
        _ => line.to_owned(),
    };
    let masked: String = text.lines().map(|line| plan(line) + "\n").collect();
    same(&masked)
        .lines()
        .map(|line| times_taken(line).trim_end().to_owned() + "\n")
        .collect()
}

/// A line without how long things took: `in 1.2 s`, `since 3 s`, and the clock of a wait.
fn times_taken(line: &str) -> String {
    if let Some((row, clock)) = line.rsplit_once("   ")
        && row.ends_with("reached")
        && clock.contains(':')
    {
        return format!("{row}   <clock>");
    }
    let words: Vec<&str> = line.split(' ').collect();
    let is_unit = |word: &&str| ["s", "min"].contains(&word.trim_end_matches([',', '.']));
    let masked = words.iter().enumerate().map(|(at, word)| {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        if is_number && words.get(at + 1).is_some_and(is_unit) {
            "<n>"
        } else {
            *word
        }
    });
    masked.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_person_rotates_by_keys_from_the_list_of_authorities_to_the_end() {
    let Some(world) = fleet("guided", &["n1", "n2"]) else {
        return;
    };
    let mut screens = String::new();
    let mut keep = |title: &str, text: &str| {
        screens.push_str(&format!("== {title}\n{}\n", settled(text)));
    };
    let mut pty = sit(&world);
    pty.asks("Authority 1-12: 1");
    assert!(pty.is_raw());
    keep("the authorities", &pty.screen());
    pty.types(ENTER);
    pty.asks("Step 1-2: 1");
    pty.shows("2/2 reached");
    keep(
        "the steps of an idle authority",
        from(&pty.screen(), "Host CA of acme.cluster: "),
    );
    pty.types(ENTER);
    pty.asks("Reason for the audit log");
    keep(
        "the plan of the first step",
        from(&pty.all(), "Host CA of acme.cluster at "),
    );
    pty.types(&format!("CHG-4411{ENTER}"));
    pty.asks("Type \"init\" to send it");
    pty.types(&format!("init{ENTER}"));
    for (at, next) in [
        ("init", "update_clients"),
        ("update_clients", "update_servers"),
        ("update_servers", "standby"),
    ] {
        pty.asks("Step 1-2: 1");
        pty.shows(&format!("host CA  {at}  "));
        pty.shows("gate open");
        keep(
            &format!("the steps from {at}"),
            from(&pty.all(), &format!("✓ host CA: all 2 nodes reached {at} in ")),
        );
        pty.types(ENTER);
        pty.asks("Reason for the audit log (may be empty): CHG-4411");
        keep(
            &format!("the plan of {next}"),
            from(&pty.all(), "Host CA of acme.cluster at "),
        );
        pty.types(ENTER);
        pty.asks(&format!("Type \"{next}\" to send it"));
        pty.types(&format!("{next}{ENTER}"));
    }
    let all = pty.ends(0);
    keep("the end", from(&all, "✓ host CA: all 2 nodes reached standby"));
    kept("guided.txt", &screens);
    let host = world.host();
    assert_eq!(host["rotation"]["state"], "standby");
    assert!(host["rotation"]["last_rotated"].is_string(), "{host}");
    let events = world
        .carousel(&["audit", "ls", "--type", "rotation"])
        .expect_code(0);
    assert_eq!(events.matches("CHG-4411").count(), 4, "{events}");
}

#[test]
fn whoever_leaves_changes_nothing_and_gets_the_terminal_back_as_it_was() {
    let Some(world) = fleet("guided-left", &["n1"]) else {
        return;
    };
    for (keys, code) in [("q", 0), (ESCAPE, 0), (CTRL_D, 0), (CTRL_C, 130)] {
        let mut pty = sit(&world);
        pty.asks("Authority 1-");
        pty.types(keys);
        assert!(pty.ends(code).contains("Left. Nothing was changed."), "{keys:?}");
    }
    let mut pty = sit(&world);
    take_host(&mut pty);
    up_to_the_word(&mut pty, "init");
    pty.types(&format!("yes{ENTER}"));
    pty.shows("Not confirmed: nothing was sent.");
    pty.asks("Step 1-2: 1");
    up_to_the_word(&mut pty, "init");
    pty.types("init");
    pty.asks("goes back): init");
    pty.types(CTRL_C);
    let all = pty.ends(130);
    assert!(
        all.contains("Left. Nothing was changed.\nHost CA: standby, 1/1 reached.\n"),
        "{all}"
    );
    assert_eq!(world.host()["rotation"]["state"], "standby");
    // A signal gives the terminal back too.
    let pty = sit(&world);
    pty.asks("Authority 1-");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pty.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let _ = pty.ends(130);
    // In the middle of a rotation it says how to go on.
    let mut pty = sit(&world);
    take_host(&mut pty);
    make(&mut pty, "init");
    pty.asks("Step 1-2: 1");
    pty.shows("host CA  init  ");
    pty.shows("gate open");
    pty.types("q");
    let all = pty.ends(0);
    let end = "Left. Nothing that was accepted is undone.\nHost CA: init, manual, 1/1 reached.\n\
               Next: carousel auth rotate --manual --type=host --phase=update_clients --wait\n";
    assert!(all.contains(end), "{all}");
    assert_eq!(world.host()["rotation"]["phase"], "init");
}

#[test]
fn only_a_person_at_a_terminal_is_asked() {
    let Some(world) = World::start("guided-nobody", Log::Embedded) else {
        return;
    };
    let missing = "error: required flag --type not provided";
    let finished = world.carousel(&["auth", "rotate"]);
    assert!(finished.stderr.starts_with(missing), "{}", finished.stderr);
    let _ = finished.expect_code(2);
    for further in [["--no-input"], ["--manual"], ["--plan"], ["--format=json"]] {
        let pty = Pty::start(command(&world).args(further));
        assert!(pty.ends(2).starts_with(missing), "{further:?}");
    }
}

#[test]
fn the_plainest_terminal_is_asked_too_and_nothing_is_drawn_over() {
    let Some(world) = fleet("guided-plain", &["n1"]) else {
        return;
    };
    let mut plain = command(&world);
    plain.env("NO_COLOR", "1").env("LC_ALL", "C").env("TERM", "dumb");
    let mut pty = Pty::start_sized(&mut plain, (0, 0));
    take_host(&mut pty);
    pty.types(ENTER);
    pty.asks("Reason for the audit log");
    pty.types("typo\x7f\x7f\x7f\x7fCHG-1");
    pty.asks("empty): CHG-1");
    pty.types(ENTER);
    pty.asks("Type \"init\" to send it");
    pty.types(&format!("init{ENTER}"));
    pty.shows("rollback        everybody presents");
    pty.asks("Step 1-2: 1");
    pty.types(DOWN);
    pty.asks("Step 1-2: 2");
    pty.types(CTRL_D);
    let raw = pty.raw();
    let all = pty.ends(0);
    assert!(all.contains("ok host CA: all 1 node reached init in "), "{all}");
    assert!(!raw.contains('\u{1b}'), "{raw:?}");
    // What ends a line is all that moves the cursor.
    assert!(!raw.replace("\r\n", "").contains('\r'), "{raw:?}");
    assert!(all.is_ascii(), "{all}");
    // A terminal that changes its size is drawn on anew, from the next second on.
    let mut pty = sit(&world);
    take_host(&mut pty);
    pty.resize((40, 10));
    pty.shows("   2  rollback        everybody presents\n");
    pty.resize(SIZE);
    pty.types("q");
    let _ = pty.ends(0);
}

/// The page of a refusal, as without a guide.
fn is_refused_with_everything_that_is_known(all: &str) {
    let refusal = from(
        all,
        "refused: nodes_lagging: 1 of 2 nodes have not reached update_clients",
    );
    for part in [
        "\n  n2  ",
        "Nothing was changed. The host CA stays in update_clients",
        "Go back   carousel",
        "More      carousel explain nodes_lagging",
    ] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}

#[test]
fn a_node_that_lags_closes_the_gate_and_the_way_back_stays_open() {
    let Some(mut world) = fleet("guided-lagging", &["n1", "n2"]) else {
        return;
    };
    let mut pty = sit(&world);
    take_host(&mut pty);
    make(&mut pty, "init");
    pty.asks("Step 1-2: 1");
    pty.shows("host CA  init  ");
    pty.shows("gate open");
    let lagging = world.agent("n2").proc.take().expect("it runs");
    lagging.stop();
    make(&mut pty, "update_clients");
    pty.asks("s shows the steps; q stops watching");
    pty.shows("1/2 reached");
    pty.shows("\n  n2  ");
    pty.types("s");
    pty.asks("Step 1-2: 1");
    pty.shows("gate closed: nodes_lagging");
    pty.types(ENTER);
    pty.asks("Reason for the audit log");
    pty.shows("! The step would be refused now: nodes_lagging.");
    assert!(
        pty.all()
            .contains("Gate    CLOSED  1/2 nodes reached update_clients"),
        "{}",
        pty.all()
    );
    assert!(
        pty.all()
            .contains("Forcing it is not done here: carousel auth rotate"),
        "{}",
        pty.all()
    );
    pty.types(ENTER);
    pty.asks("Type \"update_servers\"");
    pty.types(&format!("update_servers{ENTER}"));
    pty.asks("Step 1-2: 1");
    is_refused_with_everything_that_is_known(&pty.all());
    // Whoever leaves now was refused; whoever stays can turn back.
    let mut other = sit(&world);
    take_host(&mut other);
    make(&mut other, "update_servers");
    other.shows("explain nodes_lagging");
    other.asks("Step 1-2: 1");
    other.types("q");
    let _ = other.ends(3);
    pty.types(DOWN);
    pty.asks("Step 1-2: 2");
    make(&mut pty, "rollback");
    pty.asks("s shows the steps; q stops watching");
    lagging.resume();
    pty.asks("Step 1-1: 1");
    pty.shows("new CA dropped, all is as before");
    make(&mut pty, "standby");
    let all = pty.ends(0);
    assert!(
        all.contains("✓ host CA: all 2 nodes reached standby in "),
        "{all}"
    );
    assert!(world.host()["rotation"]["last_rolled_back"].is_string());
}

#[test]
fn what_somebody_else_has_done_meanwhile_is_not_stepped_over() {
    let Some(world) = fleet("guided-stale", &["n1"]) else {
        return;
    };
    let mut pty = sit(&world);
    take_host(&mut pty);
    make(&mut pty, "init");
    pty.asks("Step 1-2: 1");
    pty.shows("host CA  init  ");
    pty.shows("gate open");
    up_to_the_word(&mut pty, "update_clients");
    world.enter_and_wait("host", "rollback");
    pty.types(&format!("update_clients{ENTER}"));
    pty.shows("refused: stale_view: the host CA is in phase rollback now, not in init");
    pty.asks("Step 1-1: 1");
    pty.shows("host CA  rollback  ");
    // A step that somebody makes while the steps are shown is shown at once.
    world.enter_and_wait("host", "standby");
    pty.shows("The rotation has gone on meanwhile: it is in standby.");
    pty.asks("Step 1-2: 1");
    pty.types(ESCAPE);
    let _ = pty.ends(3);
}

#[test]
fn a_rotation_that_goes_by_itself_is_watched_left_and_taken_over() {
    let Some(world) = fleet("guided-automatic", &["n1"]) else {
        return;
    };
    let mut pty = sit(&world);
    take_host(&mut pty);
    pty.types(DOWN);
    pty.asks("Step 1-2: 2");
    make(&mut pty, "automatic");
    pty.asks("s shows the steps; q stops watching");
    pty.shows("Waiting for the end of the rotation.");
    pty.shows("1/1 reached");
    pty.types("q");
    let all = pty.ends(5);
    assert!(all.contains("Grace period 48 h: "), "{all}");
    assert!(
        all.trim_end()
            .ends_with("1/1 reached.\nNext: carousel wait --type=host\nAgain: carousel auth rotate"),
        "{all}"
    );
    let rotation = &world.host()["rotation"];
    assert_eq!(
        (&rotation["mode"], &rotation["grace_period"]),
        (&"automatic".into(), &"48h0m0s".into())
    );
    let mut pty = sit(&world);
    take_host(&mut pty);
    assert!(
        pty.all()
            .contains("Mode     the rotation makes its steps by itself"),
        "{}",
        pty.all()
    );
    pty.types(DOWN);
    pty.asks("Step 1-2: 2");
    make(&mut pty, "rollback");
    pty.asks("Step 1-1: 1");
    assert!(
        pty.all().contains("The rotation is manual from now on"),
        "{}",
        pty.all()
    );
    pty.types(CTRL_D);
    let _ = pty.ends(0);
}
