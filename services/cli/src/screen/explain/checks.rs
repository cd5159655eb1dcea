//! Pages of `check`'s findings that are not refusals as well.

/// Name, sentence, why, what to do.
pub(super) type Entry = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Every finding that has no refusal's page.
pub(super) const PAGES: &[Entry] = &[
    (
        "reachable",
        "the control plane answers and takes this identity",
        "Found by this tool itself: a request was answered over mutual TLS, and the identity's certificate has a good part of its life left. It renews itself whenever it is used with half of that over.",
        &["carousel status"],
    ),
    (
        "version",
        "the control plane and this tool are of one version",
        "Different versions work together as far as their API is the same, but one may show or refuse what the other does not know. Upgrade the control plane first.",
        &["carousel --version", "carousel status"],
    ),
    (
        "log",
        "the event log can be written and read to its end",
        "Everything the control plane knows is in the log. When it cannot be written no command is accepted and no certificate is signed, but nodes go on with what they hold.",
        &[
            "On the control-plane host look at the disk, or at the NATS server, and at the journal of `carousel serve`.",
            "carousel check --wait",
        ],
    ),
    (
        "log_durability",
        "the log's store could lose what it has acknowledged",
        "A store on one replica, or one that does not sync every write to the disk, may lose its newest events in a power cut. The control plane then refuses the shortened log rather than to go on from it.",
        &["Keep three replicas of the stream, or let NATS sync always."],
    ),
    (
        "clock",
        "the control plane's clock disagrees with its log",
        "No event may be dated before the last one. While the clock is more than a minute behind the log, or has jumped, no automatic step is taken: a schedule must not follow a wrong clock. Commands of people still work.",
        &[
            "Mend the clock (NTP) first; it clears itself when the clock agrees again.",
            "carousel clock accept --reason \"the clock was wrong before\"",
        ],
    ),
    (
        "members",
        "how many control-plane services are running",
        "Each service that speaks TLS reports what it holds, like a node, and every gate waits for those that run. One that was not heard of for 30 s is not waited for any more.",
        &["carousel status --format=json"],
    ),
    (
        "settings",
        "durations are shorter than a production cluster's",
        "The demo and tests use short lives, drain times and publication times so that a rotation takes seconds. A real fleet needs the defaults.",
        &["Make production clusters with `carousel init`, not by keeping a demo's."],
    ),
    (
        "ca_expiry",
        "an authority's own certificate comes to its end",
        "A CA certificate lives ten years. Leaves never outlive their issuer, so their lives shrink when it nears its end. A rotation replaces it.",
        &[
            "carousel auth rotate --type=host --plan",
            "carousel auth rotate --type=host",
        ],
    ),
    (
        "ca_age",
        "an authority has been in use for more than a year",
        "The longer a key is in use the more may have been copied with it, and the less practised its replacement is. Once a year is a good habit.",
        &[
            "carousel auth rotate --type=host --plan",
            "carousel auth rotate --type=host",
        ],
    ),
    (
        "rotation_held",
        "a due step of a semi-automatic rotation waits for the gate",
        "Nobody is left behind: the step is made by itself when every required node has reached the phase before. Nothing is broken meanwhile, old and new CA are both trusted.",
        &[
            "carousel get nodes --lagging=host",
            "carousel explain nodes_lagging",
        ],
    ),
    (
        "not_settled",
        "somebody may still accept the retired CA",
        "The rotation is over, but not every node has reported that it dropped the old authority; nodes that were passed over by force are waited for like any other. Until it does, whoever holds the old key could still be taken for a peer by that node.",
        &[
            "carousel get nodes --lagging",
            "carousel nodes rm NAME --reason \"gone for good\"",
        ],
    ),
    (
        "bundle_expired",
        "there is no valid signed trust bundle",
        "The signer signs the document that says whom to trust anew every twelve hours; it is valid for a day. What is installed stays in force, but a node that comes back or joins finds nothing it may install.",
        &[
            "Is the signer running? Look at the journal of `carousel serve`.",
            "carousel check --wait",
        ],
    ),
    (
        "key_not_destroyed",
        "a retired key's private half still exists",
        "After the end of a rotation the signer destroys the old key in every store and records which of them confirmed. Until then a copy of the key directory is worth stealing.",
        &[
            "Is the signer running, and can it write to its key directory?",
            "carousel get authorities",
        ],
    ),
    (
        "nodes_excluded",
        "nodes are taken out of a rotation in progress",
        "Nobody waits for them, so every count can be full without them. What they hold stays as it is: from the step on that the plan names nobody can connect to them, and once the rotation is over they recover by themselves when they return.",
        &[
            "carousel auth rotate --type=host --plan",
            "carousel nodes include NAME --reason \"it is back\"",
            "carousel nodes rm NAME --reason \"gone for good\"",
        ],
    ),
    (
        "probe",
        "online nodes serve what they say, seen by dialling them",
        "The gateway dials the probe endpoint of each online node that has one (`carousel-agent start --listen`), over mutual TLS, and the node must answer with its own identity. One that does not may be unreachable for its peers as well, although it reports.",
        &[
            "carousel probe --all",
            "On the node look at the agent's journal, and at the firewall in front of its listen address.",
        ],
    ),
    (
        "nodes_offline",
        "nodes hold no connection to the control plane",
        "A node that is away keeps serving with what it has, and catches up by itself when it returns, whatever it missed. It holds the gates of rotations in progress until then.",
        &[
            "carousel get nodes --offline",
            "carousel nodes exclude NAME --reason \"powered off until Monday\"",
        ],
    ),
    (
        "clone",
        "two running instances share one node's identity",
        "Their reports contradict each other: two starts of the agent alternate, or a sequence goes back. Usually a virtual machine was copied with its data directory. Such a node never counts as reached. A start of the agent that came later is believed again when all earlier ones have been silent for ten minutes.",
        &[
            "Stop one of them, empty its data directory and join it with a token of its own.",
            "Restart the agent of the other one ten minutes later.",
            "carousel tokens add --name new-name.example.com",
        ],
    ),
    (
        "node_failure",
        "a node's agent cannot do what it should",
        "Its reload hook, its proof or its disk fails. The last set of certificates that passed its proof is in use, so nothing is broken yet; but the node does not reach the phase, and its certificates are not renewed. Where it is `ssh` that fails, sshd's certificate alone stays behind.",
        &[
            "On the node: journalctl -u carousel-agent -n 50",
            "carousel probe NAME",
        ],
    ),
    (
        "certificate_expiry",
        "a node's certificate was not renewed at half its life",
        "An agent renews at half the life of a certificate. One that is past three quarters has an agent that does not run, does not reach a gateway, or fails to install.",
        &["carousel get nodes --format=wide", "carousel probe NAME"],
    ),
    (
        "unsynced",
        "a node serves what it found on its disk",
        "When it started no gateway answered for 30 s, so it chose to serve with what it had. It may hold an older row; it reports properly as soon as it reaches a gateway.",
        &["carousel get nodes --format=wide"],
    ),
];
