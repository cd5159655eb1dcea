//! Help topics and manual pages: made from the same command line that is parsed, so that they cannot differ from it.

use std::{io, path::Path};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::{
    args::{Cli, EXIT_CODES},
    failure::{Exit, Failure},
    run::Context,
    screen::explain,
};

/// `carousel help TOPIC`, `carousel help COMMAND...`; nothing is the whole program.
pub(super) fn help(context: &Context, words: &[String]) -> Result<Exit, Failure> {
    if let [topic] = words
        && let Some(page) = explain::topic(topic)
    {
        context.terminal.data(&explain::render(&page));
        return Ok(Exit::Done);
    }
    let mut whole = Cli::command();
    whole.build();
    let mut found = &mut whole;
    for word in words {
        let Some(next) = found.find_subcommand_mut(word) else {
            let topics: Vec<_> = explain::topics().collect();
            return Err(Failure::usage(format!(
                "no command and no topic {:?}; topics: {}",
                words.join(" "),
                topics.join(", ")
            )));
        };
        found = next;
    }
    context
        .terminal
        .data(&found.render_long_help().ansi().to_string());
    Ok(Exit::Done)
}

/// One page per command into a directory; without one the main page on stdout.
pub(super) fn man(context: &Context, dir: Option<&Path>) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("the manual pages cannot be written: {error}"));
    let pages = pages().map_err(failed)?;
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(failed)?;
            for (name, page) in &pages {
                std::fs::write(dir.join(name), page).map_err(failed)?;
            }
        }
        None => {
            let main = pages.iter().find(|(name, _)| name == "carousel.1");
            context.terminal.data(main.map_or("", |(_, page)| page));
        }
    }
    Ok(Exit::Done)
}

/// Every page with the name of its file.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let mut pages = Vec::new();
    gather(&whole, &mut pages)?;
    Ok(pages)
}

fn gather(command: &clap::Command, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        gather(below, pages)?;
    }
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8_lossy(&page).into_owned();
    section(&mut page, "EXIT STATUS", EXIT_CODES.lines());
    section(&mut page, "EXAMPLES", examples(&name).iter().copied());
    pages.push((man.get_filename(), page));
    Ok(())
}

/// Lines as they are, with what roff would take for its own made harmless.
fn section<'a>(page: &mut String, title: &str, lines: impl Iterator<Item = &'a str>) {
    page.push_str(&format!(".SH \"{title}\"\n.nf\n"));
    for line in lines {
        let line = line.trim_end().replace('\\', "\\e").replace('-', "\\-");
        page.push_str(&format!("\\&{line}\n"));
    }
    page.push_str(".fi\n");
}

/// How a command is typed. Each is parsed by a test.
fn examples(name: &str) -> &'static [&'static str] {
    let own = EXAMPLES.iter().find(|(of, _)| *of == name);
    own.map_or(WHOLE, |(_, lines)| lines)
}

/// Of the program as a whole.
const WHOLE: &[&str] = &[
    "carousel demo",
    "carousel status",
    "carousel auth rotate --manual --type=host --phase=init --wait",
    "carousel get nodes --lagging=host",
];

/// Of `log`, which has one command.
const LOG: &[&str] = &[
    "carousel log copy --data-dir /var/lib/carousel --to nats://control-plane@127.0.0.1:4222",
    "carousel log copy --data-dir /var/lib/carousel --to embedded",
];

/// Of `nats`, which has one command.
const NATS: &[&str] = &[
    "carousel nats provision --cluster acme.cluster --log nats://administrator@127.0.0.1:4222 --dry-run",
    "carousel nats provision --cluster acme.cluster --log nats://administrator@127.0.0.1:4222 --sync-always",
];

