//! Who on this machine may read what the server keeps.
//!
//! Files that the server or a command creates are their owner's alone, whatever umask the process was
//! started with. A file that exists keeps its mode, and SQLite gives a database's `-wal` and `-shm` the mode
//! of the database: a jam database that a web server shares by its group stays shared. A secret that is
//! readable by others is reported and used all the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::folders;
use crate::mailbox;
use crate::postgres::Address;
use crate::settings::{DirectorySettings, Settings};

/// The mode bit "others may read".
const READABLE_BY_OTHERS: u32 = 0o004;

/// From now on the process creates files with mode 0600 and folders with 0700. To be called before there is
/// a second thread.
pub(crate) fn keep_new_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// A line for each file with secrets that every user of the machine can read.
pub(crate) fn exposed_secrets(settings: &Settings) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(identity) = &settings.tls.identity {
        let what = "the private key (tls.key)".to_owned();
        secrets.push((identity.key.clone(), what));
    }
    if let Some(key) = &settings.push.fcm_key {
        let what = "the service account's key (push.fcm_key)".to_owned();
        secrets.push((key.clone(), what));
    }
    let accounts = match &settings.directory {
        DirectorySettings::Postgres(address) => Some(&**address),
        DirectorySettings::Sqlite(_) => None,
    };
    let databases = accounts.into_iter().chain(&settings.mailbox.database);
    let keys = databases.filter_map(Address::key_file);
    secrets.extend(keys.map(|key| {
        let what = "the private key for PostgreSQL (sslkey)".to_owned();
        (key.to_owned(), what)
    }));
    let in_files = settings.secrets_in_files();
    secrets.extend(in_files.map(|(key, file)| (file.to_owned(), format!("the file with {key},"))));
    if let Some(accounts) = settings.directory.file() {
        secrets.push((accounts.path.clone(), "the accounts database".to_owned()));
    }
    let messages = mailbox::file(settings);
    secrets.extend(messages.map(|file| (file, "the mailbox".to_owned())));
    secrets.retain(|(path, _)| is_exposed(path));
    let line = |(path, what): &(PathBuf, String)| {
        let path = path.display();
        format!("{what} {path} is readable by every user of this machine: chmod o-rwx {path}")
    };
    secrets.iter().map(line).collect()
}

/// A file that cannot be looked at is not reported here: what is wrong with it is said where it is used.
fn is_exposed(path: &Path) -> bool {
    let readable = |path: &Path, bit: u32| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bit != 0)
    };
    // A folder that others may not enter hides what is in it.
    readable(path, READABLE_BY_OTHERS) && readable(folders::of(path), 0o001)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_read_is_exposed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pem");
        std::fs::write(&file, "").unwrap();
        set_mode(dir.path(), 0o755);
        for (mode, exposed) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            set_mode(&file, mode);
            assert_eq!(is_exposed(&file), exposed, "{mode:o}");
        }
        set_mode(dir.path(), 0o700);
        assert!(!is_exposed(&file), "nobody gets there");
        assert!(!is_exposed(&dir.path().join("missing")));
    }

    #[test]
    fn a_line_says_which_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let mut settings = Settings::default();
        settings.data = dir.path().to_owned();
        let accounts = dir.path().join("jam.db");
        settings.directory = DirectorySettings::in_file(accounts.clone());
        std::fs::write(&accounts, "").unwrap();
        set_mode(&accounts, 0o640);
        assert!(exposed_secrets(&settings).is_empty());
        set_mode(&accounts, 0o664);
        let lines = exposed_secrets(&settings);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("accounts database") && lines[0].contains("chmod o-rwx"));
    }

    #[test]
    fn the_key_for_a_database_is_one() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let key = dir.path().join("key.pem");
        std::fs::write(&key, "").unwrap();
        let url = format!("postgres://u@h/d?sslcert=cert&sslkey={}", key.display());
        let mut settings = Settings::default();
        settings.data = dir.path().to_owned();
        let address = Address::parse(&url).unwrap();
        settings.directory = DirectorySettings::Postgres(Box::new(address.clone()));
        settings.mailbox.database = Some(address);
        for (mode, lines) in [(0o600, 0), (0o644, 2)] {
            set_mode(&key, mode);
            let exposed = exposed_secrets(&settings);
            let named = exposed.iter().filter(|line| line.contains("sslkey"));
            assert_eq!(named.count(), lines, "{exposed:?}");
        }
    }

    #[test]
    fn a_settings_file_with_a_secret_is_one() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let file = dir.path().join("jam-mqtt.toml");
        let data = dir.path().display();
        for (text, exposed) in [
            ("", false),
            ("[admin]\ntoken = \"s3cret-0123456789\"", true),
        ] {
            std::fs::write(&file, format!("data = \"{data}\"\n{text}")).unwrap();
            set_mode(&file, 0o644);
            let sources = crate::settings::Sources {
                config: Some(file.clone()),
                ..Default::default()
            };
            let lines = exposed_secrets(&Settings::load(&sources).unwrap());
            let named = lines.iter().filter(|line| line.contains("admin.token"));
            assert_eq!(named.count() == 1, exposed, "{lines:?}");
            assert!(!lines.concat().contains("s3cret"));
        }
    }
}
