//! Logs on stderr and a trace context for every span.
//!
//! stdout belongs to data, so logs go to stderr. Each span carries a W3C `traceparent`, which travels in requests and
//! in the events they cause: a request can be followed across processes and into the audit. No exporter is
//! built in; the identifiers are worth having without one.

use std::io::{self, IsTerminal};

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::plain;

/// The environment variable with the log filter, in the syntax of `RUST_LOG` (`info,gateway=debug`).
pub const LOG_VARIABLE: &str = "CAROUSEL_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// What to log, and how.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The shape of a line.
    pub format: LogFormat,
    /// The filter; `CAROUSEL_LOG` goes before it, `info` is the default.
    pub filter: Option<String>,
}

impl TelemetryConfig {
    /// Can logging be set up so?
    ///
    /// # Errors
    /// [`TelemetryError::Filter`], [`TelemetryError::Environment`].
    pub fn check(&self) -> Result<(), TelemetryError> {
        chosen_filter(self).map(drop)
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("the log filter {filter:?} is not valid ({detail}); write for example info,gateway=debug")]
    Filter {
        /// The filter as given, cut.
        filter: String,
        /// What the parser said.
        detail: String,
    },
    /// The environment variable is not text.
    #[error(transparent)]
    Environment(#[from] crate::config::ConfigError),
    /// Somebody else has set up logging in this process.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// Logging of this process; keep it for as long as the process runs.
#[derive(Debug)]
pub struct Telemetry {
    set_filter: reload::Handle<EnvFilter, tracing_subscriber::Registry>,
    /// Held because spans made after its end would have no trace identifiers.
    _provider: SdkTracerProvider,
}

impl Telemetry {
    /// Sets up logging for the whole process, once.
    ///
    /// # Errors
    /// [`TelemetryError`]: a bad filter, or a second call.
    pub fn init(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let (filter, set_filter) = reload::Layer::new(chosen_filter(config)?);
        let provider = provider();
        let logs = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        let logs = match config.format {
            LogFormat::Text => logs.with_filter(filter).boxed(),
            LogFormat::Json => logs.json().flatten_event(true).with_filter(filter).boxed(),
        };
        let traces = traces(&provider);
        let subscriber = tracing_subscriber::registry().with(logs).with(traces);
        subscriber.try_init().map_err(|_| TelemetryError::AlreadySet)?;
        Ok(Self {
            set_filter,
            _provider: provider,
        })
    }

    /// Changes the filter while the process runs (SIGHUP with a changed configuration).
    ///
    /// # Errors
    /// [`TelemetryError::Filter`]; the old filter stays then.
    pub fn apply(&self, config: &TelemetryConfig) -> Result<(), TelemetryError> {
        let filter = chosen_filter(config)?;
        self.set_filter
            .reload(filter)
            .expect("the subscriber lives as long as the process");
        Ok(())
    }
}

/// The W3C `traceparent` of the current span, or none outside of any span.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent_of(&Span::current())
}

/// The W3C `traceparent` of `span`, or none where it is disabled.
#[must_use]
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let span_context = context.span().span_context().clone();
    if !span_context.is_valid() {
        return None;
    }
    let flags = span_context.trace_flags().to_u8();
    Some(format!(
        "00-{:032x}-{:016x}-{flags:02x}",
        span_context.trace_id(),
        span_context.span_id()
    ))
}

/// Makes `span` a child of the remote span that `traceparent` names; call it before the span is entered.
///
/// Record [`traceparent_of`] as a field of a request's span, and its log lines and its events can be put together.
/// What cannot be parsed is ignored, as the W3C recommendation demands: a stranger's header must not break a request.
/// Returns whether the parent was taken.
pub fn with_parent(span: &Span, traceparent: &str) -> bool {
    let Some(parent) = parse_traceparent(traceparent) else {
        return false;
    };
    span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent))
        .is_ok()
}

/// Whether `text` is a well-formed `traceparent` (<https://www.w3.org/TR/trace-context/>).
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    parse_traceparent(text).is_some()
}

fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let lower_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
    if !lengths || !lower_hex(version) || !lower_hex(trace) || !lower_hex(span) || !lower_hex(flags) {
        return None;
    }
    // Version ff is forbidden; version 00 has exactly four fields, later ones may have more.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

fn chosen_filter(config: &TelemetryConfig) -> Result<EnvFilter, TelemetryError> {
    let from_environment = crate::config::env(LOG_VARIABLE)?;
    let filter = from_environment
        .or_else(|| config.filter.clone())
        .unwrap_or_else(|| "info".to_owned());
    EnvFilter::try_new(&filter).map_err(|error| TelemetryError::Filter {
        filter: plain(&filter),
        detail: plain(&error.to_string()),
    })
}

fn provider() -> SdkTracerProvider {
    // Sampled unless the caller's header says otherwise: with no exporter a span costs its identifiers and no more.
    SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .build()
}

fn traces<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // A filter of its own: what is logged must not decide which requests have a trace.
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("carousel"))
        .with_filter(LevelFilter::INFO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn in_traced_scope(check: impl FnOnce()) {
        let provider = provider();
        let subscriber = tracing_subscriber::registry().with(traces(&provider));
        tracing::subscriber::with_default(subscriber, check);
    }

    #[test]
    fn every_span_has_a_traceparent_and_none_is_outside_of_spans() {
        in_traced_scope(|| {
            assert_eq!(current_traceparent(), None);
            let outer = tracing::info_span!("outer").entered();
            let first = current_traceparent().expect("inside a span");
            assert!(is_traceparent(&first), "{first}");
            let _inner = tracing::info_span!("inner").entered();
            let second = current_traceparent().expect("inside a span");
            assert_eq!(first[..35], second[..35], "one trace");
            assert_ne!(first, second, "two spans");
            drop(outer);
        });
    }

    #[test]
    fn a_span_with_a_parent_continues_its_trace() {
        in_traced_scope(|| {
            let span = tracing::info_span!("request");
            assert!(with_parent(&span, PARENT));
            let own = traceparent_of(&span).expect("enabled");
            assert_eq!(own[..35], PARENT[..35]);
            assert_ne!(own, PARENT);
        });
    }

    #[test]
    fn a_strangers_header_that_is_malformed_starts_a_new_trace() {
        let bad = [
            "",
            "garbage",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e47é6-00f067aa0ba902b7-01",
        ];
        in_traced_scope(|| {
            for text in bad {
                let span = tracing::info_span!("request");
                assert!(!with_parent(&span, text), "{text}");
                assert!(traceparent_of(&span).is_some());
            }
            assert!(is_traceparent(
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"
            ));
        });
    }

    #[test]
    fn a_bad_filter_is_named() {
        let config = TelemetryConfig {
            filter: Some("gateway=loud".to_owned()),
            ..TelemetryConfig::default()
        };
        let error = chosen_filter(&config).expect_err("no such level");
        assert!(error.to_string().contains("gateway=loud"), "{error}");
    }

    #[test]
    fn without_logging_there_is_no_traceparent_and_no_panic() {
        assert_eq!(current_traceparent(), None);
        assert!(!with_parent(&Span::none(), PARENT));
    }
}
