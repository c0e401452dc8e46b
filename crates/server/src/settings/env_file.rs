//! Files of environment variables as the first implementation's Node.js reads them.
//!
//! `NAME=value` lines, also with `export`, spaces around `=`, single, double or back quotes, comments.
//! Unquoted values may hold spaces; nothing is substituted. What Node skips is skipped.

/// The variables in their order. A name may occur twice; the later one counts.
///
/// # Errors
/// In words, if a quoted value does not end on its line: what is meant cannot be told.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let name = name.trim();
        let well_formed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(well_formed) {
            continue;
        }
        let value = unquote(value.trim())
            .ok_or_else(|| format!("line {}: the quotes around {name} do not end", number + 1))?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

fn unquote(value: &str) -> Option<String> {
    match value.chars().next() {
        Some(quote @ ('"' | '\'' | '`')) => {
            let inner = &value[1..];
            inner.find(quote).map(|end| inner[..end].to_owned())
        }
        _ => Some(
            value
                .split('#')
                .next()
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_what_node_reads() {
        let text = "\u{feff}# a comment\n\
            db_path=\"/srv/my jam.db\" # with a comment\n\
            export port = 1883\n\
            tls_key='a#b'\n\
            tls_cert=/etc/my certs/cert.pem # plain\n\
            tls_ca=\n\
            not a variable\n";
        let got = parse(text).unwrap();
        let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let expected = [
            ("db_path", "/srv/my jam.db"),
            ("port", "1883"),
            ("tls_key", "a#b"),
            ("tls_cert", "/etc/my certs/cert.pem"),
            ("tls_ca", ""),
        ];
        assert_eq!(got, expected);
        assert!(parse("port=\"1883\nx=1").unwrap_err().contains("line 1"));
    }
}
