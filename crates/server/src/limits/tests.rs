use super::*;
use crate::documents;

fn defaults() -> Settings {
    Settings::default()
}

fn shown(bound: &Bound) -> String {
    let value = bound.value;
    match value {
        _ if !bound.is_bytes => value.to_string(),
        0..0x400 => format!("{value} bytes"),
        0x400..0x10_0000 => format!("{} KiB", value.div_ceil(0x400)),
        _ => format!("{} MiB", value.div_ceil(0x10_0000)),
    }
}

fn table(bounds: &[Bound]) -> String {
    let mut table = "| of | what | from | default |\n| --- | --- | --- | --- |\n".to_owned();
    for bound in bounds {
        let Bound { of, what, from, .. } = bound;
        table.push_str(&format!("| {of} | {what} | {from} | {} |\n", shown(bound)));
    }
    table
}

#[test]
fn the_documentation_says_what_is_computed() {
    documents::has_table("limits.md", "limits.rs", &table(&bounds(&defaults())));
}

#[test]
fn what_the_settings_say_is_what_is_computed() {
    let of = |settings: &Settings, what: &str| {
        let bounds = bounds(settings);
        let mut found = bounds.iter().filter(|bound| bound.what == what);
        found.next().map(|bound| bound.value)
    };
    let mut settings = defaults();
    let (one, connection) = (user_bytes(&settings), connection_bytes(&settings));
    settings.sessions.devices = Devices::Many;
    settings.limits.packet /= 2;
    assert!(user_bytes(&settings) > one);
    assert_eq!(connection - connection_bytes(&settings), 4 << 20);
    assert_eq!(of(&settings, "sessions"), Some(32));
    settings.mailbox.max_bytes = 1000;
    assert_eq!(of(&settings, "what waits in the mailbox"), Some(1000));
    assert_eq!(
        of(&settings, "what waits of them in a mailbox, or one message"),
        Some(500)
    );
}
