//! `jam-mqtt man DIR`: a man page of each command, and `jam-mqtt.toml(5)` out of the settings' own descriptions.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::roff::{Roff, bold, roman};

use super::Cli;
use super::error::CliError;
use super::output::Output;
use crate::settings::{self, SettingHelp};

/// Write the man pages
#[derive(Debug, Args)]
#[command(after_help = "Example: jam-mqtt man /usr/local/share/man")]
pub(super) struct Man {
    /// The folder that gets man1 and man5
    dir: PathBuf,
}

impl Man {
    pub(super) fn run(&self, output: &Output) -> Result<(), CliError> {
        let failed = |error: std::io::Error| {
            CliError::Failed(format!("cannot write to {}: {error}", self.dir.display()))
        };
        let (commands, files) = (self.dir.join("man1"), self.dir.join("man5"));
        std::fs::create_dir_all(&commands).map_err(failed)?;
        std::fs::create_dir_all(&files).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &commands).map_err(failed)?;
        std::fs::write(files.join("jam-mqtt.toml.5"), settings_page()).map_err(failed)?;
        output.line(&format!("wrote man pages to {}", self.dir.display()))
    }
}

fn settings_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["jam-mqtt.toml", "5", "", "jam-mqtt", "File formats"]);
    page.control("SH", ["NAME"]);
    page.text([roman("jam-mqtt.toml - the settings of jam-mqtt")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A TOML file. Each setting has a default, so that an empty file, or none, is a valid one. \
         Environment variables come after the file, options of the command line after both; the later wins. \
         An unknown setting is an error. The effective settings are printed by",
    )]);
    page.text([bold("jam-mqtt serve --print-config")]);
    page.text([roman(".")]);
    let mut section = None;
    for SettingHelp {
        path,
        variable,
        default,
        expected,
        meaning,
    } in settings::help()
    {
        let (of, name) = path.split_once('.').unwrap_or(("", path));
        if section != Some(of) {
            section = Some(of);
            let title = if of.is_empty() {
                "AT THE TOP".to_owned()
            } else {
                format!("[{of}]")
            };
            page.control("SH", [title.as_str()]);
        }
        page.control("TP", []);
        page.text([bold(name), roman(format!(" = {default}"))]);
        page.text([roman(format!("{meaning}."))]);
        page.text([roman(format!("Takes {expected}. {variable}."))]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("jam-mqtt"),
        roman("(1), "),
        bold("jam-mqtt-serve"),
        roman("(1)"),
    ]);
    page.to_roff()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_settings_has_them_all() {
        let page = settings_page();
        for setting in settings::help() {
            let variable = setting.variable.replace('-', r"\-");
            assert!(page.contains(&variable), "{}", setting.path);
        }
    }
}
