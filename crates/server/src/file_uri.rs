//! A path as a URI, for SQLite to open with options.

use std::path::Path;

/// The URI of `path`, with what follows the `?`.
pub(crate) fn with_options(path: &Path, options: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push('?');
    uri.push_str(options);
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_path_is_the_path() {
        let uri = with_options(Path::new("/a b/ü?mode=rw#x%20.db"), "mode=ro");
        assert_eq!(uri, "file:/a%20b/%C3%BC%3Fmode%3Drw%23x%2520.db?mode=ro");
    }
}
