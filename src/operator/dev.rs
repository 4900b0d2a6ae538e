//! `streamfleet dev`: a private Redis, the router and every worker of routing.yaml, in one
//! terminal, until Ctrl-C. Nothing that it started survives it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::CommandError;
use super::child::{self, Child, Listener, Spec};
use super::server::{REDIS_SERVER, Server};
use super::stand_in::{self, StandIn};
use super::text::{Paint, count};
use crate::process::args::{CONFIG, ConfigArgs, RedisArgs, URL};
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::routing::Config;

/// The name under which each process runs.
const NAME: &str = "dev-1";
/// How long router and workers may finish what they have begun: longer than they take by default.
const DRAIN: Duration = Duration::from_secs(30);
/// How long Redis may take to write its file.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Run everything here: a private Redis, the router, and every worker of routing.yaml.
///
/// Redis keeps its data in the folder, so that the next start goes on where this one stopped.
/// The programs are looked for beside this one, and where packages put workers. A worker that needs an outside service is given a
/// stand-in for it, unless the environment says where the service is: payment-worker
/// (STREAMFLEET_GATEWAY) the program sandbox-gateway, with its books in the folder. Stop with Ctrl-C:
/// workers finish first, then the router, then Redis; a second Ctrl-C ends all at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigArgs,
    /// The folder for the data and the socket of Redis.
    #[arg(long, value_name = "FOLDER", default_value = ".streamfleet")]
    dir: PathBuf,
    /// Listen on this port of 127.0.0.1 instead of on a Unix socket in the folder; 0 takes a
    /// free one. Never 6379, where a Redis that matters could be.
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Option<u16>,
    /// The Redis or Valkey server to start: a name in PATH, or a path.
    #[arg(
        long,
        value_name = "PROGRAM",
        env = REDIS_SERVER,
        default_value = "redis-server"
    )]
    redis_server: PathBuf,
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(6379) => Err("that is where a Redis that matters could be: choose another, or 0".into()),
        Ok(port) => Ok(port),
        Err(_) => Err("a port is a number from 0 to 65535".into()),
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let stop = interrupted();
    tokio::pin!(stop);
    let config = args.file.load()?;
    let path = absolute(&args.file.path)?;
    let programs = programs(&config)?;
    let needed = stand_in::needed(&programs);
    fs::create_dir_all(&args.dir).map_err(|cause| file_error(&args.dir, cause))?;
    let dir = absolute(&args.dir)?;
    let _lock = lock(&dir)?;

    let paint = Paint::stdout();
    let played = needed.iter().map(|(_, program)| program);
    let named = programs.iter().chain(played).chain([&args.redis_server]);
    let width = named.filter_map(|p| p.file_name()).map(|n| n.len()).max();
    let width = width.unwrap_or(0);
    let label = |n: usize, name: &str| prefixed(paint.nth(&format!("{name:<width$} |"), n));
    let name = args.redis_server.file_name().unwrap_or_default();
    let label_of_redis = label(0, &name.to_string_lossy());
    let start = Server::start(&args.redis_server, &dir, args.port, &[], label_of_redis);
    let mut server = tokio::select! {
        biased;
        () = &mut stop => return Ok(Exit::Clean),
        server = start => server?,
    };

    let mut stand_ins = Vec::new();
    for (n, (what, program)) in needed.iter().enumerate() {
        let label = label(programs.len() + n + 1, what.program);
        let start = StandIn::start(what, program, &dir, label);
        stand_ins.push(tokio::select! {
            biased;
            () = &mut stop => return Ok(Exit::Clean),
            stand_in = start => stand_in?,
        });
    }

    let mut children = Vec::new();
    for (n, program) in programs.iter().enumerate() {
        let name = program
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        let mut spec = Spec::new(program, label(n + 1, &name))
            .arg("--name")
            .arg(NAME)
            .env(CONFIG, &path)
            .envs(RedisArgs::bare(&server.url).environment())
            .env("STREAMFLEET_WATCH", "on")
            .env("STREAMFLEET_LOG_FORMAT", "human");
        for stand_in in &stand_ins {
            spec = spec.env(stand_in.variable, &stand_in.address);
        }
        children.push(spec.spawn()?);
    }
    let mut out = stdout();
    writeln!(
        out,
        "\nstarted: Redis, the router and {}",
        count(children.len().saturating_sub(1) as u64, "worker")
    )?;
    writeln!(out, "  look inside:  {}", server.cli())?;
    writeln!(out, "  use it:       export {URL}={}", server.url)?;
    for stand_in in &stand_ins {
        let (variable, address) = (stand_in.variable, &stand_in.address);
        writeln!(out, "  stand-in:     {variable}={address}")?;
    }
    writeln!(out, "  stop it:      Ctrl-C\n")?;
    // From here on they are watched and stopped like the others, but after those that call them.
    let callers = children.len();
    children.extend(stand_ins.into_iter().map(|stand_in| stand_in.child));

    let mut healthy = true;
    let told = loop {
        tokio::select! {
            biased;
            () = &mut stop => break true,
            status = server.child.exited() => {
                eprintln!("Redis ended by itself ({status}): stopping the rest");
                break false;
            }
            (name, status) = child::any_exit(&mut children) => {
                healthy = false;
                eprintln!("{name} ended by itself ({status}); the others go on. Ctrl-C stops them");
            }
        }
    };
    if told {
        eprintln!("stopping: workers and router first, then Redis");
    }
    let again = interrupted();
    tokio::select! {
        biased;
        // Dropping what runs kills it.
        () = again => {
            eprintln!("killed");
            return Ok(Exit::Failure);
        }
        () = stop_all(children, callers, server) => {}
    }
    Ok(if told && healthy {
        Exit::Clean
    } else {
        Exit::Failure
    })
}

