//! `.pgpass`: lines of `host:port:database:user:password`, `*` for any, `\` before a `:` or `\` that is meant.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::logging::LogPace;

/// Fields before the password.
const NAMES: usize = 4;

/// Bytes that are read of a file: more than anybody has.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is in a password file; `None` if there is none, or if others may read it, which is warned of.
pub(super) fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        static WARNED: LogPace = LogPace::new();
        if !WARNED.is_due() {
            return None;
        }
        let path = path.display();
        tracing::warn!(
            "the password file {path} is not used, since others have access to it: chmod 0600 {path}"
        );
        return None;
    }
    std::fs::read_to_string(path).ok()
}

/// The password on the first line that fits.
pub(super) fn find(entries: &str, names: [&str; NAMES]) -> Option<String> {
    let lines = entries.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|fields| {
        let (password, patterns) = fields.split_last()?;
        let fits = |(pattern, name): (&String, &str)| pattern == "*" || pattern == name;
        let is_whole = patterns.len() == NAMES;
        let fits = is_whole && patterns.iter().zip(names).all(fits);
        (fits && !password.is_empty()).then(|| password.clone())
    })
}

/// What a line says. All that comes after the fourth field is the password.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '\\' => fields[last].extend(characters.next()),
            ':' if fields.len() <= NAMES => fields.push(String::new()),
            character => fields[last].push(character),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let file = "# h:1:d:u:no\nh:2:d:u:no\nh:1:*:u:a\\:b\\\\c:d\n*:*:*:*:any\nh:1:d:u:late\nbroken:line\n";
        let found = |host, port| find(file, [host, port, "d", "u"]);
        assert_eq!(found("h", "1").as_deref(), Some("a:b\\c:d"));
        assert_eq!(found("h", "3").as_deref(), Some("any"));
        assert_eq!(find("h:1:d:u:p", ["h", "1", "d", "other"]), None);
        assert_eq!(find("h:1:d:u:", ["h", "1", "d", "u"]), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        std::fs::write(&path, "h:1:d:u:p\n").unwrap();
        for (mode, is_read) in [(0o600, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_some(), is_read, "{mode:o}");
        }
        assert_eq!(read(&dir.path().join("none")), None);
        assert_eq!(read(dir.path()), None);
    }
}
