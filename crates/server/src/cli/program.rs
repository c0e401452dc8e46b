//! From a command line to an exit status, alike in every binary of this package.
//!
//! Results go to standard output; messages and errors go to standard error. The exit status is 0 for success, 1 for
//! a failure, 2 for a wrong command line or setting; `serve` has some of `sysexits.h` besides. An error is one line that says what to do.

use std::process::ExitCode;

use clap::Parser;

use super::error::{CliError, print_error};
use super::output::Output;
use crate::logging;

/// Parses the command line, runs the command, and reports its error.
#[must_use]
pub fn run<C: Parser>(command: impl FnOnce(C, &Output) -> Result<(), CliError>) -> ExitCode {
    let name = C::command().get_name().to_owned();
    let output = Output::of_this_process(&name);
    let result = match C::try_parse() {
        Ok(parsed) => command(parsed, &output),
        Err(error) => explain(&error, &name),
    };
    let status = match result {
        Ok(()) | Err(CliError::NoReader) => ExitCode::SUCCESS,
        Err(CliError::Failed(message)) => {
            output.error(&message);
            ExitCode::FAILURE
        }
        Err(CliError::NotServed { status, message }) => {
            output.error(&message);
            ExitCode::from(status)
        }
        Err(CliError::Misused) => ExitCode::from(2),
        Err(CliError::Usage(message)) => {
            output.error(&message);
            ExitCode::from(2)
        }
    };
    logging::finish();
    status
}

/// --help and the like as clap prints them; what is wrong with the line in one line.
fn explain(error: &clap::Error, name: &str) -> Result<(), CliError> {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    match error.kind() {
        DisplayHelp | DisplayVersion => error.print().map_err(|error| print_error(&error)),
        DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nowhere to say it if this fails.
            let _ = error.print();
            Err(CliError::Misused)
        }
        _ => Err(CliError::Usage(one_line(&error.to_string(), name))),
    }
}

/// What clap says, and how the command is used.
pub(super) fn one_line(error: &str, name: &str) -> String {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut said: Vec<&str> = Vec::new();
    let usage = lines.find_map(|line| {
        let usage = line.strip_prefix("Usage: ");
        if usage.is_none() && !line.starts_with("For more information") {
            said.push(line);
        }
        usage
    });
    let said = said.join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    match usage {
        Some(usage) => format!("{said}; usage: {usage}"),
        None => format!("{said}; see {name} --help for the usage"),
    }
}
