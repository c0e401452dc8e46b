use std::path::Path;

use bytes::Bytes;
use clap::CommandFactory;
use jam_core::ids::UserId;

use super::*;
use crate::client::{Client, ClientError};
use crate::directory::{self, NewToken};
use crate::mailbox::{MailboxAdministration, sqlite::SqliteMailboxAdministration};
use crate::serve::{self, Running};
use crate::settings::Flag;

fn parse(line: &str) -> Result<Command, String> {
    let words = line.split_whitespace();
    Cli::try_parse_from(words)
        .map(|cli| cli.command)
        .map_err(|error| program::one_line(&error.to_string(), "jam-mqtt"))
}

fn each_command(command: &clap::Command, look: &mut dyn FnMut(&clap::Command)) {
    let children: Vec<_> = command
        .get_subcommands()
        .filter(|child| child.get_name() != "help")
        .collect();
    if children.is_empty() {
        look(command);
    }
    for child in children {
        each_command(child, look);
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    let mut commands = 0;
    each_command(&Cli::command(), &mut |command| {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            after.contains("Example: "),
            "{} has no example",
            command.get_name()
        );
        commands += 1;
    });
    assert_eq!(commands, 31);
}

#[test]
fn mistakes_are_told_in_one_line() {
    for (line, said) in [
        (
            "jam-mqtt serve --datta x",
            "unexpected argument '--datta' found",
        ),
        ("jam-mqtt sreve", "unrecognized subcommand 'sreve'"),
        ("jam-mqtt send --user 1 --token t text", "--to <ID>"),
        (
            "jam-mqtt send --user a/b --token t --to 2 text",
            "a user id has 1 to 64 bytes",
        ),
        (
            "jam-mqtt listen --user 1 --token t --count 0",
            "0 is not in 1..",
        ),
        (
            "jam-mqtt listen --user 1 --token t --server nowhere",
            "expected HOST:PORT",
        ),
        ("jam-mqtt user add", "<ID>"),
        ("jam-mqtt completions tcsh", "tcsh"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(
            error.contains(said),
            "{line}: {error:?} should hold {said:?}"
        );
        assert!(
            !error.contains('\n') && !error.starts_with("error"),
            "{error:?}"
        );
    }
}

#[test]
fn every_flag_is_its_setting() {
    let line = "jam-mqtt serve --data /d --mqtt h:1 --mqtts h:2 --http h:3 --admin h:4 \
        --directory sqlite:/x --no-notification";
    let Ok(Command::Serve {
        settings,
        print_config: false,
    }) = parse(line)
    else {
        panic!()
    };
    let mut sources = settings.sources().unwrap();
    sources.environment.clear();
    sources.default_config = None;
    let set = |path, value: &str| Flag {
        name: "test",
        path,
        value: value.to_owned(),
    };
    sources
        .flags
        .extend([set("tls.cert", "c"), set("tls.key", "k")]);
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.data, Path::new("/d"));
    assert_eq!(settings.directory.file().unwrap().path, Path::new("/x"));
    let listen = &settings.listen;
    let addresses = [&listen.mqtt, &listen.mqtts, &listen.http, &listen.admin];
    let addresses = addresses.map(|address| address.as_ref().unwrap().as_str());
    assert_eq!(addresses, ["h:1", "h:2", "h:3", "h:4"]);
    assert!(!settings.push.enabled);

    let line = "jam-mqtt serve --no_notification --mailbox nats://h";
    let Ok(Command::Serve { settings, .. }) = parse(line) else {
        panic!()
    };
    let sources = Sources {
        flags: settings.sources().unwrap().flags,
        ..Sources::default()
    };
    let error = Settings::load(&sources).unwrap_err().to_string();
    assert!(
        error.contains(r#"mailbox.url = "nats://h" (--mailbox)"#),
        "{error}"
    );
}

#[test]
fn completions_for_every_shell() {
    use clap::ValueEnum;
    for shell in clap_complete::Shell::value_variants() {
        let mut out = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "jam-mqtt", &mut out);
        assert!(!out.is_empty());
    }
}

