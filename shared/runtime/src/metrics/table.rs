//! Every metric there is.
//!
//! To add one: a line here, in order of name, then run the tidy test once with `UPDATE=1`, which rewrites the table in
//! `docs/metrics.md`.

/// Bounds of every histogram, in seconds: from a local call to a drain.
pub const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// What a metric counts like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of seconds.
    Histogram,
}

impl Kind {
    /// The kind as documentation names it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// What it counts like.
    pub kind: Kind,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence: what it says, and in which unit.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        labels,
        help,
    }
}

/// All metrics, by name.
pub const METRICS: &[Metric] = &[
    gauge(
        "carousel_agent_certificate_expiry_seconds",
        &["type", "role"],
        "Time until the certificate in use expires, in seconds; the role is client, server, or ssh for that of sshd.",
    ),
    counter(
        "carousel_agent_installs_total",
        &["type", "outcome"],
        "Generations installed by the agent: passed, or restored after a failed proof.",
    ),
    counter(
        "carousel_agent_reload_failures_total",
        &[],
        "Reload hooks that failed or ran out of time.",
    ),
    gauge(
        "carousel_agent_synced",
        &[],
        "1 while the agent holds the current row, 0 while no gateway has told it.",
    ),
    gauge(
        "carousel_build_info",
        &["version"],
        "Always 1; the label is the version that runs.",
    ),
    gauge(
        "carousel_clock_suspect",
        &[],
        "1 while the wall clock is not believed and no automatic step is taken.",
    ),
    counter(
        "carousel_commands_total",
        &["command", "outcome"],
        "Commands answered, by command and outcome: accepted, noop, or the refusal's code.",
    ),
    counter(
        "carousel_events_total",
        &["family"],
        "Events appended by this process, by family.",
    ),
    counter(
        "carousel_gateway_alerts_total",
        &["kind"],
        "Certificates that must not be there: unknown to the log, or superseded.",
    ),
    gauge(
        "carousel_gateway_connections",
        &[],
        "Open connections on the mTLS listener.",
    ),
    histogram(
        "carousel_gateway_handshake_seconds",
        &["outcome"],
        "Duration of TLS handshakes as the server.",
    ),
    histogram(
        "carousel_gateway_request_seconds",
        &["route", "status"],
        "Duration of requests by route template and status.",
    ),
    gauge(
        "carousel_gateway_streams",
        &[],
        "Agents that hold an event stream.",
    ),
    counter(
        "carousel_gateway_unauthenticated_total",
        &["reason"],
        "Requests and handshakes refused before a principal was known.",
    ),
    histogram(
        "carousel_log_append_seconds",
        &["outcome"],
        "Duration of appends: stored, conflict, unknown or failed.",
    ),
    counter(
        "carousel_log_gaps_total",
        &[],
        "Gaps found in the log's positions; any is an alarm.",
    ),
    gauge(
        "carousel_log_position",
        &[],
        "The last position that this process has folded.",
    ),
    counter(
        "carousel_member_lease_lapses_total",
        &[],
        "Times that this member stopped serving because its own report was not read back in time.",
    ),
    gauge(
        "carousel_members",
        &["state"],
        "Control-plane members by state: required or lost.",
    ),
    counter(
        "carousel_node_reports_total",
        &["outcome"],
        "Fact reports by outcome: recorded, unchanged, limited or refused.",
    ),
    histogram(
        "carousel_query_seconds",
        &["view", "outcome"],
        "Duration of queries to the views.",
    ),
    gauge(
        "carousel_rotation_held",
        &["type"],
        "1 while an automatic step is due and its gate is closed.",
    ),
    gauge(
        "carousel_rotation_nodes",
        &["type", "state"],
        "Nodes of a type by state: required, reached, lagging or excluded.",
    ),
    gauge(
        "carousel_rotation_phase",
        &["type", "phase"],
        "1 for the phase in which the type is, else 0.",
    ),
    gauge(
        "carousel_signer_bundle_bytes",
        &["type"],
        "Bytes of the newest trust bundle as an event; the log takes 524288.",
    ),
    gauge(
        "carousel_signer_bundle_refused",
        &["type"],
        "1 while the signer refuses to sign the trust bundle of a type; the previous one stays in force. Any is an alarm.",
    ),
    counter(
        "carousel_signer_certificates_total",
        &["type"],
        "Certificates issued.",
    ),
    gauge(
        "carousel_signer_duties",
        &[],
        "Authorisations that the signer has not answered yet.",
    ),
    counter(
        "carousel_signer_refused_total",
        &["reason"],
        "Authorisations that the signer refused to sign.",
    ),
    gauge(
        "carousel_view_position",
        &[],
        "The last position that is in the views.",
    ),
    counter(
        "carousel_view_rebuilds_total",
        &["reason"],
        "Times that the views were built anew from the log.",
    ),
];
