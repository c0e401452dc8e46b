//! Documents whose tables are made of the program, so that they cannot say anything else.

use std::fs;
use std::path::Path;

const END: &str = "<!-- end -->";

/// Whether `docs/<name>` has `table` where it says that it is made by `source`, a file below `crates/server/src`. With
/// `UPDATE_DOCS` set, it is made to.
#[track_caller]
pub(crate) fn has_table(name: &str, source: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    let text = fs::read_to_string(&path).expect("the document is there");
    let begin = format!("<!-- made by crates/server/src/{source} -->\n");
    let (before, rest) = text.split_once(&begin).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let right = format!("{before}{begin}{table}{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &right).expect("the document can be written");
        return;
    }
    assert!(
        text == right,
        "docs/{name} is stale: run UPDATE_DOCS=1 cargo test -p jam-mqtt --lib"
    );
}

/// The rules are in another crate, which writes no documents.
#[test]
fn the_errors_are_those_of_the_rules() {
    use jam_core::policy::refusals::{LOGOUT, ROWS};
    let mut table =
        "| handler | category | message | 5.0 | 3.1.1 | slug |\n| --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for row in &ROWS {
        let of_connack = if row.handler.label() == "connect" && *row != LOGOUT {
            format!("{} {}", u8::from(row.return_code), row.return_code)
        } else {
            "–".to_owned()
        };
        let category = match row.category.as_ref() {
            "" => "the filter".to_owned(),
            category => format!("`{category}`"),
        };
        table.push_str(&format!(
            "| `{}` | {category} | {} | 0x{:02X} {} | {of_connack} | `{}` |\n",
            row.handler.name(),
            row.message,
            u8::from(row.reason),
            row.reason,
            row.slug
        ));
    }
    has_table("errors.md", "documents.rs", &table);
}