/// By the name of the page.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "carousel-demo",
        &["carousel demo", "carousel demo --nodes 50 --rollback --keep"],
    ),
    (
        "carousel-auth-sign",
        &[
            "carousel auth sign --type=db --name=pg-1 --csr=pg-1.csr --dns=pg-1.example.com --out=pg-1.crt",
            "carousel auth sign --type=openssh --name=deploy --ssh-key=id_ed25519.pub --principal=deploy",
        ],
    ),
    (
        "carousel-auth-token",
        &["carousel auth token --type=jwt --name=billing --audience=https://api.example.com"],
    ),
    (
        "carousel-login",
        &["carousel login", "carousel login --ssh-key=id_ed25519.pub"],
    ),
    (
        "carousel-certificates",
        &[
            "carousel get certificates -o wide",
            "carousel certificates revoke --user eve --reason \"has left\"",
        ],
    ),
    (
        "carousel-certificates-revoke",
        &[
            "carousel certificates revoke 4f1c2a9be8d07755a1b2c3d4e5f60718 --reason \"laptop lost\"",
            "carousel certificates revoke --node db-07 --reason \"disk stolen\"",
        ],
    ),
    ("carousel-bench", &["carousel bench fleet --nodes 10000"]),
    (
        "carousel-bench-fleet",
        &["carousel bench fleet --nodes 10000 -o json"],
    ),
    (
        "carousel-bench-gateway",
        &[
            "carousel bench gateway --agents 1000",
            "carousel bench gateway --agents 10000 -o json",
        ],
    ),
    (
        "carousel-bench-log",
        &[
            "carousel bench log",
            "carousel bench log --nodes 20000 --nats nats://127.0.0.1:4222",
        ],
    ),
    (
        "carousel-init",
        &["carousel init --data-dir /var/lib/carousel --cluster acme.cluster"],
    ),
    (
        "carousel-serve",
        &[
            "carousel serve --data-dir /var/lib/carousel --listen 0.0.0.0:3025 --advertise cp.acme.example",
            "carousel serve --data-dir /var/lib/carousel --config /etc/carousel/serve.toml --print-config",
        ],
    ),
    (
        "carousel-recover",
        &["carousel recover --data-dir /var/lib/carousel --reason \"the file was lost\""],
    ),
    ("carousel-log", LOG),
    ("carousel-log-copy", LOG),
    ("carousel-nats", NATS),
    ("carousel-nats-provision", NATS),
    (
        "carousel-status",
        &[
            "carousel status",
            "carousel status --at 1187",
            "carousel status --at 2h",
        ],
    ),
    (
        "carousel-auth",
        &[
            "carousel auth rotate --type=host --plan",
            "carousel auth rotate --manual --type=host --phase=init --wait --reason CHG-4411",
            "carousel auth rotate --type=host --grace-period=48h --on-lagging=hold",
            "carousel auth rotate --manual --type=host --phase=rollback",
        ],
    ),
    (
        "carousel-auth-rotate",
        &[
            "carousel auth rotate",
            "carousel auth rotate --type=host --plan",
            "carousel auth rotate --manual --type=host --phase=init --wait --reason CHG-4411",
            "carousel auth rotate --type=host --grace-period=48h --on-lagging=hold",
            "carousel auth rotate --manual --type=host --phase=rollback",
        ],
    ),
    (
        "carousel-auth-export",
        &["carousel auth export --type=user --as=pem"],
    ),
    (
        "carousel-wait",
        &["carousel wait --type=host --phase=update_clients --timeout=10m"],
    ),
    (
        "carousel-get",
        &[
            "carousel get nodes --lagging=host",
            "carousel get nodes --format=json",
            "carousel get certificates --format=wide",
        ],
    ),
    (
        "carousel-nodes",
        &["carousel nodes exclude edge-3 --reason \"the site is without power\""],
    ),
    (
        "carousel-nodes-exclude",
        &["carousel nodes exclude edge-3 --reason \"the site is without power\""],
    ),
    (
        "carousel-nodes-include",
        &["carousel nodes include edge-3 --reason \"power is back\""],
    ),
    (
        "carousel-nodes-rm",
        &["carousel nodes rm edge-3 --reason \"gone for good\""],
    ),
    (
        "carousel-tokens",
        &[
            "carousel tokens add --name db-07.acme.example --use db_client",
            "carousel tokens add --names '*.edge.acme.example' --uses 20 --ttl 2h",
        ],
    ),
    (
        "carousel-tokens-add",
        &[
            "carousel tokens add --name db-07.acme.example --use db_client",
            "carousel tokens add --names '*.edge.acme.example' --uses 20 --ttl 2h",
        ],
    ),
    (
        "carousel-tokens-rm",
        &["carousel tokens rm 0198f3c2-77aa-7d01-9b1e-5c2f6a10e9d3"],
    ),
    (
        "carousel-users",
        &["carousel users add alice --roles operator,auditor --out alice.identity"],
    ),
    (
        "carousel-users-add",
        &["carousel users add alice --roles operator,auditor --out alice.identity"],
    ),
    (
        "carousel-users-rm",
        &["carousel users rm alice --reason \"left\""],
    ),
    ("carousel-users-ls", &["carousel users ls"]),
    (
        "carousel-probe",
        &["carousel probe db-07", "carousel probe --all"],
    ),
    (
        "carousel-check",
        &[
            "carousel check",
            "carousel check --fail-on=warn --wait --timeout=5m",
        ],
    ),
    (
        "carousel-explain",
        &["carousel explain nodes_lagging", "carousel explain"],
    ),
    (
        "carousel-audit",
        &[
            "carousel audit ls --since 30m",
            "carousel audit ls --node db-07 --type rotation --format=json",
        ],
    ),
    (
        "carousel-audit-ls",
        &[
            "carousel audit ls --since 30m",
            "carousel audit ls --node db-07 --type rotation --format=json",
        ],
    ),
    ("carousel-audit-follow", &["carousel audit follow --since 10m"]),
    ("carousel-audit-show", &["carousel audit show 1187"]),
    (
        "carousel-audit-replay",
        &["carousel audit replay --as-of 1187 --view nodes"],
    ),
    ("carousel-audit-diff", &["carousel audit diff 1186 1187"]),
    (
        "carousel-audit-verify",
        &[
            "carousel audit verify",
            "carousel audit verify --data-dir /var/lib/carousel",
        ],
    ),
    (
        "carousel-consumers",
        &[
            "carousel consumers add billing-etl --type=db --owner \"billing team\"",
            "carousel consumers attest billing-etl --type=db",
            "carousel consumers probe bastion --type=host",
        ],
    ),
    (
        "carousel-consumers-add",
        &[
            "carousel consumers add billing-etl --type=db --owner \"billing team\" --contact \"#billing\"",
            "carousel consumers add bastion --type=host --owner infra --probe ssh://bastion.example.com:22",
        ],
    ),
    (
        "carousel-consumers-probe",
        &["carousel consumers probe bastion --type=host"],
    ),
    (
        "carousel-consumers-attest",
        &[
            "carousel consumers attest billing-etl --type=db",
            "carousel consumers attest billing-etl --type=db --phase=init --reason \"owner confirmed\"",
        ],
    ),
    (
        "carousel-consumers-withdraw",
        &["carousel consumers withdraw billing-etl --type=db --reason \"shut down\""],
    ),
    (
        "carousel-consumers-ls",
        &["carousel consumers ls", "carousel consumers ls --type=db"],
    ),
    (
        "carousel-clock",
        &["carousel clock accept --reason \"the clock was wrong before\""],
    ),
    (
        "carousel-clock-accept",
        &["carousel clock accept --reason \"the clock was wrong before\""],
    ),
    ("carousel-completions", &["carousel completions bash"]),
    (
        "carousel-help",
        &["carousel help exit-codes", "carousel help auth rotate"],
    ),
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_page_says_how_the_command_ends_and_how_it_is_typed() {
        let pages = pages().unwrap();
        assert!(pages.len() > 25, "{}", pages.len());
        for (name, page) in &pages {
            assert!(page.contains(".SH \"EXIT STATUS\"\n"), "{name}");
            assert!(page.contains(".SH \"EXAMPLES\"\n"), "{name}");
            assert!(page.contains("not yet: a wait timed out"), "{name}");
            let words = name.trim_end_matches(".1").replace('-', " ");
            let examples = examples(name.trim_end_matches(".1"));
            assert!(
                name == "carousel.1" || examples.iter().any(|line| line.starts_with(&words)),
                "{name} shows another command: {examples:?}"
            );
            for line in examples {
                let parsed = Cli::try_parse_from(shell(line));
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
        assert!(
            !pages.iter().any(|(name, _)| name == "carousel-man.1"),
            "it is hidden"
        );
    }

    /// Splits as a shell would, for quotes of both kinds.
    fn shell(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' | '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn the_topics_of_the_help_are_there() {
        for topic in ["exit-codes", "rotation", "environment", "formatting"] {
            assert!(explain::topic(topic).is_some(), "{topic}");
        }
        assert!(explain::topic("nodes_lagging").is_none(), "a refusal is no topic");
    }
}
