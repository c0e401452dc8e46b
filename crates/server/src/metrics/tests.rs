use std::fmt::Write;
use std::path::Path;

use jam_core::metrics::Series;

use super::families::ALL;
use super::*;

const BEGIN: &str = "<!-- made by crates/server/src/metrics/families.rs -->\n";
const END: &str = "<!-- end -->\n";

fn table() -> String {
    let mut table = "| metric | type | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
    for place in &ALL {
        let family = place.family();
        let kind = match family.kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram(_) => "histogram",
        };
        let values = |label: usize| match family.series {
            _ if family.name == "jam_build_info" => String::new(),
            Series::Product(values) => format!(": `{}`", values[label].join("`, `")),
            _ => String::new(),
        };
        let labels = family.labels.iter().enumerate();
        let labels: Vec<_> = labels
            .map(|(index, label)| format!("{label}{}", values(index)))
            .collect();
        let (name, help) = (family.name, family.help);
        let labels = labels.join("; ");
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    table.push_str("\n`jam_refusals_total` has these rows:\n\n| handler | reason | what the client is told |\n| --- | --- | --- |\n");
    for row in &jam_core::policy::refusals::ROWS {
        let (handler, slug, message) = (row.handler.label(), row.slug, row.message);
        writeln!(table, "| {handler} | `{slug}` | {message} |").unwrap();
    }
    table.push_str("\n`jam_http_requests_total` has these:\n\n| route | method | code |\n| --- | --- | --- |\n");
    for [route, method, code] in HTTP_REQUESTS.iter().map(|it| [it[0], it[1], it[2]]) {
        writeln!(table, "| {route} | {method} | {code} |").unwrap();
    }
    table
}

/// With `UPDATE_DOCS` set, it is made to.
#[test]
fn the_documentation_has_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let right = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &right).unwrap();
        return;
    }
    assert!(
        text == right,
        "docs/metrics.md is stale: run UPDATE_DOCS=1 cargo test -p jam-mqtt metrics"
    );
}

#[test]
fn a_request_that_fits_nothing_is_counted_all_the_same() {
    let metrics = ServerMetrics::default();
    for (path, method, status) in [
        ("/api/v1/users/x", "GET", 200),
        ("/apix", "GET", 404),
        ("/brew", "BREW", 418),
        ("/mqtt", "GET", 302),
        ("/", "GET", 200),
        ("/chat.js", "HEAD", 304),
        ("/chat.php", "GET", 404),
    ] {
        metrics.requested(path, method, status);
    }
    let count = |labels: [&str; 3]| {
        let series = HTTP_REQUESTS.iter().position(|it| *it == labels).unwrap();
        metrics
            .cells()
            .sum(families::first_of(Index::HttpRequests) + series)
    };
    assert_eq!(count(["api", "GET", "2xx"]), 1);
    assert_eq!(count(["other", "GET", "4xx"]), 2);
    assert_eq!(count(["static", "GET", "2xx"]), 1);
    assert_eq!(count(["static", "GET", "3xx"]), 1);
    assert_eq!(count(["other", "other", "4xx"]), 1);
    assert_eq!(count(["other", "other", "other"]), 1);
}

#[test]
fn the_table_of_what_is_counted_is_in_order() {
    for (index, name) in [
        (Index::Connections, "jam_connections"),
        (Index::SentBytes, "jam_sent_bytes_total"),
        (Index::CommitChanges, "jam_commit_changes"),
        (Index::DirectoryLoadSeconds, "jam_directory_load_seconds"),
        (Index::HttpRequests, "jam_http_requests_total"),
        (Index::MailboxLostBatches, "jam_mailbox_lost_batches_total"),
    ] {
        assert_eq!(COUNTED[index as usize].name, name);
    }
}