/// A server in this process, with the friends 1 and 2 and the stranger 3; a token is `t` and the id.
struct Bench {
    running: Running,
    dir: tempfile::TempDir,
}

/// A server on this data directory, on any port.
fn flags_of(data: &Path) -> Vec<Flag> {
    let set = |path, value: &str| Flag {
        name: "test",
        path,
        value: value.to_owned(),
    };
    vec![
        set("data", data.to_str().unwrap()),
        set("listen.mqtt", "127.0.0.1:0"),
        set("listen.http", ""),
        set("listen.admin", ""),
    ]
}

/// A command on this data directory. The environment is left out: it may have variables of ours.
fn run_on(data: &Path, line: &str) -> Result<(), CliError> {
    let settings = Settings::load(&Sources {
        flags: flags_of(data),
        ..Sources::default()
    })
    .unwrap();
    match parse(&format!("jam-mqtt {line}")).unwrap() {
        Command::Mailbox(command) => {
            command.run_with(&settings, &Output::of_this_process("jam-mqtt"))
        }
        Command::Backup(command) => {
            command.run_with(&settings, &Output::of_this_process("jam-mqtt"))
        }
        other => panic!("{other:?}"),
    }
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let settings = Settings::load(&Sources {
            flags: flags_of(dir.path()),
            ..Sources::default()
        })
        .unwrap();
        let accounts = directory::administration(&settings.directory).unwrap();
        let users = ["1", "2", "3"].map(|id| UserId::parse(id).unwrap());
        for id in &users {
            let token = NewToken::chosen(&format!("t{id}")).unwrap();
            accounts.add_user(id, None, &token).await.unwrap();
        }
        accounts.befriend(&users[0], &users[1]).await.unwrap();
        Self {
            running: serve::start(settings).await.unwrap(),
            dir,
        }
    }

    /// A command on the server's data directory.
    fn run(&self, line: &str) -> Result<(), CliError> {
        run_on(self.dir.path(), line)
    }

    async fn connect(&self, user: &str, device: &str, token: &str) -> Result<Client, ClientError> {
        let at = self.running.mqtt.unwrap().to_string().parse().unwrap();
        Client::connect(&at, None, &UserId::parse(user).unwrap(), device, token).await
    }
}

