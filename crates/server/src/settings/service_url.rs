//! URLs of services, and how they are shown: without what may let somebody in.
//!
//! That is user and password, query and fragment, and the path of an HTTP address, which is the only secret of many a
//! webhook. The path of another URL names a database, and `sqlite:` names a file: they are shown.
//!
//! Invariant: a text that is no URL, or whose parts are in doubt, is shown no further than it is certain
//! (`tests::what_is_in_doubt_is_not_shown`).

use std::borrow::Cow;
use std::fmt;

use reqwest::Url;

/// In the place of what is not shown.
const NOT_SHOWN: &str = "(not shown)";

/// An `https` or `http` address. `Display` and `Debug` show no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceUrl(Url);

impl ServiceUrl {
    /// The address that a text is, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        matches!(url.scheme(), "https" | "http").then_some(Self(url))
    }

    /// The same service at the path that follows this one.
    pub(crate) fn join(&self, segments: &[&str]) -> Self {
        let mut url = self.0.clone();
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(segments);
        Self(url)
    }

    /// All of it, for requests to it.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0.as_str()))
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL as it is shown. It is the text itself if nothing is left out.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if text.starts_with("sqlite:") {
        return Cow::Borrowed(text);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return shown_of_no_url(text);
    };
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.bytes().all(of_scheme) {
        return Cow::Borrowed(NOT_SHOWN);
    }
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // A password with one of these characters in it ends only there.
    if tail.contains('@') {
        return Cow::Owned(format!("{scheme}://{NOT_SHOWN}"));
    }
    let (login, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (format!("{NOT_SHOWN}@"), host),
        None => (String::new(), authority),
    };
    let (path, query) = tail.split_at(tail.find(['?', '#']).unwrap_or(tail.len()));
    let is_http = ["http", "https"]
        .iter()
        .any(|it| scheme.eq_ignore_ascii_case(it));
    let path = match path {
        path if is_http && path.len() > 1 => format!("/{NOT_SHOWN}"),
        path => path.to_owned(),
    };
    let query = match query {
        "" => String::new(),
        _ => format!("?{NOT_SHOWN}"),
    };
    let shown = format!("{scheme}://{login}{host}{path}{query}");
    if login.is_empty() && shown == text {
        return Cow::Borrowed(text);
    }
    Cow::Owned(shown)
}

/// Somebody may have left out the scheme, or mistyped what follows it.
fn shown_of_no_url(text: &str) -> Cow<'_, str> {
    if text.contains(['@', ':']) {
        return Cow::Borrowed(NOT_SHOWN);
    }
    match text.find(['/', '\\', '?', '#']) {
        Some(end) => Cow::Owned(format!("{}{NOT_SHOWN}", &text[..=end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (text, expected) in [
            ("https://fcm.googleapis.com", "https://fcm.googleapis.com"),
            ("http://[::1]:80/", "http://[::1]:80/"),
            ("https://u:hidden@h:1/", "https://(not shown)@h:1/"),
            ("https://hidden@h", "https://(not shown)@h"),
            ("https://u:hidden@hidden@h", "https://(not shown)@h"),
            ("https://h/push/hidden", "https://h/(not shown)"),
            ("HTTPS://h\\hidden", "HTTPS://h/(not shown)"),
            ("https://h?k=hidden", "https://h?(not shown)"),
            ("https://h/#hidden", "https://h/?(not shown)"),
            (
                "https://h/x?k=hidden#y",
                "https://h/(not shown)?(not shown)",
            ),
            (
                "postgres://u:hidden@a,b:2/jam?password=hidden",
                "postgres://(not shown)@a,b:2/jam?(not shown)",
            ),
            ("nats://hidden@h", "nats://(not shown)@h"),
            ("sqlite:/srv/a@b/jam?.db", "sqlite:/srv/a@b/jam?.db"),
            ("jam.db", "jam.db"),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected);
            let is_whole = matches!(shown(text), Cow::Borrowed(whole) if whole == text);
            assert_eq!(is_whole, text == expected, "{text}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_not_shown() {
        for text in [
            "postgres://u:hid/den@h/jam",
            "postgres://u:hid?den@h/jam",
            "postgres://u:hid#den@h/jam",
            "postgres:u:hidden@h",
            "https:/u:hidden@h",
            "u:hidden@h/jam",
            "example.org/services/hidden",
            "example.org?hidden",
            " https://u:hidden@h",
            "ht\ttps://h/hidden",
            "localhost:1/hidden",
        ] {
            let shown = shown(text);
            assert!(shown.contains(NOT_SHOWN), "{text}: {shown}");
            assert!(
                !shown.contains("hid") && !shown.contains("den"),
                "{text}: {shown}"
            );
        }
    }

    #[test]
    fn an_address_is_shown_without_them_and_used_with_them() {
        let url = ServiceUrl::parse("https://u:hidden@h/hidden/?k=hidden").unwrap();
        let longer = url.join(&["v1", "send"]);
        assert_eq!(
            longer.expose().as_str(),
            "https://u:hidden@h/hidden/v1/send?k=hidden"
        );
        for url in [url, longer] {
            assert!(!format!("{url}{url:?}").contains("hidden"), "{url}");
        }
        for wrong in ["ftp://h", "https://", "h", "", "sqlite:x"] {
            assert_eq!(ServiceUrl::parse(wrong), None, "{wrong}");
        }
    }
}
