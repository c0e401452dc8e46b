//! The chat page, and `jam.js`, which it stands on and other pages may too (`docs/operations.md`).
//!
//! The files hold nothing of this server. The page asks for a user id and a token, and speaks MQTT over the WebSocket at
//! `/mqtt` as any other client does.

use axum::Router;

use crate::static_files::{self, StaticFile, static_files};

static PAGE: &[StaticFile] = static_files! {
    "":
    "index.html"
    "chat.js"
    "chat.css"
    "icon.svg"
    "manifest.webmanifest"
};

/// For pages of others too.
static MODULE: &[StaticFile] = static_files! {
    "":
    "jam.js"
    "jam.d.ts"
};

/// Whether there is a file at this address, `listen.chat` permitting.
pub(crate) fn has(address: &str) -> bool {
    let mut files = PAGE.iter().chain(MODULE);
    files.any(|file| file.address() == address)
}

/// The module, and the page if that is to be there.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(with_page: bool) -> Router<S> {
    let module = static_files::routes("/", MODULE);
    if !with_page {
        return module;
    }
    module.merge(static_files::routes("/", PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::{Answer, ask};
    use crate::serve::tests::house::House;
    use crate::static_files::tests::are_whole;

    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
        img-src 'self' blob: data:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
        require-trusted-types-for 'script'";

    #[test]
    fn all_files_of_the_folder_are_served_and_name_no_other_address() {
        let files: Vec<_> = PAGE.iter().chain(MODULE).collect();
        are_whole(&files, "");
    }

    #[tokio::test]
    async fn every_file_comes_with_its_headers_and_its_type_as_does_what_is_not_there() {
        let house = House::open(|_, _| ()).await;
        let address = house.running.http.unwrap();
        for (path, status, media_type) in [
            ("/", 200, "text/html; charset=utf-8"),
            ("/chat.js", 200, "text/javascript; charset=utf-8"),
            ("/chat.css?x=1", 200, "text/css; charset=utf-8"),
            ("/icon.svg", 200, "image/svg+xml"),
            ("/manifest.webmanifest", 200, "application/manifest+json"),
            ("/healthz", 200, "text/plain; charset=utf-8"),
            ("/mqtt", 400, "text/plain; charset=utf-8"),
            ("/index.html", 404, ""),
            ("/chat.js/", 404, ""),
            ("/..%2fCargo.toml", 404, ""),
            ("/console/", 404, ""),
        ] {
            let answer = ask(address, &format!("GET {path}"), &[], b"").await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("content-type").unwrap_or(""), media_type);
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("permissions-policy", ""),
                ("content-security-policy", POLICY),
            ] {
                assert_eq!(answer.header(name), Some(value), "{path}");
            }
            let is_file = status == 200 && path != "/healthz";
            let kept = answer.header("cache-control");
            assert_eq!(kept, is_file.then_some("no-cache"), "{path}");
        }
        let put = ask(address, "PUT /chat.js", &[], b"").await;
        assert_eq!(put.status, 405);
    }

    #[tokio::test]
    async fn what_a_browser_has_is_not_sent_again() {
        let house = House::open(|_, _| ()).await;
        let address = house.running.http.unwrap();
        let gzip = [("Accept-Encoding", "gzip, br")];
        let plain = ask(address, "GET /chat.css", &[], b"").await;
        let small = ask(address, "HEAD /chat.css", &gzip, b"").await;
        assert_eq!(small.header("content-encoding"), Some("gzip"));
        assert_eq!(small.header("vary"), Some("accept-encoding"));
        let length = |answer: &Answer| answer.header("content-length").unwrap().parse();
        let [whole, compressed]: [usize; 2] = [&plain, &small].map(|it| length(it).unwrap());
        assert!(compressed * 2 < whole, "{compressed} of {whole}");
        assert_eq!((plain.body.len(), small.body.len()), (whole, 0));
        let tags = [&plain, &small].map(|it| it.header("etag").unwrap().to_owned());
        assert_ne!(tags[0], tags[1]);
        for tag in &tags {
            let headers = [gzip[0], ("If-None-Match", tag)];
            let again = ask(address, "GET /chat.css", &headers, b"").await;
            assert_eq!((again.status, again.body.as_str()), (304, ""));
            assert_eq!(again.header("content-encoding"), None);
        }
    }

    #[tokio::test]
    async fn there_is_no_page_where_none_is_wanted() {
        let house = House::open(|settings, _| settings.listen.chat = false).await;
        let address = house.running.http.unwrap();
        for (path, status) in [("/", 404), ("/chat.js", 404), ("/healthz", 200)] {
            let answer = ask(address, &format!("GET {path}"), &[], b"").await;
            assert_eq!(answer.status, status, "{path}");
        }
    }
}
