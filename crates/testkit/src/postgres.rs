//! Real PostgreSQL servers for tests, of the machine's Debian package or of the folder that `JAM_TEST_POSTGRES` names.
//!
//! [`database`] is an empty database on a server that all tests of the process share; [`TestServer`] is one of a test's own,
//! to be ill-treated. Both end with the process, however that ends: a process that holds nothing but a pipe sees to it.
//! As PostgreSQL refuses to run as root, root starts it as the user `postgres`. Whatever cannot be done is a panic that
//! says what.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// Where Debian has its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The variable that names another folder of programs.
const NAMED: &str = "JAM_TEST_POSTGRES";

/// How long a server may take to start, to recover included, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Who it runs as where the tests are root.
const USER: &str = "postgres";

/// Waits for the end of its input, which is that of the process that started it, then ends the server and removes its files.
const KEEPER: &str = r#"
    trap "" INT TERM HUP
    cat >/dev/null
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
    [ -z "$pid" ] || { kill -CONT "$pid"; kill -QUIT "$pid"; sleep 0.5; kill -KILL "$pid"; } 2>/dev/null
    rm -rf "$1""#;

/// A server.
#[derive(Debug)]
pub struct TestServer {
    dir: PathBuf,
    port: u16,
    settings: Vec<String>,
    postmaster: Option<Child>,
    databases: AtomicU32,
    /// Ends it when its input ends, which is held here.
    _keeper: Child,
}

/// A database of one test.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    port: u16,
    name: String,
}

/// An empty database on the server that all tests share.
pub fn database() -> TestDatabase {
    static SHARED: OnceLock<TestServer> = OnceLock::new();
    let server = SHARED.get_or_init(|| TestServer::start_with(&[("max_connections", "300")]));
    server.database()
}

impl TestServer {
    /// A server with the settings that PostgreSQL has by itself.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with other settings.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let dir = TempDir::with_prefix_in("jam-postgres-", parent());
        let dir = dir.expect("a folder").keep();
        make_private(&dir, 0o700);
        give_to_user(&dir);
        let initdb = as_user(&program("initdb"))
            .args(["-N", "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C"])
            .arg("-D")
            .arg(dir.join("data"))
            .current_dir("/")
            .output()
            .expect("initdb runs");
        succeed("initdb", &initdb);
        let keeper = as_user(Path::new("sh"))
            .args(["-c", KEEPER, "keeper"])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        let port = free_port();
        let mut server = Self {
            port,
            settings: settings
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            postmaster: None,
            databases: AtomicU32::new(0),
            _keeper: keeper,
            dir,
        };
        server.restart();
        server
    }

    /// Starts it again on what it has left, at the same port.
    pub fn restart(&mut self) {
        assert!(self.postmaster.is_none(), "stop it first");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(std::env::temp_dir().join(format!("jam-postgres-{}.log", self.port)));
        let mut command = as_user(&program("postgres"));
        command.arg("-D").arg(self.dir.join("data"));
        command.arg("-k").arg(&self.dir);
        command.args([
            "-p",
            &self.port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log_path = std::env::temp_dir().join(format!("jam-postgres-{}.log", self.port));
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(log.expect("a log file"));
        self.postmaster = Some(command.spawn().expect("postgres runs"));
        let began = Instant::now();
        while !self.psql("postgres", "SELECT 1").status.success() {
            let child = self.postmaster.as_mut().expect("it was started");
            let ended = child.try_wait().expect("a child can be asked");
            let log = || fs::read_to_string(&log_path).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL has ended: {}", log());
            assert!(
                began.elapsed() < PATIENCE,
                "PostgreSQL does not start: {}",
                log()
            );
            thread::sleep(LOOK);
        }
        drop(fs::remove_file(&log_path));
    }

    /// Its data, while it is stopped.
    pub fn data(&self) -> PathBuf {
        assert!(self.postmaster.is_none(), "stop it first");
        self.dir.join("data")
    }

    /// Takes the place of a file of its data.
    pub fn replace(&self, name: &str, content: &[u8]) {
        let path = self.data().join(name);
        fs::write(&path, content).expect("a file can be written");
        give_to_user(&path);
    }

    /// Counts on to this transaction id, as if there had been so many, by `pg_resetwal`.
    pub fn count_to_transaction(&self, id: u32) {
        let mut reset = as_user(&program("pg_resetwal"));
        reset.args(["-x", &id.to_string(), "-D"]).arg(self.data());
        let reset = reset.current_dir("/").output();
        succeed("pg_resetwal", &reset.expect("pg_resetwal runs"));
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its socket.
    pub fn socket_folder(&self) -> &Path {
        &self.dir
    }

    /// A file beside its data, which it may read and nobody else.
    pub fn write_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, content).expect("a file can be written");
        make_private(&path, 0o600);
        give_to_user(&path);
        path
    }

    /// A new, empty database.
    pub fn database(&self) -> TestDatabase {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let made = self.psql("postgres", &format!("CREATE DATABASE {name}"));
        succeed("CREATE DATABASE", &made);
        let port = self.port;
        TestDatabase { port, name }
    }

    /// Kills all of it at once.
    pub fn kill(&mut self) {
        let children = self.children();
        self.signal_all(Signal::KILL);
        self.wait();
        // While one is left, its shared memory keeps another server from starting.
        let is_left =
            |child: &Pid| Path::new(&format!("/proc/{}", child.as_raw_nonzero())).exists();
        let began = Instant::now();
        while children.iter().any(is_left) {
            assert!(
                began.elapsed() < PATIENCE,
                "PostgreSQL's children do not end"
            );
            thread::sleep(LOOK);
        }
    }

    /// `pg_ctl -m immediate`: it ends without having written anything, and recovers at its next start.
    pub fn stop_immediately(&mut self) {
        signal(self.pid(), Signal::QUIT);
        self.wait();
    }

    /// `pg_ctl -m fast`: it ends all connections, writes everything and stops.
    pub fn stop(&mut self) {
        signal(self.pid(), Signal::INT);
        self.wait();
    }

    /// Stops all of it where it is: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Every process of it but the first.
    pub fn children(&self) -> Vec<Pid> {
        let parent = self.pid().as_raw_nonzero().get();
        let processes = fs::read_dir("/proc").expect("the kernel tells of processes");
        let processes = processes.filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may hold anything but ends with the last parenthesis.
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
            (fields.next()?.parse() == Ok(parent)).then_some(pid)
        });
        processes.filter_map(Pid::from_raw).collect()
    }

    fn pid(&self) -> Pid {
        let child = self.postmaster.as_ref().expect("it runs");
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        id.expect("a process id")
    }

    fn signal_all(&self, which: Signal) {
        // The first one first: it would start others.
        signal(self.pid(), which);
        for child in self.children() {
            signal(child, which);
        }
    }

    fn wait(&mut self) {
        let mut child = self.postmaster.take().expect("it runs");
        let began = Instant::now();
        while child.try_wait().expect("a child can be asked").is_none() {
            assert!(began.elapsed() < PATIENCE, "PostgreSQL does not stop");
            thread::sleep(LOOK);
        }
    }

    fn psql(&self, database: &str, sql: &str) -> Output {
        psql(self.port, database, sql)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.postmaster.is_some() && !thread::panicking() {
            self.resume();
            self.stop_immediately();
        }
    }
}

