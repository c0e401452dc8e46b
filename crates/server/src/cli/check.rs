//! `check`: what would be served, and whether everything that it takes can be used. Changes nothing,
//! creates nothing, asks no network.

use std::path::Path;

use serde::Serialize;

use super::CliError;
use super::output::{Output, table};
use super::runtime;
use crate::directory::Administration;
use crate::mailbox::OpenError;
use crate::mailbox::admin::{self, Condition};
use crate::permissions;
use crate::push;
use crate::settings::{self, Settings};
use crate::tls::TlsFiles;

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    what: &'static str,
    ok: bool,
    /// What was found.
    found: String,
}

impl Finding {
    fn of(what: &'static str, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        Self {
            what,
            ok,
            found: result.unwrap_or_else(|error| error),
        }
    }
}

pub(super) fn run(settings: &Settings, json: bool, output: &Output) -> Result<(), CliError> {
    let mut findings = vec![
        Finding::of("data", data(&settings.data)),
        Finding::of("directory", directory(settings)),
        Finding::of("mailbox", mailbox(&settings.mailbox_dir())),
        Finding::of("disk", admin::room(&settings.mailbox_dir())),
    ];
    let tls = TlsFiles::of(&settings.tls);
    let threads = runtime::threads(tls.is_some());
    let threads = threads.map(|threads| format!("{threads} for connections"));
    findings.push(Finding::of(
        "threads",
        threads.map_err(|error| error.to_string()),
    ));
    if let Some(files) = tls {
        let verified = files.verify().map_err(|error| error.to_string());
        let found = verified.map(|()| format!("{}, and its key", files.identity.cert.display()));
        findings.push(Finding::of("tls", found));
    }
    findings.push(Finding::of("push", push(&settings.push)));
    let listen = &settings.listen;
    for (what, address) in [
        ("mqtt", &listen.mqtt),
        ("mqtts", &listen.mqtts),
        ("http", &listen.http),
    ] {
        let found = address
            .as_ref()
            .map_or("off".to_owned(), |at| format!("would serve on {at}"));
        findings.push(Finding::of(what, Ok(found)));
    }
    for exposed in permissions::exposed_secrets(settings) {
        findings.push(Finding::of("permissions", Ok(exposed)));
    }
    for not_served in settings.not_served() {
        findings.push(Finding::of(
            not_served.key,
            Ok(format!("has no effect yet: {}", not_served.instead)),
        ));
    }
    report(&findings, json, output)
}

fn report(findings: &[Finding], json: bool, output: &Output) -> Result<(), CliError> {
    let failed: Vec<_> = findings.iter().filter(|finding| !finding.ok).collect();
    let ok = failed.is_empty();
    if json {
        output.json(&serde_json::json!({ "ok": ok, "findings": findings }))?;
    } else {
        let row = |finding: &Finding| {
            let verdict = if finding.ok { "ok" } else { "FAILED" };
            vec![
                verdict.to_owned(),
                finding.what.to_owned(),
                finding.found.clone(),
            ]
        };
        output.text(&table(&findings.iter().map(row).collect::<Vec<_>>()))?;
    }
    if ok {
        return Ok(());
    }
    let failed = failed
        .iter()
        .map(|Finding { what, found, .. }| format!("{what}: {found}"));
    Err(CliError::Failed(failed.collect::<Vec<_>>().join("; ")))
}

fn data(data: &Path) -> Result<String, String> {
    let shown = data.display();
    match std::fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => Ok(shown.to_string()),
        Ok(_) => Err(format!(
            "{shown} is not a directory; move it away or set data"
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{shown} would be created"))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn directory(settings: &Settings) -> Result<String, String> {
    let path = &settings.directory.path;
    let shown = path.display();
    if !path.exists() {
        let missing = settings.directory.require_named();
        missing.map_err(|error| error.to_string())?;
        return Ok(format!("{shown} would be created"));
    }
    let read = || {
        let directory = Administration::inspect(path)?;
        Ok((
            directory.count_users()?,
            directory.has_notification_tokens()?,
        ))
    };
    let read: Result<_, crate::directory::DirectoryError> = read();
    let (users, can_push) = read.map_err(|error| error.to_string())?;
    let mut found = format!("{shown}, {users} accounts");
    if !can_push {
        found.push_str(
            "; without the column user_notification_token: with push on, messages to who is offline \
             are refused",
        );
    }
    Ok(found)
}

fn mailbox(dir: &Path) -> Result<String, String> {
    let found = match admin::check(dir) {
        Ok(found) => found,
        Err(OpenError::Missing(path)) => return Ok(format!("{} would be created", path.display())),
        Err(error) => return Err(error.to_string()),
    };
    let Condition {
        version,
        served,
        messages,
    } = found;
    let served = if served {
        "a server has it"
    } else {
        "no server has it"
    };
    Ok(format!(
        "{}, version {version}, messages: {messages}; {served}",
        dir.display()
    ))
}

fn push(push: &settings::Push) -> Result<String, String> {
    let found = push::check(push).map_err(|error| error.to_string())?;
    Ok(found.unwrap_or_else(|| match push.enabled {
        false => "off".to_owned(),
        true => "no push is sent: neither push.fcm_key nor push.webhook_url is set".to_owned(),
    }))
}
