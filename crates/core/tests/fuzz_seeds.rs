//! The bodies of the fuzz targets about payloads and operations over their seeds, as ordinary tests.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/bodies/json.rs"]
mod json;
#[path = "../../../fuzz/bodies/mailbox.rs"]
mod mailbox;
#[path = "../../../fuzz/bodies/session.rs"]
mod session;

/// Runs a body over every file of `fuzz/seeds/<target>/`, whole and cut short.
fn seeds(target: &str, body: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut seen = 0;
    for entry in fs::read_dir(directory).expect("the folder of seeds") {
        let path = entry.expect("a seed").path();
        let data = fs::read(&path).expect("a seed");
        body(&data);
        body(&data[..data.len() / 2]);
        seen += 1;
    }
    assert!(seen > 0, "no seeds");
}

#[test]
fn session_seeds() {
    seeds("session", session::run);
}

#[test]
fn mailbox_seeds() {
    seeds("mailbox", mailbox::run);
}

#[test]
fn json_seeds() {
    seeds("json", json::run);
}
