//! The spans, and the way to their collector: OTLP by HTTP, set by the environment variables that OpenTelemetry has for that.

use std::cell::Cell;
use std::env;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use jam_core::metrics::Path;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanKind, Tracer, TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};

/// Without one of these nothing is sent: a collector that nobody named is not looked for.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Of the messages that one thread takes, one in so many has a span; the first one has.
const ONE_MESSAGE_IN: u32 = 100;

/// How long one request to the collector may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the last spans to be sent.
const END_PATIENCE: Duration = Duration::from_secs(1);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends spans until it ends.
pub(crate) struct Spans(Option<SdkTracerProvider>);

impl Spans {
    /// Sends what is left, if the collector takes it soon.
    pub(crate) fn end(self) {
        if let Some(provider) = self.0 {
            // What could not be sent is lost, as ever.
            let _ = provider.shutdown_with_timeout(END_PATIENCE);
        }
    }
}

/// Begins to make spans, if the environment names a collector. To be called where no runtime is.
///
/// # Errors
/// If what the environment says cannot be used.
pub(crate) fn start() -> Result<Spans, String> {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|text| text == value);
    let names_collector = ENDPOINTS
        .iter()
        .any(|name| env::var_os(name).is_some_and(|it| !it.is_empty()));
    let is_off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
    if is_off || !names_collector {
        return Ok(Spans(None));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(SEND_TIMEOUT)
        .build()
        .map_err(|error| format!("no spans can be sent: no HTTP client: {error}"))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(|error| {
            format!("no spans can be sent: {error}; look at OTEL_EXPORTER_OTLP_ENDPOINT")
        })?;
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("jam-mqtt");
    }
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).build())
        .with_resource(resource.build())
        .build();
    let _ = TRACER.set(provider.tracer("jam-mqtt"));
    tracing::info!("spans are sent to the OpenTelemetry collector that the environment names");
    Ok(Spans(Some(provider)))
}

/// What has just ended, and has taken so long.
fn record(name: &'static str, kind: SpanKind, took: Duration, attributes: [KeyValue; 1]) {
    let Some(tracer) = TRACER.get() else {
        return;
    };
    let now = SystemTime::now();
    let mut span = tracer
        .span_builder(name)
        .with_kind(kind)
        .with_start_time(now.checked_sub(took).unwrap_or(now))
        .with_attributes(attributes)
        .start(tracer);
    span.end_with_timestamp(now);
}

/// A client was let in, so long after its connection was accepted.
pub(crate) fn connected(took: Duration) {
    let attribute = KeyValue::new("network.protocol.name", "mqtt");
    record("connect", SpanKind::Server, took, [attribute]);
}

/// A publisher was answered, so many microseconds after its message came.
pub(crate) fn published(path: Path, micros: u64) {
    thread_local! {
        static MESSAGES: Cell<u32> = const { Cell::new(0) };
    }
    let before = MESSAGES.get();
    MESSAGES.set((before + 1) % ONE_MESSAGE_IN);
    if before == 0 {
        let path = match path {
            Path::Grace => "grace",
            Path::Disk => "disk",
        };
        let took = Duration::from_micros(micros);
        record(
            "publish",
            SpanKind::Server,
            took,
            [KeyValue::new("jam.path", path)],
        );
    }
}

/// A batch of so many changes was committed.
pub(crate) fn committed(changes: usize, took: Duration) {
    let changes = i64::try_from(changes).unwrap_or(i64::MAX);
    record(
        "commit",
        SpanKind::Internal,
        took,
        [KeyValue::new("jam.changes", changes)],
    );
}

/// A push service has answered, or has not.
pub(crate) fn pushed(outcome: &'static str, took: Duration) {
    record(
        "push",
        SpanKind::Client,
        took,
        [KeyValue::new("jam.outcome", outcome)],
    );
}