/// Prints each line after a label.
fn prefixed(label: String) -> Listener {
    Arc::new(move |line| {
        // The terminal may be gone while we are stopping.
        let _ = writeln!(stdout(), "{label} {line}");
    })
}

/// Workers and router first: they need Redis to give back what they hold, and the stand-ins, which
/// come after the first `callers`, to finish what they have begun.
async fn stop_all(mut children: Vec<Child>, callers: usize, server: Server) {
    let called = children.split_off(callers);
    for group in [children, called] {
        let deadline = Instant::now() + DRAIN;
        for child in &group {
            child.terminate();
        }
        for child in group {
            child.wait_until(deadline).await;
        }
    }
    server.child.terminate();
    server.child.wait_until(Instant::now() + SHUTDOWN).await;
}

/// The router and each worker program once, all of them there.
fn programs(config: &Config) -> Result<Vec<PathBuf>, CommandError> {
    let workers: BTreeSet<_> = config
        .routing
        .subscribers()
        .map(|s| s.worker.as_str())
        .collect();
    let all: Vec<_> = std::iter::once(child::ROUTER).chain(workers).collect();
    child::programs(&all).map_err(|missing| CommandError::Refused(format!(
        "{missing}. Build them (cargo build), or let `worker:` in routing.yaml name another program"
    )))
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    fs::canonicalize(path).map_err(|cause| file_error(path, cause))
}

fn file_error(path: &Path, cause: std::io::Error) -> CommandError {
    CommandError::File {
        path: path.to_owned(),
        cause,
    }
}

/// One `dev` per folder. The lock ends with the process, however it ends.
fn lock(dir: &Path) -> Result<File, CommandError> {
    let path = dir.join("dev.lock");
    let file = File::create(&path).map_err(|cause| file_error(&path, cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CommandError::Refused(format!(
            "another `streamfleet dev` runs in {}: stop it, or use another --dir",
            dir.display()
        ))),
        Err(TryLockError::Error(cause)) => Err(file_error(&path, cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_the_port_of_a_redis_that_matters() {
        assert!(port("6379").is_err() && port("70000").is_err());
        assert_eq!(port("0"), Ok(0));
    }

    #[test]
    fn a_folder_belongs_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).is_err());
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }
}