impl TestDatabase {
    /// Where it is.
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has another program run SQL in it, and gives back what that prints: rows as lines, columns separated by `|`.
    pub fn run(&self, sql: &str) -> String {
        let ran = psql(self.port, &self.name, sql);
        succeed(sql, &ran);
        let printed = String::from_utf8(ran.stdout).expect("it prints UTF-8");
        printed.trim_end().to_owned()
    }
}

fn psql(port: u16, database: &str, sql: &str) -> Output {
    let mut child = Command::new(program("psql"))
        .env("PGCONNECT_TIMEOUT", "5")
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
        ])
        .args([
            "-p",
            &port.to_string(),
            "-U",
            USER,
            "-d",
            database,
            "-f",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql runs");
    let mut input = child.stdin.take().expect("a pipe");
    // It may have ended, since no server answers.
    drop(input.write_all(sql.as_bytes()));
    drop(input);
    child.wait_with_output().expect("a child can be waited for")
}

fn succeed(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

/// For files of the user that it runs as: root's folder for temporary files may be root's alone.
fn parent() -> PathBuf {
    let own = std::env::temp_dir();
    let is_open = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    };
    if !geteuid().is_root() || own.ancestors().all(is_open) {
        return own;
    }
    PathBuf::from("/tmp")
}

/// One that nobody listens at any more when this returns.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A program of the newest PostgreSQL of this machine, or of the one in the folder that [`NAMED`] names.
fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(NAMED) {
        let program = Path::new(&folder).join(name);
        assert!(program.exists(), "{NAMED}: no {}", program.display());
        return program;
    }
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| {
        let version = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let program = entry.path().join("bin").join(name);
        program.exists().then_some((version, program))
    });
    let newest = versions.max_by_key(|(version, _)| *version);
    let (_, program) = newest.unwrap_or_else(|| {
        panic!("{VERSIONS} has no {name}: run ./scripts/test install, which installs PostgreSQL")
    });
    program
}

fn make_private(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

fn as_user(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]);
    command.arg(program);
    command
}

fn give_to_user(path: &Path) {
    if geteuid().is_root() {
        let owner = format!("{USER}:{USER}");
        let given = Command::new("chown").arg(owner).arg(path).output();
        succeed("chown", &given.expect("chown runs"));
    }
}

fn signal(pid: Pid, which: Signal) {
    // One that has just ended needs none.
    let _ = kill_process(pid, which);
}
