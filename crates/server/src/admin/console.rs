//! The console: pages that ask the admin API from an operator's browser (`docs/operations.md`).
//!
//! The files hold nothing of this server, so they need no token; what they show, they ask of `/api/v1` with the token
//! that the operator types.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::routing::get;

use crate::static_files::{self, StaticFile, static_files};

static FILES: &[StaticFile] = static_files! {
    "console/":
    "index.html"
    "console.css"
    "icon.svg"
    "api.js"
    "chart.js"
    "console.js"
    "diagnosis.js"
    "dialog.js"
    "dom.js"
    "live.js"
    "lists.js"
    "numbers.js"
    "overview.js"
    "reference.js"
    "server.js"
    "user.js"
    "users.js"
};

/// `/console` and what is below it.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // A relative address: a proxy may have put a path before it.
    let to_folder = (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, "console/")],
    );
    static_files::routes("/console/", FILES)
        .route("/console", get(move || async move { to_folder }))
        .layer(map_response(static_files::harden))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{ask, with_tokens};
    use crate::serve::tests::house::House;
    use crate::static_files::tests::are_whole;

    #[test]
    fn all_files_of_the_folder_are_served_and_name_no_other_address() {
        are_whole(&FILES.iter().collect::<Vec<_>>(), "console");
    }

    #[tokio::test]
    async fn a_file_comes_with_its_policy_and_is_asked_for_once() {
        let house = House::open(|settings, _| with_tokens(settings)).await;
        let address = house.running.admin.unwrap();
        let page = ask(address, "GET /console/", &[], b"").await;
        assert_eq!(page.status, 200);
        assert!(page.body.starts_with("<!doctype html>"), "{}", page.body);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
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
