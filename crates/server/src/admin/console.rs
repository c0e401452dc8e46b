//! The console: pages that ask the admin API from an operator's browser (`docs/operations.md`).
//!
//! The files are in the binary. They hold nothing of this server, so they need no token; what they show, they ask of
//! `/api/v1` with the token that the operator types.
//!
//! Invariants: a page loads and asks nothing but this address ([`POLICY`]); every address in the files is relative, so
//! that they work below a path of a proxy (`tests::the_console_*`).

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::problem::Problem;

/// What a page may do: nothing but scripts, styles, pictures and answers of this address.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// So much of a digest is enough to tell two versions of a file apart.
const ETAG_BYTES: usize = 16;

struct File {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal $media_type:literal)*) => {
        &[$(File {
            name: $name,
            media_type: $media_type,
            bytes: include_bytes!(concat!("../../web/console/", $name)),
        }),*]
    };
}

const PAGE: &str = "index.html";

static FILES: &[File] = files! {
    "index.html" "text/html; charset=utf-8"
    "console.css" "text/css; charset=utf-8"
    "icon.svg" "image/svg+xml"
    "api.js" "text/javascript; charset=utf-8"
    "chart.js" "text/javascript; charset=utf-8"
    "console.js" "text/javascript; charset=utf-8"
    "diagnosis.js" "text/javascript; charset=utf-8"
    "dialog.js" "text/javascript; charset=utf-8"
    "dom.js" "text/javascript; charset=utf-8"
    "live.js" "text/javascript; charset=utf-8"
    "lists.js" "text/javascript; charset=utf-8"
    "numbers.js" "text/javascript; charset=utf-8"
    "overview.js" "text/javascript; charset=utf-8"
    "reference.js" "text/javascript; charset=utf-8"
    "server.js" "text/javascript; charset=utf-8"
    "user.js" "text/javascript; charset=utf-8"
    "users.js" "text/javascript; charset=utf-8"
};

/// `/console` and what is below it.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // A relative address: a proxy may have put a path before it.
    let to_folder = (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, "console/")],
    );
    Router::new()
        .route("/console", get(move || async move { to_folder }))
        .route(
            "/console/",
            get(|headers| async move { file(PAGE, &headers) }),
        )
        .route("/console/{name}", get(named))
}

async fn named(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&name, &headers)
}

fn file(name: &str, asked: &HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        let detail = format!("the console has no {name}");
        return Problem::new(StatusCode::NOT_FOUND, detail).into_response();
    };
    let digest = digest(&SHA256, file.bytes);
    let etag = format!(
        "\"{}\"",
        URL_SAFE_NO_PAD.encode(&digest.as_ref()[..ETAG_BYTES])
    );
    let is_known = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| {
            tags.split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag)
        });
    let headers = [
        (header::CONTENT_TYPE, file.media_type),
        (header::ETAG, etag.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let others = [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", ""),
    ];
    if is_known {
        (StatusCode::NOT_MODIFIED, headers, others).into_response()
    } else {
        (headers, others, file.bytes).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::tests::{ask, with_tokens};
    use crate::serve::tests::house::House;

    #[test]
    fn all_files_of_the_folder_are_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/web/console");
        let there = std::fs::read_dir(folder).unwrap();
        let there: BTreeSet<_> = there
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        let served: BTreeSet<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(there, served);
    }

    #[test]
    fn files_name_no_other_address() {
        for file in FILES {
            let text = std::str::from_utf8(file.bytes).unwrap();
            let namespace = "http://www.w3.org/2000/svg";
            let text = text.replace(namespace, "");
            assert!(!text.contains("://"), "{}", file.name);
            for absolute in [
                "src=\"/",
                "href=\"/",
                "from '/",
                " url(",
                ":url(",
                "innerHTML",
            ] {
                assert!(!text.contains(absolute), "{}: {absolute}", file.name);
            }
        }
    }

    #[tokio::test]
    async fn a_file_comes_with_its_policy_and_is_asked_for_once() {
        let house = House::open(|settings, _| with_tokens(settings)).await;
        let address = house.running.admin.unwrap();
        let page = ask(address, "GET /console/", &[], b"").await;
        assert_eq!(page.status, 200);
        assert!(page.body.starts_with("<!doctype html>"), "{}", page.body);
        assert_eq!(page.header("content-security-policy"), Some(POLICY));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        let etag = page.header("etag").unwrap();
        for (tags, status) in [
            (etag.to_owned(), 304),
            (format!("\"x\", W/{etag}"), 304),
            ("\"x\"".to_owned(), 200),
        ] {
            let headers = [("If-None-Match", tags.as_str())];
            let answer = ask(address, "GET /console/", &headers, b"").await;
            assert_eq!(
                (answer.status, answer.body.is_empty()),
                (status, status == 304)
            );
        }
        let moved = ask(address, "GET /console", &[], b"").await;
        assert_eq!(
            (moved.status, moved.header("location")),
            (307, Some("console/"))
        );
        for path in ["no.js", "..%2fCargo.toml", "index.html/"] {
            let line = format!("GET /console/{path}");
            ask(address, &line, &[], b"").await.is_problem(404);
        }
        ask(address, "PUT /console/", &[], b"")
            .await
            .is_problem(405);
    }
}