fn said(error: &ClientError) -> String {
    match error {
        ClientError::Refused(error) => error.message.clone(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn a_message_gets_through_and_an_error_comes_back() {
    let bench = Bench::start().await;
    let mut reader = bench.connect("2", "a", "t2").await.unwrap();
    reader.subscribe("/2/inbox").await.unwrap();
    let mut writer = bench.connect("1", "a", "t1").await.unwrap();
    let message = messages::text_message("1", "Hello").unwrap();
    for _ in 0..100 {
        writer
            .publish("/2/inbox", Bytes::from(message.clone()))
            .await
            .unwrap();
        let received = reader.next_message().await.unwrap();
        assert_eq!(received.payload, message.as_bytes());
        reader.acknowledge(&received).await.unwrap();
    }
    let error = writer
        .publish("/3/inbox", Bytes::from(message.clone()))
        .await
        .unwrap_err();
    assert_eq!(said(&error), "not friends with the receiver");
    let error = writer
        .publish("/2/inbox", Bytes::from_static(b"{}"))
        .await
        .unwrap_err();
    assert_eq!(said(&error), "payload sender id mismatch");
    writer
        .publish("/2/inbox", Bytes::from(message))
        .await
        .unwrap();
    assert!(reader.subscribe("/1/inbox").await.is_err());
    writer.disconnect().await.unwrap();
    bench.running.stop().await;
}

#[tokio::test]
async fn why_nobody_gets_in_is_told() {
    let bench = Bench::start().await;
    for (user, token, why) in [
        ("1", "wrong", "wrong api token"),
        ("9", "t9", "unknown user id"),
        ("1", "", "wrong api token format"),
    ] {
        let error = bench.connect(user, "a", token).await.unwrap_err();
        assert_eq!(said(&error), why);
    }
    bench.running.stop().await;
}

#[tokio::test]
async fn a_new_device_logs_the_old_one_out() {
    let bench = Bench::start().await;
    let mut old = bench.connect("1", "old", "t1").await.unwrap();
    old.subscribe("/1/inbox").await.unwrap();
    let _new = bench.connect("1", "new", "t1").await.unwrap();
    assert_eq!(
        said(&old.next_message().await.unwrap_err()),
        "a new device has connected"
    );
    bench.running.stop().await;
}

fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let read = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        (entry.file_name().into_string().unwrap(), bytes)
    };
    let mut files: Vec<_> = entries.map(read).collect();
    files.sort();
    files
}

#[test]
fn check_changes_nothing() {
    let dir = tempfile::TempDir::new().unwrap();
    let data = dir.path().join("data");
    let set = |path, value: &Path| Flag {
        name: "test",
        path,
        value: value.to_str().unwrap().into(),
    };
    let check = |mut flags: Vec<Flag>| {
        // Whether the usual ones are free is the machine's business.
        for path in ["listen.mqtt", "listen.http", "listen.admin"] {
            flags.push(set(path, Path::new("127.0.0.1:0")));
        }
        let settings = Settings::load(&Sources {
            flags,
            ..Sources::default()
        })
        .unwrap();
        check::run(&settings, true, &Output::of_this_process("jam-mqtt"))
    };
    check(vec![set("data", &data)]).unwrap();
    assert!(!data.exists());

    std::fs::create_dir(&data).unwrap();
    directory::create(&data.join("jam.db")).unwrap();
    let before = snapshot(&data);
    check(vec![set("data", &data)]).unwrap();
    assert_eq!(snapshot(&data), before);

    let odd = dir.path().join("a ?#% name.db");
    std::fs::copy(data.join("jam.db"), &odd).unwrap();
    let url = format!("sqlite:{}", odd.display());
    check(vec![
        set("data", &data),
        set("directory.url", Path::new(&url)),
    ])
    .unwrap();

    let key = dir.path().join("key.json");
    std::fs::write(&key, r#"{"project_id":"p"}"#).unwrap();
    let told = check(vec![set("data", &data), set("push.fcm_key", &key)]);
    let said = |told| match told {
        Err(CliError::Failed(said)) => said,
        other => panic!("{other:?}"),
    };
    assert!(said(told).contains("has no client_email"));
    let told = check(vec![set("data", &key)]);
    assert!(said(told).contains("is not a directory"));
}

/// A message from 1 that waits for 2.
async fn one_waits(bench: &Bench) {
    let mut writer = bench.connect("1", "a", "t1").await.unwrap();
    let message = messages::text_message("1", "Hello").unwrap();
    writer
        .publish("/2/inbox", Bytes::from(message))
        .await
        .unwrap();
    writer.disconnect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_on_a_backup() {
    let bench = Bench::start().await;
    one_waits(&bench).await;
    let parent = tempfile::TempDir::new().unwrap();
    let copy = parent.path().join("copy");
    bench.run(&format!("backup {}", copy.display())).unwrap();
    let again = bench.run(&format!("backup {}", copy.display()));
    assert!(matches!(again, Err(CliError::Failed(why)) if why.contains("not empty")));
    bench.running.stop().await;

    let settings = Settings::load(&Sources {
        flags: flags_of(&copy),
        ..Sources::default()
    });
    let bench = Bench {
        running: serve::start(settings.unwrap()).await.unwrap(),
        dir: parent,
    };
    let mut reader = bench.connect("2", "a", "t2").await.unwrap();
    reader.subscribe("/2/inbox").await.unwrap();
    let received = reader.next_message().await.unwrap();
    assert!(received.payload.starts_with(br#"{"from":"1""#));
    bench.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_shown_and_emptied_by_the_server_that_has_it() {
    let bench = Bench::start().await;
    one_waits(&bench).await;
    let dir = bench.dir.path().join("mailbox");
    let mailbox = SqliteMailboxAdministration::of(dir);
    let two = UserId::parse("2").unwrap();
    let kept = || mailbox.show(&two).unwrap().messages;
    assert_eq!(kept(), 1);
    bench.run("mailbox show 2").unwrap();
    bench.run("mailbox purge 2").unwrap();
    let mut reader = bench.connect("2", "a", "t2").await.unwrap();
    reader.subscribe("/2/inbox").await.unwrap();
    one_waits(&bench).await;
    let received = reader.next_message().await.unwrap();
    reader.acknowledge(&received).await.unwrap();
    // What is answered after the acknowledgement has been taken, for the server does not wait for one.
    reader.subscribe("/2/x").await.unwrap();
    bench.running.stop().await;
    assert_eq!(kept(), 0, "the first one did not come");
}

#[test]
fn what_is_not_complete_is_removed() {
    let parent = tempfile::TempDir::new().unwrap();
    let data = parent.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (dir, made) in [("new", false), ("empty", true)] {
        let dir = parent.path().join(dir);
        if made {
            std::fs::create_dir(&dir).unwrap();
        }
        // There is no directory to copy.
        let told = run_on(&data, &format!("backup {}", dir.display()));
        assert!(matches!(told, Err(CliError::Failed(why)) if why.contains("jam-mqtt user add")));
        assert_eq!(dir.exists(), made);
        assert!(!made || snapshot(&dir).is_empty());
    }
}

/// A schema is made once, by a command; a server runs on it, another is refused, and what copies files says who copies it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_runs_on_a_database() {
    let database = tokio::task::spawn_blocking(crate::postgres::testing::database);
    let database = database.await.unwrap();
    let settings_in = |dir: &Path| {
        let mut flags = flags_of(dir);
        flags.push(Flag {
            name: "test",
            path: "mailbox.url",
            value: database.url(),
        });
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        Settings::load(&sources).unwrap()
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = settings_in(dirs[0].path());
    let run = |line: &str| {
        let command = parse(line).unwrap();
        let settings = settings.clone();
        let output = Output::of_this_process("jam-mqtt");
        let ran = match command {
            Command::Cluster(command) => command.run_with(&settings, &output),
            Command::Mailbox(command) => command.run_with(&settings, &output),
            Command::Backup(command) => command.run_with(&settings, &output),
            other => panic!("{other:?}"),
        };
        ran.map_err(|error| format!("{error:?}"))
    };
    let without = serve::start(settings.clone()).await.unwrap_err();
    assert!(without.to_string().contains("cluster init"), "{without}");
    assert_eq!(without.exit_status(), 69);
    assert!(run("jam-mqtt cluster migrate").is_err());
    run("jam-mqtt cluster init").unwrap();
    run("jam-mqtt cluster migrate --dry-run").unwrap();
    assert!(
        run("jam-mqtt cluster init")
            .unwrap_err()
            .contains("not empty")
    );
    let running = serve::start(settings.clone()).await.unwrap();
    let second = serve::start(settings_in(dirs[1].path())).await.unwrap_err();
    assert_eq!(second.exit_status(), 75, "{second}");
    run("jam-mqtt mailbox list").unwrap();
    let copies = dirs[1].path().join("copy").display().to_string();
    for line in ["mailbox salvage", "backup"] {
        let refused = run(&format!("jam-mqtt {line} {copies}")).unwrap_err();
        assert!(refused.contains("pg_dump"), "{refused}");
    }
    assert!(!dirs[0].path().join("mailbox").exists());
    running.stop().await;
    let again = serve::start(settings_in(dirs[1].path())).await.unwrap();
    again.stop().await;
}
