//! Topics that are neither a refusal nor a finding.

use super::checks::Entry;

/// What to know before the first rotation, and what scripts rely on.
pub(super) const PAGES: &[Entry] = &[
    (
        "rotation",
        "how an authority is replaced without losing a node",
        "The phases follow each other: standby, init (a new CA is made and trusted beside the old one), update_clients \
         (client certificates come from the new CA), update_servers (server certificates too), standby (the old CA is \
         dropped and its key destroyed). Each step waits until every node has proven that it holds the one before. \
         Until the last step everything can be taken back by a rollback.",
        &[
            "carousel auth rotate --type=host --plan",
            "carousel auth rotate --manual --type=host --phase=init --wait",
            "carousel auth rotate --manual --type=host --phase=update_clients --wait",
            "carousel auth rotate --manual --type=host --phase=update_servers --wait",
            "carousel auth rotate --manual --type=host --phase=standby --wait",
            "carousel auth rotate --manual --type=host --phase=rollback",
        ],
    ),
    (
        "exit-codes",
        "how a command ends, for scripts",
        "Data stands on stdout, everything else on stderr. With --format=json a refusal also stands on stdout, as a \
         problem document (RFC 9457) with its code.",
        &[
            "0    done, also when there was nothing to do",
            "1    failed",
            "2    the command line is wrong",
            "3    refused by the control plane; stderr begins `refused: CODE: text`",
            "4    the control plane cannot be reached, or one side does not trust the other",
            "5    not yet: a wait timed out, nothing was undone",
            "130  interrupted",
        ],
    ),
    (
        "environment",
        "variables that are read",
        "A flag goes before its variable, a variable before the usual place. Secrets are never given by a flag.",
        &[
            "CAROUSEL_IDENTITY  the identity file; else $XDG_CONFIG_HOME/carousel/default.identity",
            "CAROUSEL_SERVER    the control plane, when it is another than the identity file names",
            "CAROUSEL_TOKEN     the join token, for carousel-agent",
            "CAROUSEL_LISTEN, CAROUSEL_ADVERTISE (a list with commas), CAROUSEL_PUBLIC_URL, CAROUSEL_ADMIN_LISTEN, CAROUSEL_EVENT_LOG  for serve",
            "CAROUSEL_LOG, CAROUSEL_LOG_FORMAT  what daemons log, and how: info,gateway=debug; text or json",
            "NO_COLOR, CLICOLOR_FORCE, TERM, LC_ALL, LANG  as everywhere",
        ],
    ),
    (
        "formatting",
        "how answers are printed",
        "The JSON is the contract; the text is for people and may change.",
        &[
            "text  for people, cut to the terminal's width",
            "wide  more columns, never cut",
            "json  one document; JSON Lines for what follows or waits",
            "yaml  the same as YAML",
            "name  one name per line, for xargs",
        ],
    ),
];
