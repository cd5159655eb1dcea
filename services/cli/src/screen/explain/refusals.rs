//! Pages of the refusal codes. A test holds that each has one.

use domain::Code;

/// What there is to say of a code: why, and what to do.
type Entry = (&'static str, &'static [&'static str]);

const STATUS: &str = "carousel status";
const ROLLBACK: &str = "carousel auth rotate --manual --type=host --phase=rollback";

/// Why, and what to do.
pub(super) fn page(code: Code) -> Entry {
    let found = PAGES.iter().find(|(of, ..)| *of == code);
    found.map_or((code.meaning(), &[]), |(_, why, todo)| (*why, *todo))
}

const PAGES: &[(Code, &str, &[&str])] = &[
    (
        Code::RotationInProgress,
        "Each authority has at most one rotation at a time. It is finished by the remaining steps or by a rollback; then another can begin. Rotations of other types are independent of it.",
        &[STATUS, "carousel wait --type=host", ROLLBACK],
    ),
    (
        Code::IllegalTransition,
        "Phases follow each other: standby, init, update_clients, update_servers, standby. Skipping one would let peers meet who do not trust each other yet. From init on, rollback is always possible.",
        &[STATUS, "carousel auth rotate --type=host --plan"],
    ),
    (
        Code::StaleView,
        "Between what was shown to you and your command somebody else, or the schedule, made a step. Nothing was changed, so that no step is made by two people at once.",
        &[
            STATUS,
            "Then give the command again if it is still what you want.",
        ],
    ),
    (
        Code::NodesLagging,
        "The gate into the next phase opens only when every required node has reported, by a fresh measurement of its own, that it holds the current phase. Nothing is broken while you wait: old and new CA are both trusted. The `ending` that status shows for a manual rotation is no deadline: nothing happens then. Forcing cuts off the nodes that are named.",
        &[
            "carousel get nodes --lagging",
            "carousel probe NAME",
            "carousel nodes exclude NAME --reason \"powered off\"",
            ROLLBACK,
        ],
    ),
    (
        Code::MembersLagging,
        "A running part of the control plane that speaks TLS does not hold the current phase yet. It cannot be overridden: agents could not reach it afterwards. Usually it is there within seconds; one that has died is not waited for after 30 s.",
        &[
            "carousel check --wait --timeout 1m",
            "carousel auth rotate --type=host --plan",
        ],
    ),
    (
        Code::KeyMissing,
        "The signer has not yet made the new key, so there is nothing to trust or to sign with. It cannot be overridden.",
        &[
            "Is the signer running? Look at the journal of `carousel serve`.",
            "carousel check --wait --timeout 1m",
        ],
    ),
    (
        Code::ConsumersLagging,
        "A party outside the agents' reach that trusts this CA (an exported copy) has not confirmed that it is ready. Going on would cut it off.",
        &[
            "carousel consumers ls",
            "One with a probe, what is missing: carousel consumers probe NAME --type=TYPE",
            "Ask its owner; when it is ready: carousel consumers attest NAME --type=TYPE",
            "If it is gone: carousel consumers withdraw NAME --type=TYPE",
        ],
    ),
    (
        Code::TimeCondition,
        "Certificates that the retiring CA issued to people or programs without an agent are still valid and not replaced. Dropping the CA now would lock their holders out. A person's is replaced when its holder next uses `carousel` or logs in, another party's when it is signed for again, and at the latest each expires.",
        &[
            "carousel status",
            "Let the named people run any command or log in, sign for the named parties again, or wait until the time that status names.",
        ],
    ),
    (
        Code::PublicationTime,
        "Verifiers of tokens cache the published keys. A new key signs only after every cache must have seen it; the refusal names the time.",
        &["carousel auth rotate --type=jwt --plan"],
    ),
    (
        Code::TypeNotInService,
        "This type has no keys in this cluster, or none of the kind that is asked for, because an older version began it.",
        &["carousel get authorities"],
    ),
    (
        Code::GracePeriodInvalid,
        "A semi-automatic rotation makes three steps, each a third of the grace period after the one before. A period of nothing would make them all at once.",
        &["carousel auth rotate --type=host --grace-period=48h"],
    ),
    (
        Code::CommandIdReused,
        "The same command id came with another request: another body, or the same one for another target. An id makes a command safe to repeat; a new command needs a new one.",
        &["Make a fresh UUIDv7 for each command; this tool does so by itself."],
    ),
    (
        Code::CommandIdStale,
        "A command's id tells when it was made. One older than a day, or more than five minutes ahead, is refused, because what it would be compared with is no longer kept. Usually the caller's clock is wrong.",
        &["Compare this machine's clock with the control plane's.", STATUS],
    ),
    (
        Code::ClockSuspect,
        "The control plane's clock is behind its log or has jumped, so no automatic step is taken. Commands of people still work.",
        &[
            "Mend the clock (NTP); it clears itself when the clock agrees again.",
            "carousel clock accept --reason \"the clock was wrong before\"",
        ],
    ),
    (
        Code::ReasonRequired,
        "What cuts somebody off, or overrules a safeguard, stands in the audit log with its reason.",
        &["Give the command again with --reason \"...\"."],
    ),
    (
        Code::NotPermitted,
        "Roles are looked up in the log at each request. auditor reads; operator rotates, plans, excludes and probes, attests for consumers, signs for databases, and reads; admin manages users, tokens, consumers, removals and revocations, signs for everybody without an agent, and reads, but does not rotate.",
        &[
            "carousel users ls",
            "An administrator gives the role: remove the user and add it again with the roles it needs.",
        ],
    ),
    (
        Code::CertificateUnknown,
        "The chain verifies, but the log does not know this certificate as issued and still counting: it was revoked, superseded, or made with a stolen CA key. A chain is not an identity.",
        &[
            "carousel recover --data-dir D",
            "An administrator: carousel users rm NAME, then carousel users add NAME.",
        ],
    ),
    (
        Code::Unauthenticated,
        "Only trust documents, published keys and revocation lists, joining and recovering are open to callers without a client certificate.",
        &[
            "Give --identity FILE, or set CAROUSEL_IDENTITY.",
            "carousel status --identity FILE",
        ],
    ),
    (
        Code::TokenUnknown,
        "No join token with this digest is in the log: it was removed, mistyped, or belongs to another cluster.",
        &[
            "carousel get tokens",
            "carousel tokens add --name web-1.example.com",
        ],
    ),
    (
        Code::TokenExpired,
        "A join token lives 30 minutes unless told otherwise, so that one found later is worth nothing.",
        &["carousel tokens add --name web-1.example.com --ttl 2h"],
    ),
    (
        Code::TokenUsed,
        "A token is good for as many joins as it was made for, one unless told otherwise. If the node that used it is not yours, remove that node.",
        &[
            "carousel get tokens",
            "carousel tokens add --names \"*.web.example.com\" --uses 10",
        ],
    ),
    (
        Code::NameNotGranted,
        "What a node may be is granted by its token, never claimed by the node. The token names other hosts.",
        &[
            "carousel get tokens",
            "carousel tokens add --name web-1.example.com",
        ],
    ),
    (
        Code::NameTaken,
        "Another node bears this name, and an unexpired certificate with it exists. Two nodes of one name could take each other's place. A control-plane service meets this too, when it is to serve with a name or an address of a living node.",
        &[
            "carousel get nodes",
            "carousel nodes rm NAME --reason \"replaced\"",
        ],
    ),
    (
        Code::NameReserved,
        "The gateways' names and addresses, the cluster's name, localhost, loopback addresses and wildcards are never given to nodes: whoever bears them could be taken for the control plane.",
        &[
            "Choose another name.",
            "carousel tokens add --name web-1.example.com",
        ],
    ),
    (
        Code::AddressNotGranted,
        "The token grants no such address. Addresses in certificates, and the one where a node's probe endpoint listens, come from the grant.",
        &["carousel tokens add --name web-1.example.com --address 10.0.3.7"],
    ),
    (
        Code::TypeNotGranted,
        "The node's token does not grant this authority type, or not in this role.",
        &["carousel tokens add --name web-1.example.com --use db"],
    ),
    (
        Code::KeyReused,
        "The key in the certificate request is already certified for another holder, or is an authority's own. One key, one holder: otherwise a certificate would not say who used it.",
        &[
            "Make a new key. Agents and this tool do so for each certificate; was a data directory copied?",
            "Machines from one image with one host key: give each its own, rm /etc/ssh/ssh_host_*; ssh-keygen -A",
            "A key of sshd that was signed by hand: carousel certificates revoke --external NAME --reason \"...\", and it is free; its agent asks again within a quarter of an hour, or at once after a reload (SIGHUP).",
        ],
    ),
    (
        Code::SignInvalid,
        "What you ask to have signed is not what its authority type gives: a name where there are none, none where there must be, an unknown option, or a longer life. Nothing was signed. The text says which.",
        &[
            "carousel help auth sign",
            "docs/operating.md has the table of types.",
        ],
    ),
    (
        Code::CsrInvalid,
        "The certificate request cannot be read, is too large, is not for an ECDSA P-256 key, or its signature does not verify; or it is no SSH public key, or one of a kind that is too weak. Only the key is taken from it.",
        &[
            "Make a P-256 key and a request of at most 4 KiB signed with it; for SSH: ssh-keygen -t ed25519, and give the file that ends in .pub.",
        ],
    ),
    (
        Code::NodeUnknown,
        "No node of this name or id is in the log: it never joined, or the name is misspelt.",
        &["carousel get nodes"],
    ),
    (
        Code::NodeRemoved,
        "The node was removed for good; its certificates are on the deny list. To come back it joins anew with a token.",
        &[
            "carousel tokens add --name web-1.example.com",
            "carousel audit ls --type node.removed",
        ],
    ),
    (
        Code::NotExcluded,
        "The node is not excluded from a rotation in progress, so there is nothing to take back. An exclusion ends with its rotation.",
        &["carousel get nodes --excluded"],
    ),
    (
        Code::NoRotation,
        "Excluding takes a node out of the rotations in progress, and there is none.",
        &[STATUS],
    ),
    (
        Code::UserExists,
        "A user of this name exists. Names are not reused while they count, so that the audit log stays unambiguous.",
        &["carousel users ls", "carousel users rm NAME"],
    ),
    (
        Code::UserUnknown,
        "No user of this name is in the log: it was removed, or the name is misspelt.",
        &["carousel users ls"],
    ),
    (
        Code::LastAdmin,
        "Without an administrator nobody could add users or tokens any more. Add another one first.",
        &["carousel users add carol --roles admin --out carol.identity"],
    ),
    (
        Code::RolesInvalid,
        "A user has at least one role: admin, operator, auditor.",
        &["carousel users add carol --roles operator --out carol.identity"],
    ),
    (
        Code::TokenInvalid,
        "The token would be of no use: no names, a wildcard for a single node, no uses, a life of nothing, or several names for several nodes.",
        &[
            "carousel tokens add --name web-1.example.com",
            "carousel tokens add --names \"*.web.example.com\" --uses 10",
        ],
    ),
    (
        Code::ConsumerUnknown,
        "No external consumer of this name is registered for this type.",
        &["carousel get consumers"],
    ),
    (
        Code::ConsumerExists,
        "An external consumer of this name is registered for this type already.",
        &["carousel get consumers"],
    ),
    (
        Code::ReportInvalid,
        "A node's fact report names authorities that do not exist, is too large, or is older than one before. The agent measures and reports again by itself.",
        &[
            "On the node: journalctl -u carousel-agent -n 50",
            "carousel check",
        ],
    ),
    (
        Code::ReportTooOften,
        "A node whose facts did not change reports at most every five seconds. The agent waits by itself.",
        &[
            "Nothing, unless it stays: then two agents may share one identity.",
            "carousel check",
        ],
    ),
    (
        Code::RecoveryRefused,
        "A node comes back by itself with the key of a certificate that was issued to it, at most 30 days after its end, if it was neither revoked nor superseded. This one does not qualify.",
        &[
            "carousel tokens add --name web-1.example.com",
            "Join again with that token on the same data directory: the node keeps its id.",
        ],
    ),
    (
        Code::CertificateSuperseded,
        "A later certificate of this node has been in use for ten minutes. Whoever presents this one was restored from an old backup, or has a copy of one: the two cannot be told apart.",
        &[
            "carousel tokens add --name web-1.example.com",
            "Join again with that token on the same data directory: the node keeps its id.",
        ],
    ),
    (
        Code::MemberUnknown,
        "No control-plane member of this id is in the log.",
        &["carousel status --format=json"],
    ),
    (
        Code::ClusterExists,
        "The log holds a cluster already; its first facts are written once.",
        &[
            "Start the control plane with the data directory that belongs to this log, or give it an empty log.",
        ],
    ),
    (
        Code::NoCluster,
        "The log holds no cluster yet: the first start of the control plane writes it.",
        &["carousel serve --data-dir D"],
    ),
    (
        Code::NothingSuspect,
        "The clock agrees with the log, so there is nothing to accept.",
        &["carousel check"],
    ),
    (
        Code::NotFound,
        "What was asked for is not there: a position after the log's end, a certificate that still counts, a list that nobody signed, or a path that this version does not know.",
        &["carousel audit ls", "carousel --version"],
    ),
    (
        Code::BadRequest,
        "The request cannot be read. If this tool sent it, tool and control plane are of different versions.",
        &["carousel --version", STATUS],
    ),
    (
        Code::TooLarge,
        "A request may have at most 16 KiB; nothing that is asked for in earnest needs more.",
        &["Make several smaller requests."],
    ),
    (
        Code::RateLimited,
        "Too many requests came in a short time. Joins are limited apart from renewals, so that a flood of joins cannot keep nodes from renewing.",
        &["Wait a few seconds; agents and this tool try again by themselves."],
    ),
    (
        Code::ViewsLagging,
        "Every answer is at or after the last event that was durable when you asked. The views did not read that far in five seconds; rather than an old answer you get none.",
        &[
            "carousel check --wait --timeout 1m",
            "Is the projector running? Look at the journal of `carousel serve`.",
        ],
    ),
    (
        Code::NotServing,
        "This gateway serves nobody until it holds the current phase itself and has read back its own report of it. It begins by itself, usually within seconds.",
        &["carousel check --wait --timeout 1m"],
    ),
    (
        Code::LogUnavailable,
        "The event log cannot be reached or written, so nothing can be decided. Nodes go on with what they hold.",
        &[
            "On the control-plane host look at the disk, or at the NATS server.",
            "carousel check --wait",
        ],
    ),
    (
        Code::SignerUnavailable,
        "The certificate is authorised in the log, but the signer has not signed it within ten seconds. Asking again with the same key gives the same certificate.",
        &[
            "Is the signer running? Look at the journal of `carousel serve`.",
            "carousel check --wait --timeout 1m",
        ],
    ),
    (
        Code::Internal,
        "Something happened that was thought impossible. The journal of `carousel serve` has the details; the log itself is not touched by it.",
        &[
            "carousel audit verify",
            "Please report it with the journal's lines.",
        ],
    ),
];
