//! The feature `otel`: the built server and a collector that is played here. `cargo test -p jam-mqtt --features otel --test otel`.

#![cfg(feature = "otel")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jam_core::ids::UserId;
use jam_mqtt::client::{Client, ServerUrl};

const BINARY: &str = env!("CARGO_BIN_EXE_jam-mqtt");

/// What must be in no span.
const SECRETS: [&str; 4] = [
    "token-of-1",
    "hello-to-nobody-else",
    "hook-secret",
    "/2/inbox",
];

/// Takes spans at /v1/traces, and pushes at every other path.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<u8>>>);

impl Collector {
    fn open(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let collector = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let collector = collector.clone();
                thread::spawn(move || collector.serve(stream.unwrap()));
            }
        });
        format!("http://{address}")
    }

    /// One request after another, until the other side has enough.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut answers = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let is_traces = line.starts_with("POST /v1/traces ");
            while line.trim_end() != "" {
                line.clear();
                reader.read_line(&mut line).ok()?;
                let header = line.to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            if is_traces {
                self.0.lock().unwrap().extend(body);
            }
            answers
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .ok()?;
        }
    }

    /// Whether there is a span of this name: field 5 of `Span`, a text.
    fn has_span(&self, name: &str) -> bool {
        let mut field = vec![0x2A, u8::try_from(name.len()).unwrap()];
        field.extend(name.bytes());
        self.has(&field)
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.0
            .lock()
            .unwrap()
            .windows(bytes.len())
            .any(|it| it == bytes)
    }
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .arg("--data")
        .arg(dir)
        .env_clear()
        .current_dir(dir);
    command
}

/// A server with two friends, 1 and 2, that knows of the collector.
struct Server {
    process: Child,
    address: ServerUrl,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(collector: &str, push: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for arguments in [
            &["user", "add", "1", "--token", "token-of-1"][..],
            &["user", "add", "2", "--token", "token-of-2"],
            &["friend", "add", "1", "2"],
        ] {
            assert!(
                command(dir.path(), arguments)
                    .output()
                    .unwrap()
                    .status
                    .success()
            );
        }
        let mut serve = command(
            dir.path(),
            &[
                "serve",
                "--mqtt",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--admin",
                "",
            ],
        );
        let mut process = serve
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "64")
            .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64")
            .env("JAM_MQTT_LIMITS__PUBLISH_RATE", "0")
            .env("JAM_MQTT_PUSH__WEBHOOK_URL", format!("{push}/hook-secret"))
            .env("JAM_MQTT_PUSH__WEBHOOK_SECRET", "hook-secret")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let marker = "\"serving mqtt\",\"address\":\"";
        let address = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once(marker)?;
            rest.split('"')
                .next()
                .map(|address| address.parse().unwrap())
        });
        thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: address.expect("it says where it serves"),
            dir,
        }
    }

    async fn client(&self) -> Client {
        let one = UserId::parse("1").unwrap();
        Client::connect(&self.address, None, &one, "phone", "token-of-1")
            .await
            .unwrap()
    }

    /// How long it takes to stop.
    fn stop(mut self) -> Duration {
        let began = Instant::now();
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
        drop(self.dir);
        began.elapsed()
    }
}

async fn publish(client: &mut Client) {
    let message = r#"{"from":"1","content":"hello-to-nobody-else"}"#;
    client.publish("/2/inbox", message.into()).await.unwrap();
}

#[tokio::test]
async fn the_spans_of_a_message_arrive() {
    let collector = Collector::default();
    let address = collector.open();
    let server = Server::start(&address, &address);
    let mut client = server.client().await;
    publish(&mut client).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    for name in ["connect", "publish", "commit", "push"] {
        while !collector.has_span(name) {
            assert!(Instant::now() < deadline, "there is no span {name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(collector.has(b"jam-mqtt") && collector.has(b"disk"));
    server.stop();
    for secret in SECRETS {
        assert!(!collector.has(secret.as_bytes()), "{secret}");
    }
}

/// It takes connections and says nothing, or is not there at all.
#[tokio::test]
async fn a_dead_collector_costs_the_messages_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let push = Collector::default().open();
    for collector in [
        format!("http://{}", silent.local_addr().unwrap()),
        "http://127.0.0.1:1".to_owned(),
    ] {
        let server = Server::start(&collector, &push);
        let mut client = server.client().await;
        // With a span for each commit, many more than the queue holds.
        for _ in 0..300 {
            let began = Instant::now();
            publish(&mut client).await;
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        client.disconnect().await.unwrap();
        assert!(server.stop() < Duration::from_secs(10));
    }
}
