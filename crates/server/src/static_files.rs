//! Files that a browser loads: pages, scripts, styles, from the folder `web`.
//!
//! They are in the binary; a debug build reads the folder, so that a change is seen at the next load. What goes out of the
//! binary is hashed and compressed once, when it is first asked for; after that a request copies no content and computes
//! nothing.
//!
//! Invariants: every file comes with [`harden`]'s headers, so a page loads and asks nothing but its own address; every
//! address in the files is relative, so that they work below a path of a proxy (`tests`).

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};

/// What a page may do: nothing but what is of its own address. The pictures that people send are `blob:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' blob: data:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

/// So much of a digest is enough to tell two versions of a file apart.
const ETAG_BYTES: usize = 16;

/// The name of the file that is its folder's page.
const PAGE: &str = "index.html";

/// A file of the folder `web`.
pub(crate) struct StaticFile {
    /// Below the address of the page.
    pub(crate) name: &'static str,
    pub(crate) media_type: &'static str,
    /// In the source tree.
    pub(crate) path: &'static str,
    pub(crate) embedded: &'static [u8],
}

/// `static_files!("folder": "name" …)`: these files of a folder below `web`.
macro_rules! static_files {
    ($folder:literal: $($name:literal)*) => {
        &[$($crate::static_files::StaticFile {
            name: $name,
            media_type: $crate::static_files::media_type($name),
            path: concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $folder, $name),
            embedded: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $folder, $name)),
        }),*]
    };
}
pub(crate) use static_files;

/// Of a name that ends as one of our files does; anything else does not compile.
pub(crate) const fn media_type(name: &str) -> &'static str {
    match name.as_bytes() {
        [.., b'.', b'h', b't', b'm', b'l'] => "text/html; charset=utf-8",
        [.., b'.', b'c', b's', b's'] => "text/css; charset=utf-8",
        [.., b'.', b'j', b's'] => "text/javascript; charset=utf-8",
        [.., b'.', b't', b's'] => "text/plain; charset=utf-8",
        [.., b'.', b's', b'v', b'g'] => "image/svg+xml",
        [
            ..,
            b'.',
            b'w',
            b'e',
            b'b',
            b'm',
            b'a',
            b'n',
            b'i',
            b'f',
            b'e',
            b's',
            b't',
        ] => "application/manifest+json",
        _ => panic!("a file of an unknown kind"),
    }
}

/// What is sent of a file.
#[derive(Clone)]
struct Prepared {
    plain: Representation,
    gzip: Representation,
}

#[derive(Clone)]
struct Representation {
    content: Bytes,
    etag: HeaderValue,
}

impl Representation {
    fn new(content: Bytes) -> Self {
        let digest = digest(&SHA256, &content);
        let etag = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..ETAG_BYTES]);
        let etag = HeaderValue::try_from(format!("\"{etag}\"")).expect("base64 is ASCII");
        Self { content, etag }
    }
}

impl Prepared {
    fn new(content: Cow<'static, [u8]>) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(&content);
        let compressed = written.and_then(|()| encoder.finish());
        let compressed = compressed.expect("writing to memory does not fail");
        let content = match content {
            Cow::Borrowed(embedded) => Bytes::from_static(embedded),
            Cow::Owned(read) => Bytes::from(read),
        };
        Self {
            plain: Representation::new(content),
            gzip: Representation::new(compressed.into()),
        }
    }
}

impl StaticFile {
    /// Where it is, below the address of the page.
    pub(crate) fn address(&self) -> &'static str {
        if self.name == PAGE { "" } else { self.name }
    }

    fn content(&self) -> Cow<'static, [u8]> {
        if cfg!(debug_assertions)
            && let Ok(read) = std::fs::read(self.path)
        {
            return Cow::Owned(read);
        }
        Cow::Borrowed(self.embedded)
    }

    fn answer(&self, prepared: &OnceLock<Prepared>, asked: &HeaderMap) -> Response {
        let prepare = || Prepared::new(self.content());
        let Prepared { plain, gzip } = if cfg!(debug_assertions) {
            prepare()
        } else {
            prepared.get_or_init(prepare).clone()
        };
        let is_known = [&plain, &gzip].map(|it| names_etag(asked, &it.etag));
        let takes_gzip = takes_gzip(asked);
        let Representation { content, etag } = if takes_gzip { gzip } else { plain };
        let (status, content) = if is_known.contains(&true) {
            (StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            (StatusCode::OK, Body::from(content))
        };
        let mut response = (status, content).into_response();
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag);
        for (name, value) in [
            (header::CONTENT_TYPE, self.media_type),
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if takes_gzip && status == StatusCode::OK {
            let gzip = HeaderValue::from_static("gzip");
            headers.insert(header::CONTENT_ENCODING, gzip);
        }
        response
    }
}

/// The files below an address that ends with `/`; their page is that address itself.
pub(crate) fn routes<S>(below: &str, files: &'static [StaticFile]) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    files.iter().fold(Router::new(), |router, file| {
        let prepared = Arc::new(OnceLock::new());
        let answer = move |asked: HeaderMap| async move { file.answer(&prepared, &asked) };
        router.route(&format!("{below}{}", file.address()), get(answer))
    })
}

/// Adds to an answer what a browser is not to do with it.
pub(crate) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (HeaderName::from_static("permissions-policy"), ""),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the client has what this is the tag of (RFC 9110, section 13.1.2).
fn names_etag(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = asked.get_all(header::IF_NONE_MATCH).into_iter();
    tags.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

/// RFC 9110, section 12.5.3. Who takes anything gets it plain.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let codings = asked.get_all(header::ACCEPT_ENCODING).into_iter();
    codings
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight = weight.trim().trim_start_matches(['q', 'Q', '=', ' ']);
            let is_refused = weight.parse() == Ok(0.0);
            name.trim().eq_ignore_ascii_case("gzip") && !is_refused
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every file of the folder is served, and only those; they name no other address, and themselves by relative ones.
    #[track_caller]
    pub(crate) fn are_whole(files: &[&StaticFile], folder: &str) {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).join(folder);
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let there: BTreeSet<_> = paths.filter(|path| path.is_file()).collect();
        let served = files.iter().map(|file| Path::new(file.path).to_owned());
        assert_eq!(there, served.collect());
        // Types are no code.
        for file in files.iter().filter(|file| !file.name.ends_with(".d.ts")) {
            let text = std::str::from_utf8(file.embedded).unwrap();
            let addresses = text.split("://").skip(1);
            let mut others = addresses.filter(|it| !it.starts_with("www.w3.org/")); // namespaces
            let named = others.find(|it| it.starts_with(char::is_alphanumeric));
            assert_eq!(named, None, "{}", file.name);
            // Preact has it, for those who ask for it.
            let makes_markup = text.contains("innerHTML") && file.name != "chat.js";
            assert!(!makes_markup, "{}", file.name);
            for wrong in ["src=\"/", "href=\"/", "from '/", " url(", ":url("] {
                assert!(!text.contains(wrong), "{}: {wrong}", file.name);
            }
        }
    }

    #[test]
    fn a_coding_that_is_refused_is_not_taken() {
        for (header, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("x-gzip", false),
            ("*", false),
            ("", false),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(header::ACCEPT_ENCODING, header.parse().unwrap());
            assert_eq!(takes_gzip(&asked), takes, "{header}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
