//! [`ServerUrl`]: where a server is, and what is spoken there.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// What the URL of a server may look like.
const EXPECTED: &str = "expected HOST:PORT, mqtt://HOST[:1883], mqtts://HOST[:8883], ws://HOST[:80][/mqtt] or \
                        wss://HOST[:443][/mqtt]";

/// Where a server is, and what is spoken there. `HOST:PORT` is MQTT over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// Of a WebSocket: the path, and the query if there is one.
    pub(super) websocket: Option<String>,
    text: String,
}

/// The text is no [`ServerUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidServerUrl;

impl fmt::Display for InvalidServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }
}

impl std::error::Error for InvalidServerUrl {}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ServerUrl {
    /// Whether it is MQTT over TCP.
    pub(super) fn is_plain_mqtt(&self) -> bool {
        !self.tls && self.websocket.is_none()
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidServerUrl;

    fn from_str(text: &str) -> Result<Self, InvalidServerUrl> {
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("mqtt://{text}"),
        };
        let url = Url::parse(&whole).map_err(|_| InvalidServerUrl)?;
        let (tls, is_websocket, usual_port) = match url.scheme() {
            "mqtt" => (false, false, 1883),
            "mqtts" => (true, false, 8883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            _ => return Err(InvalidServerUrl),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(InvalidServerUrl)?;
        let path = match url.path() {
            "" | "/" => "/mqtt",
            path => path,
        };
        let has_path = path != "/mqtt" || url.query().is_some();
        let is_named = text.contains("://") || url.port().is_some();
        let has_login = !url.username().is_empty() || url.password().is_some();
        if !is_named || has_login || url.fragment().is_some() || (has_path && !is_websocket) {
            return Err(InvalidServerUrl);
        }
        let query = url.query().map(|query| format!("?{query}"));
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(usual_port),
            tls,
            websocket: is_websocket.then(|| format!("{path}{}", query.unwrap_or_default())),
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_server() {
        for (text, host, port, tls, websocket) in [
            ("127.0.0.1:1883", "127.0.0.1", 1883, false, None),
            ("[::1]:7", "::1", 7, false, None),
            ("localhost:1", "localhost", 1, false, None),
            (
                "mqtt://jam.example.org",
                "jam.example.org",
                1883,
                false,
                None,
            ),
            (
                "mqtts://jam.example.org",
                "jam.example.org",
                8883,
                true,
                None,
            ),
            ("mqtts://[::1]:8884", "::1", 8884, true, None),
            ("ws://h:8080", "h", 8080, false, Some("/mqtt")),
            ("ws://h/mqtt", "h", 80, false, Some("/mqtt")),
            (
                "wss://h/jam/mqtt?a=b",
                "h",
                443,
                true,
                Some("/jam/mqtt?a=b"),
            ),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            let found = (&*url.host, url.port, url.tls, url.websocket.as_deref());
            assert_eq!(found, (host, port, tls, websocket), "{text}");
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "h",
            ":1883",
            "h:x",
            "h:70000",
            "http://h",
            "mqtt://",
            "mqtt://u:p@h",
            "mqtt://h/path",
            "wss://h#x",
            "h:1/path",
        ] {
            assert_eq!(text.parse::<ServerUrl>(), Err(InvalidServerUrl), "{text}");
        }
    }
}
