//! `check`: what would be served, and whether everything that it takes can be used. Changes nothing,
//! creates nothing, sends nothing; addresses are bound for a moment, to see whether they are free.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Access, access as may_access};
use rustix::io::Errno;
use serde::Serialize;

use super::CliError;
use super::output::{Output, table};
use super::runtime::wait_for;
use crate::admin::access;
use crate::directory;
use crate::mailbox::{self, Condition, MailboxAdministration, OpenError};
use crate::permissions;
use crate::push;
use crate::settings::{self, Address, DirectorySettings, Settings};
use crate::threads;
use crate::tls::TlsFiles;
use crate::tls::validity::{Validity, validity};

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    what: &'static str,
    ok: bool,
    /// It would be served, but not for long, or not as it should.
    warning: bool,
    /// What was found.
    found: String,
}

impl Finding {
    fn of(what: &'static str, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        Self {
            what,
            ok,
            warning: false,
            found: result.unwrap_or_else(|error| error),
        }
    }

    fn warning(what: &'static str, found: String) -> Self {
        Self {
            warning: true,
            ..Self::of(what, Ok(found))
        }
    }
}

pub(super) fn run(settings: &Settings, json: bool, output: &Output) -> Result<(), CliError> {
    let mut findings = vec![Finding::of("data", data(&settings.data))];
    let accounts = wait_for(async { Ok(accounts(settings).await) })?;
    findings.push(Finding::of("accounts", accounts));
    let kept = mailbox::administration(settings);
    let (mailbox, served) = mailbox(&*kept);
    findings.push(Finding::of("mailbox", mailbox));
    let warnings = kept.warnings().into_iter();
    findings.extend(warnings.map(|said| Finding::warning("mailbox", said)));
    findings.push(Finding::of("disk", kept.room()));
    let tls = TlsFiles::of(&settings.tls);
    let threads = threads::number_of(settings.listen.threads);
    findings.push(Finding::of(
        "threads",
        Ok(format!("{threads} for connections")),
    ));
    if let Some(files) = tls {
        findings.extend(certificates(&files));
    }
    findings.push(Finding::of("push", push(&settings.push)));
    findings.extend(listeners(&settings.listen, served));
    if settings.listen.admin.is_some() {
        findings.push(Finding::of("admin.token", admin_token(settings)));
        let short = settings.short_tokens().into_iter();
        findings.extend(short.map(|short| Finding::warning("admin tokens", short)));
    }
    for exposed in permissions::exposed_secrets(settings) {
        findings.push(Finding::warning("permissions", exposed));
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
            let verdict = match finding {
                Finding { ok: false, .. } => "FAILED",
                Finding { warning: true, .. } => "warning",
                _ => "ok",
            };
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

/// Each setting with whether it could be bound now. All are held until the end, so that two with one port are seen.
fn listeners(listen: &settings::Listen, served: bool) -> Vec<Finding> {
    let mut bound = Vec::new();
    let mut bind = |address: &Address| match TcpListener::bind(address.as_str()) {
        Ok(listener) => {
            bound.push(listener);
            Ok(format!("would serve on {address}"))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse && served => Ok(format!(
            "{address} is in use, by the server that runs on this data directory unless that has other settings"
        )),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(format!(
            "{address} is in use by another program: `ss -ltnp` names it; end it, or set another address"
        )),
        Err(error) => Err(format!("cannot listen on {address}: {error}")),
    };
    let all = [
        ("mqtt", &listen.mqtt),
        ("mqtts", &listen.mqtts),
        ("http", &listen.http),
        ("admin", &listen.admin),
    ];
    let finding = |(what, address): (_, &Option<Address>)| {
        let found = address.as_ref().map_or(Ok("off".to_owned()), &mut bind);
        Finding::of(what, found)
    };
    all.into_iter().map(finding).collect()
}

fn certificates(files: &TlsFiles) -> Vec<Finding> {
    let identity = &files.identity;
    let verified = files.verify().map_err(|error| error.to_string());
    let found = verified.map(|()| format!("{}, and its key", identity.cert.display()));
    let mut findings = vec![Finding::of("tls", found)];
    let named = [
        ("tls.cert", Some(&identity.cert)),
        ("tls.chain", identity.chain.as_ref()),
        ("tls.client_ca", files.client_ca.as_ref()),
    ];
    let day = |time| humantime::format_rfc3339_seconds(time).to_string();
    for (setting, path) in named {
        let Some(path) = path else { continue };
        // What cannot be read has been reported.
        let Ok(validity) = validity(path, setting, SystemTime::now()) else {
            continue;
        };
        let shown = path.display();
        findings.push(match validity {
            Validity::Until(end) => {
                Finding::of(setting, Ok(format!("{shown} is valid until {}", day(end))))
            }
            Validity::EndsSoon(end) => Finding::warning(
                setting,
                format!("{shown} expires on {}: renew it", day(end)),
            ),
            Validity::Ended(end) => Finding::of(
                setting,
                Err(format!("{shown} expired on {}: renew it", day(end))),
            ),
            Validity::Begins(begin) => Finding::of(
                setting,
                Err(format!(
                    "{shown} is not valid before {}; is this machine's clock right?",
                    day(begin)
                )),
            ),
        });
    }
    findings
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> &Path {
    let above = folder.ancestors().find(|folder| folder.is_dir());
    above.unwrap_or(Path::new("."))
}

/// Whether files can be made in a folder, as far as its permissions and its file system say.
fn writable(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    may_access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| match error {
        Errno::ROFS => format!("{shown} is on a file system that is mounted read-only"),
        Errno::ACCESS => {
            format!("{shown} cannot be written by this user; run this as the user of the server")
        }
        error => format!("{shown} cannot be written: {}", std::io::Error::from(error)),
    })
}

fn data(data: &Path) -> Result<String, String> {
    let shown = data.display();
    match std::fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => writable(data).map(|()| shown.to_string()),
        Ok(_) => Err(format!(
            "{shown} is not a directory; move it away or set data"
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            writable(existing(data)).map(|()| format!("{shown} would be created"))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

async fn accounts(settings: &Settings) -> Result<String, String> {
    let shown = match &settings.directory {
        DirectorySettings::Sqlite(file) if !file.path.exists() => {
            directory::require_named(file).map_err(|error| error.to_string())?;
            return Ok(format!("{} would be created", file.path.display()));
        }
        DirectorySettings::Sqlite(file) => file.path.display().to_string(),
        DirectorySettings::Postgres(address) => address.to_string(),
    };
    let found = directory::inspect(&settings.directory).await;
    let found = found.map_err(|error| error.to_string())?;
    let directory::Inspection { accounts, can_push } = found;
    let mut found = format!("{shown}, {accounts} accounts");
    if !can_push {
        found.push_str(
            "; without the column user_notification_token: with push on, messages to who is offline \
             are refused",
        );
    }
    Ok(found)
}

fn admin_token(settings: &Settings) -> Result<String, String> {
    access::check(settings).map_err(|error| error.to_string())
}

/// What is found, and whether a server has it.
fn mailbox(kept: &dyn MailboxAdministration) -> (Result<String, String>, bool) {
    let found = match kept.check() {
        Ok(found) => found,
        Err(OpenError::Missing(path)) => {
            return (Ok(format!("{} would be created", path.display())), false);
        }
        Err(error) => return (Err(error.to_string()), false),
    };
    if let Some(Err(error)) = kept.folder().map(writable) {
        return (Err(error), found.served);
    }
    let Condition {
        version,
        served,
        messages,
    } = found;
    let by = if served {
        "a server has it"
    } else {
        "no server has it"
    };
    let place = kept.place();
    let found = format!("{place}, version {version}, messages: {messages}; {by}");
    (Ok(found), served)
}

fn push(push: &settings::Push) -> Result<String, String> {
    let found = push::check(push).map_err(|error| error.to_string())?;
    Ok(found.unwrap_or_else(|| match push.enabled {
        false => "off".to_owned(),
        true => "no push is sent: neither push.fcm_key nor push.webhook_url is set".to_owned(),
    }))
}
