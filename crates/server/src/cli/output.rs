//! What is printed where: data to standard output, errors to standard error.

use std::io::{self, Write};

use serde::Serialize;

use super::error::{CliError, print_error};
use crate::logging;

/// The process's two streams.
#[derive(Debug)]
pub struct Output {
    /// The program's, at the beginning of every note.
    name: String,
    /// Errors are JSON too.
    json: bool,
}

impl Output {
    /// With JSON for errors if `--json` is among the arguments, whatever else is wrong with them.
    #[must_use]
    pub fn of_this_process(name: &str) -> Self {
        let options = std::env::args_os().skip(1).take_while(|it| it != "--");
        let json = options.into_iter().any(|it| it == "--json");
        let name = name.to_owned();
        Self { name, json }
    }

    /// Text as it is.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// A line.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn line(&self, line: &str) -> Result<(), CliError> {
        self.text(&format!("{line}\n"))
    }

    /// A value as a line of JSON.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let json = serde_json::to_string(value).map_err(|error| CliError::failed(&error))?;
        self.line(&json)
    }

    /// Values as what stands between the brackets of a JSON array.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn json_items(&self, values: &[impl Serialize]) -> Result<(), CliError> {
        let json = serde_json::to_string(values).map_err(|error| CliError::failed(&error))?;
        let items = json.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        self.text(items.expect("a list is an array"))
    }

    /// Bytes as they are, written before this returns.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        written.map_err(|error| print_error(&error))
    }

    /// An error, in one line: `{"error":"…"}` when JSON is wanted.
    pub fn error(&self, message: &str) {
        if self.json {
            logging::write_line(&serde_json::json!({ "error": message }).to_string());
        } else {
            self.note(message);
        }
    }

    /// Something to know that is not what was asked for.
    pub fn note(&self, message: &str) {
        logging::write_line(&format!("{}: {message}", self.name));
    }
}

/// Columns of equal width; the last one as wide as it is.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
