//! An HTTP/1.1 server that does as a test tells it, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What a request gets.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Status, further headers, body.
    Http(u16, Vec<(&'static str, String)>, String),
    /// The same, some time later.
    Late(Duration, Box<Reply>),
    /// Nothing, for ever.
    Silence,
    /// The connection is reset in the middle of an answer with this status; 0: before any answer.
    Reset(u16),
    /// The connection is closed without an answer.
    Close,
    /// Bytes that are not HTTP.
    Noise,
    /// An answer with this status whose body does not end.
    Endless(u16),
    /// An answer with this status whose body does not come.
    NoBody(u16),
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let kind = ("content-type", "application/json; charset=UTF-8".to_owned());
        Self::Http(status, vec![kind], body.to_string())
    }

    /// As Firebase refuses.
    pub(super) fn error(status: u16, name: &str, code: &str) -> Self {
        let details = json!([
            { "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [] },
            { "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code },
        ]);
        let error = json!({ "code": status, "message": "…", "status": name, "details": details });
        Self::json(status, &json!({ "error": error }))
    }

    pub(super) fn access_token(token: &str, expires_in: u64) -> Self {
        let grant =
            json!({ "access_token": token, "expires_in": expires_in, "token_type": "Bearer" });
        Self::json(200, &grant)
    }

    pub(super) fn plain(status: u16, body: &str) -> Self {
        Self::Http(
            status,
            vec![("content-type", "text/html".to_owned())],
            body.to_owned(),
        )
    }

    pub(super) fn retry_after(status: u16, wait: &str) -> Self {
        Self::Http(
            status,
            vec![("retry-after", wait.to_owned())],
            String::new(),
        )
    }

    pub(super) fn late(self, delay: Duration) -> Self {
        Self::Late(delay, Box::new(self))
    }
}

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) at: Instant,
    /// `POST /path`
    pub(super) line: String,
    /// Names in lower case.
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

#[derive(Debug, Default)]
struct State {
    script: Mutex<VecDeque<Reply>>,
    usual: Mutex<Option<Reply>>,
    /// What requests get whose body has these words in it.
    special: Mutex<Vec<(String, Reply)>>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<usize>,
    /// Bytes of endless bodies that somebody took.
    taken: Mutex<usize>,
    /// Requests that are being answered, and the most there ever were at a time.
    open: Mutex<(usize, usize)>,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(super) struct StandIn {
    address: SocketAddr,
    state: Arc<State>,
    serving: tokio::task::JoinHandle<()>,
}

impl StandIn {
    pub(super) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                *state.connections.lock().unwrap() += 1;
                tokio::spawn(async move { serve(stream, &state).await });
            }
        });
        Self {
            address,
            state,
            serving,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What requests get when nothing else is scripted.
    pub(super) fn usually(&self, reply: Reply) {
        *self.state.usual.lock().unwrap() = Some(reply);
    }

    /// What requests get that have these words in their body, whatever else is scripted.
    pub(super) fn when(&self, words: &str, reply: Reply) {
        let special = (words.to_owned(), reply);
        self.state.special.lock().unwrap().push(special);
    }

    /// What the next requests get.
    pub(super) fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.script.lock().unwrap().extend(replies);
    }

    /// Every request so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.state.requests.lock().unwrap().len()
    }

    /// Waits until there were so many requests.
    pub(super) async fn until(&self, count: usize) -> Vec<Request> {
        let patience = Instant::now() + Duration::from_secs(10);
        while self.count() < count {
            assert!(
                Instant::now() < patience,
                "{} of {count} requests came",
                self.count()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.requests()
    }

    /// Connections that were made, so far.
    pub(super) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    pub(super) fn taken(&self) -> usize {
        *self.state.taken.lock().unwrap()
    }

    pub(super) fn most_at_a_time(&self) -> usize {
        self.state.open.lock().unwrap().1
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl State {
    fn next(&self, request: &Request) -> Reply {
        let special = self.special.lock().unwrap();
        let found = special
            .iter()
            .find(|(words, _)| request.body.contains(words));
        if let Some((_, reply)) = found {
            return reply.clone();
        }
        let scripted = self.script.lock().unwrap().pop_front();
        let reply = scripted.or_else(|| self.usual.lock().unwrap().clone());
        reply.expect("a request that no reply was scripted for")
    }
}

async fn serve(stream: TcpStream, state: &State) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let mut reply = state.next(&request);
        state.requests.lock().unwrap().push(request);
        {
            let mut open = state.open.lock().unwrap();
            open.0 += 1;
            open.1 = open.1.max(open.0);
        }
        while let Reply::Late(delay, then) = reply {
            tokio::time::sleep(delay).await;
            reply = *then;
        }
        let goes_on = answer(stream.get_mut(), reply, state).await;
        state.open.lock().unwrap().0 -= 1;
        if !goes_on {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let at = Instant::now();
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |it| it.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        at,
        line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}

/// Whether the connection goes on.
async fn answer(stream: &mut TcpStream, reply: Reply, state: &State) -> bool {
    match reply {
        Reply::Http(status, headers, body) => {
            let mut text = format!(
                "HTTP/1.1 {status} As scripted\r\ncontent-length: {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str(&format!("\r\n{body}"));
            stream.write_all(text.as_bytes()).await.is_ok()
        }
        Reply::Late(..) => unreachable!("it has been waited for"),
        Reply::Silence => std::future::pending().await,
        Reply::Reset(status) => {
            let head = format!("HTTP/1.1 {status} As scripted\r\ncontent-length: 100\r\n\r\n{{");
            let head = if status == 0 { "" } else { &head };
            let _ = stream.write_all(head.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.set_zero_linger().unwrap();
            false
        }
        Reply::Close => false,
        Reply::Noise => {
            let _ = stream.write_all(b"\0\x01\x02 what is this?\r\n\r\n").await;
            false
        }
        Reply::Endless(status) => {
            let head =
                format!("HTTP/1.1 {status} As scripted\r\ncontent-length: 99999999999\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = [b' '; 16 * 1024];
            while stream.write_all(&chunk).await.is_ok() {
                *state.taken.lock().unwrap() += chunk.len();
            }
            false
        }
        Reply::NoBody(status) => {
            let head = format!("HTTP/1.1 {status} As scripted\r\ncontent-length: 100\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            std::future::pending().await
        }
    }
}
