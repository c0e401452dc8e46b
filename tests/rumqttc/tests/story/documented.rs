//! The program of docs/clients.md, as a process: what a friend sees of it, and what it says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Home;
use crate::phone::{Event, Login, Phone, Version, Way};
use crate::server::{Outcome, Server, User};

const PATIENCE: Duration = Duration::from_secs(30);
/// More than two pauses after a lost connection.
const STAYS_AWAY: Duration = Duration::from_secs(5);

struct Program {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// `shell` goes before it.
    fn start(
        server: &Server,
        folder: &Path,
        user: &User,
        friend: &User,
        shell: &str,
    ) -> Outcome<Self> {
        let mut child = Command::new("sh")
            .args([
                "-c",
                &format!("{shell} exec \"$0\" \"$@\""),
                env!("CARGO_BIN_EXE_chat"),
            ])
            .args([
                "localhost",
                &server.mqtt.to_string(),
                &user.id,
                &user.token,
                &friend.id,
            ])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            input: input.ok_or("no input")?,
            output: BufReader::new(output.ok_or("no output")?).lines(),
            child,
        })
    }

    async fn line(&mut self) -> Outcome<String> {
        let line = timeout(PATIENCE, self.output.next_line()).await??;
        line.ok_or_else(|| "the program has ended".into())
    }

    async fn says(&mut self, text: &str) -> Outcome {
        let line = self.line().await?;
        if line.contains(text) {
            return Ok(());
        }
        Err(format!("expected {text}, got {line}").into())
    }

    async fn write(&mut self, line: &str) -> Outcome {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn ends(&mut self) -> Outcome<bool> {
        Ok(timeout(PATIENCE, self.child.wait()).await??.success())
    }
}

struct Scene {
    home: Home,
    me: User,
    friend: User,
    folder: TempDir,
}

impl Scene {
    fn set() -> Outcome<Self> {
        let home = Home::start(Version::V5, Way::Tcp)?;
        let (me, friend) = home.server.friends()?;
        let folder = tempfile::tempdir()?;
        Ok(Self {
            home,
            me,
            friend,
            folder,
        })
    }

    fn program(&self, shell: &str) -> Outcome<Program> {
        Program::start(
            &self.home.server,
            self.folder.path(),
            &self.me,
            &self.friend,
            shell,
        )
    }

    async fn program_is_in(&self) -> Outcome<Program> {
        let mut program = self.program("")?;
        program.says(r#""type":"friends""#).await?;
        Ok(program)
    }

    async fn friend(&self) -> Outcome<Phone> {
        self.home.listening(&self.friend, Login::default()).await
    }

    fn said_by_friend(&self, id: u32) -> Vec<u8> {
        let message = json!({ "from": self.friend.id, "id": id, "content": format!("hi {id}") });
        message.to_string().into_bytes()
    }
}

#[tokio::test]
async fn it_reads_and_writes_and_is_told() -> Outcome {
    let scene = Scene::set()?;
    let mut friend = scene.friend().await?;
    let mut program = scene.program_is_in().await?;

    program.write("hello").await?;
    let Event::Message { payload, .. } = friend.event().await? else {
        return Err("no message".into());
    };
    let message: Value = serde_json::from_slice(&payload)?;
    assert_eq!(message["content"], "hello");
    assert!(message["id"].as_str().is_some_and(|id| id.len() == 36));
    program.says(r#""type":"receipt""#).await?;

    // The second is a repetition: it is acknowledged, and neither shown nor kept.
    for _ in 0..2 {
        friend
            .send(&scene.me.inbox(), scene.said_by_friend(1))
            .await?;
    }
    friend
        .send(&scene.me.inbox(), scene.said_by_friend(2))
        .await?;
    program.says("hi 1").await?;
    program.says("hi 2").await?;

    scene.home.server.block(&scene.friend, &scene.me, true)?;
    program.write("not any more").await?;
    program
        .says(r#"refused: "not friends with the receiver", packet"#)
        .await?;
    let kept = std::fs::read_to_string(scene.folder.path().join("messages.jsonl"))?;
    assert_eq!(kept.lines().count(), 2);
    Ok(())
}

/// A program that dies where it stores has acknowledged nothing.
#[tokio::test]
async fn it_stores_before_it_acknowledges() -> Outcome {
    let scene = Scene::set()?;
    let mut friend = scene.friend().await?;
    let mut full = scene.program("ulimit -f 0;")?;
    full.says(r#""type":"friends""#).await?;
    friend
        .send(&scene.me.inbox(), scene.said_by_friend(1))
        .await?;
    assert!(!full.ends().await?, "there was no room for it");

    let mut program = scene.program("")?;
    for _ in 0..2 {
        let line = program.line().await?;
        if line.contains("hi 1") {
            return Ok(());
        }
        assert!(line.contains(r#""type":"friends""#), "{line}");
    }
    Err("the message is lost".into())
}

/// A crash has torn the last line. What is whole is known, and what is torn comes again.
#[tokio::test]
async fn it_goes_on_after_a_torn_line() -> Outcome {
    let scene = Scene::set()?;
    let path = scene.folder.path().join("messages.jsonl");
    let whole = String::from_utf8(scene.said_by_friend(1))? + "\n";
    let mut torn = whole.clone().into_bytes();
    torn.extend(&scene.said_by_friend(2)[..20]);
    torn.push(0xC3);
    std::fs::write(&path, torn)?;

    let mut friend = scene.friend().await?;
    let mut program = scene.program_is_in().await?;
    for id in [1, 2] {
        friend
            .send(&scene.me.inbox(), scene.said_by_friend(id))
            .await?;
    }
    program.says("hi 2").await?;
    let kept = std::fs::read_to_string(path)?;
    let rest = kept.strip_prefix(&whole).ok_or("the whole line is gone")?;
    assert_eq!(serde_json::from_str::<Value>(rest)?["content"], "hi 2");
    Ok(())
}

#[tokio::test]
async fn it_stays_away_when_it_has_to() -> Outcome {
    let scene = Scene::set()?;
    let mut program = scene.program_is_in().await?;
    let login = |device| Login {
        device,
        ..Login::default()
    };
    let mut other = scene.home.listening(&scene.me, login("new")).await?;
    // Both come at once; rumqttc hands out the DISCONNECT if it has read it.
    let line = program.line().await?;
    assert!(
        line.contains("another device has connected") || line.contains("SessionTakenOver"),
        "{line}"
    );
    assert!(program.ends().await?);
    other.quiet().await?;

    let mut program = scene.program_is_in().await?;
    let mut same = scene.home.listening(&scene.me, login("rust")).await?;
    program.says("SessionTakenOver").await?;
    assert!(program.ends().await?);
    tokio::time::sleep(STAYS_AWAY).await;
    same.quiet().await?;

    let wrong = User {
        token: "wrong".into(),
        ..scene.me.clone()
    };
    let folder = tempfile::tempdir()?;
    let mut refused = Program::start(&scene.home.server, folder.path(), &wrong, &scene.friend, "")?;
    refused.says("NotAuthorized").await?;
    assert!(refused.ends().await?);
    Ok(())
}
