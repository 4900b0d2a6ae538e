//! A redis-server process on a Unix socket in a folder of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use redis::{Commands, FromRedisValue};
use tempfile::TempDir;

use super::eventually;
use super::users::Users;

/// The server that the tests run on: the one in PATH, or the one that `scripts/test --server`
/// names.
pub fn program() -> PathBuf {
    let named = std::env::var_os("STREAMFLEET_REDIS_SERVER");
    named.map_or_else(|| "redis-server".into(), PathBuf::from)
}

pub struct Server {
    pub dir: TempDir,
    child: Mutex<Option<Child>>,
    /// Words before `redis-server`: what starts it in surroundings of its own.
    prefix: Vec<String>,
    args: Vec<String>,
    /// Who may do what, if not everybody may do everything.
    pub users: Option<Users>,
}

impl Server {
    /// Starts one with the append-only file on, so that it can be killed and restarted.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with further settings.
    pub fn with(args: &[&str]) -> Self {
        let server = Self::prepare(&[], args);
        server.run();
        server
    }

    /// Starts one with the users that `scripts/redis/make-users` makes. The tests' own connections come
    /// without a name, and may do everything.
    pub fn guarded(make: &[&str], args: &[&str]) -> Self {
        let users = Users::make(make);
        let file = users.file("users.acl");
        let mut server = Self::prepare(&[], &[&["--aclfile", &file], args].concat());
        server.users = Some(users);
        server.run();
        server
    }

    /// A folder for one that is not started yet; `run` starts it. `prefix`: the program, with its
    /// arguments, that becomes `redis-server` (`env`, `nsenter`).
    pub fn prepare(prefix: &[&str], args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("streamfleet-test-")
            .tempdir()
            .unwrap();
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Self {
            dir,
            child: Mutex::new(None),
            prefix: owned(prefix),
            args: owned(args),
            users: None,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts the process (again) and waits until it answers.
    pub fn run(&self) {
        self.spawn();
        let client = redis::Client::open(self.url()).unwrap();
        eventually("redis-server answers", || {
            let mut connection = client.get_connection().ok()?;
            redis::cmd("PING").exec(&mut connection).ok()
        });
    }

    /// Starts the process (again).
    pub fn spawn(&self) {
        let mut words = self
            .prefix
            .iter()
            .map(OsString::from)
            .chain([program().into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
            .arg("--port")
            .arg("0")
            .arg("--unixsocket")
            .arg(self.socket());
        command.arg("--dir").arg(self.dir.path()).args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ]);
        command
            .args(["--save", "", "--maxmemory-policy", "noeviction"])
            .args(&self.args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let started = child.unwrap_or_else(|e| {
            panic!(
                "{}: {e} (apt-get install redis-server)",
                program().display()
            )
        });
        *self.child.lock().unwrap() = Some(started);
    }

    /// kill -9.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Whether the process has ended, killed or by itself.
    pub fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child
            .as_mut()
            .is_none_or(|c| c.try_wait().unwrap().is_some())
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid().to_string())
            .status();
        assert!(sent.unwrap().success());
    }

    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url())
            .unwrap()
            .get_connection()
            .unwrap()
    }

    /// One command, its words separated by white space: `cli("XLEN inbox")`.
    pub fn cli<T: FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command
            .query(&mut self.connection())
            .unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// Everything in the dataset, to compare before and after.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let mut connection = self.connection();
        let mut keys: Vec<String> = connection.keys("*").unwrap();
        keys.sort();
        keys.into_iter()
            .map(|key| {
                let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
                (key, dump)
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
