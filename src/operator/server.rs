//! A private redis-server, for `dev` and `bench`.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::CommandError;
use super::child::{Child, Listener, Spec};
use crate::store::{Redis, StoreError};

/// The variable that names the server to start.
pub(super) const REDIS_SERVER: &str = "STREAMFLEET_REDIS_SERVER";
/// How long it may take to load its file and answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest path of a Unix socket.
const MAX_SOCKET: usize = 107;

enum Place {
    Socket(PathBuf),
    Port(u16),
}

/// A Redis that answers.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) url: String,
    place: Place,
}

impl Server {
    /// Starts `program` on the data in `dir` and waits until it answers. On `port`, or on a
    /// socket in `dir`; `more` are further settings, name and value, which come last.
    pub(super) async fn start(
        program: &Path,
        dir: &Path,
        port: Option<u16>,
        more: &[(&str, String)],
        listener: Listener,
    ) -> Result<Self, CommandError> {
        let program = installed(program)?;
        let place = match port {
            Some(port) => Place::Port(free_port(port)?),
            None => Place::Socket(free_socket(dir)?),
        };
        let log = dir.join("redis.log");
        let mut spec = Spec::new(&program, listener);
        let (url, options) = match &place {
            Place::Port(port) => {
                let port = port.to_string();
                (
                    format!("redis://127.0.0.1:{port}"),
                    vec![("--port", port), ("--bind", "127.0.0.1".into())],
                )
            }
            Place::Socket(path) => {
                let path = path.display().to_string();
                let options = [
                    ("--port", "0".into()),
                    ("--unixsocket", path.clone()),
                    ("--unixsocketperm", "700".into()),
                ];
                (format!("unix://{path}"), options.into())
            }
        };
        let always = [
            ("--dir", dir.display().to_string()),
            ("--appendonly", "yes".into()),
            ("--appendfsync", "everysec".into()),
            ("--save", String::new()),
            ("--maxmemory-policy", "noeviction".into()),
            ("--daemonize", "no".into()),
            // Its log is for when something is wrong.
            ("--logfile", log.display().to_string()),
        ];
        let more = more.iter().cloned();
        for (name, value) in options.into_iter().chain(always).chain(more) {
            spec = spec.arg(name).arg(value);
        }
        let mut server = Self {
            child: spec.spawn()?,
            url,
            place,
        };
        tokio::select! {
            biased;
            status = server.child.exited() => Err(CommandError::Refused(format!(
                "{} ended before it answered ({status}): see {}",
                program.display(),
                log.display()
            ))),
            answers = answers(&server.url) => answers.map(|()| server).map_err(CommandError::from),
        }
    }

    /// The line that looks inside.
    pub(super) fn cli(&self) -> String {
        match &self.place {
            Place::Port(port) => format!("redis-cli -p {port}"),
            Place::Socket(path) => format!("redis-cli -s {}", path.display()),
        }
    }
}

async fn answers(url: &str) -> Result<(), StoreError> {
    let link = Redis::open(url)?.link();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ping = link.run(|mut c| async move { redis::cmd("PING").exec_async(&mut c).await });
        match ping.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            // It is still starting, or loading its file.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Where the program is: a name is looked for in PATH, a path is taken as it is.
fn installed(program: &Path) -> Result<PathBuf, CommandError> {
    let name = program.display();
    if program.components().count() > 1 {
        return match program.is_file() {
            true => Ok(program.to_owned()),
            false => Err(CommandError::Refused(format!(
                "there is no {name}: name another --redis-server"
            ))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|p| p.is_file());
    found.ok_or_else(|| {
        CommandError::Refused(format!(
            "there is no {name} in PATH. Install it: apt-get install redis-server, or name another with --redis-server"
        ))
    })
}

fn free_port(wanted: u16) -> Result<u16, CommandError> {
    // Asked for any, the system could answer with the one that we never use.
    for _ in 0..8 {
        let bound = TcpListener::bind(("127.0.0.1", wanted)).and_then(|l| l.local_addr());
        match bound {
            Ok(address) if address.port() != 6379 => return Ok(address.port()),
            Ok(_) => {}
            Err(error) => {
                return Err(CommandError::Refused(format!(
                    "port {wanted} of 127.0.0.1 cannot be used: {error}. Choose another, or 0 for a free one"
                )));
            }
        }
    }
    Err(CommandError::Refused(
        "no free port was found: name one with --port".into(),
    ))
}

fn free_socket(dir: &Path) -> Result<PathBuf, CommandError> {
    let path = dir.join("redis.sock");
    if path.as_os_str().len() > MAX_SOCKET {
        return Err(CommandError::Refused(format!(
            "{} is too long for a Unix socket ({MAX_SOCKET} bytes): use a shorter folder, or --port 0",
            path.display()
        )));
    }
    if UnixStream::connect(&path).is_ok() {
        return Err(CommandError::Refused(format!(
            "a Redis already listens on {path}: stop it with redis-cli -s {path} shutdown, or use another --dir",
            path = path.display()
        )));
    }
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::File { path, cause })
        }
        _ => Ok(path),
    }
}
