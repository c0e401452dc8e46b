//! The effective settings as a settings file.
//!
//! What comes out, read again, yields the same settings (`tests::what_is_printed_reads_back`), but for
//! secrets and URLs with credentials, which stand there as comments without them.

use std::fmt::Write as _;

use super::keys::KEYS;
use super::layers::{Origin, Values};

pub(super) fn to_toml(values: &Values) -> String {
    let mut out = String::from("# The effective settings of jam-mqtt.\n");
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            write_line(&mut out, format_args!("\n[{section}]"));
        }
        let entry = values.get(key.path);
        write_line(&mut out, format_args!("\n# {}", key.meaning));
        let default = key.toml(key.default);
        match &entry.origin {
            Origin::Default => write_line(&mut out, format_args!("# default: {default}")),
            origin => write_line(
                &mut out,
                format_args!("# default: {default}; set by {origin}"),
            ),
        }
        let comment = if entry.is_secret() { "# " } else { "" };
        let value = key.toml(&entry.shown());
        write_line(&mut out, format_args!("{comment}{} = {value}", key.name()));
    }
    out
}

fn write_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a String takes any text");
}
