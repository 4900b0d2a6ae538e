//! A program that `dev` or `bench` runs: started so that it cannot outlive us, its output taken
//! line by line, stopped by SIGTERM.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::CommandError;
use crate::process::args::METRICS_ADDRESS;
use crate::process::exit::Exit;

/// A line is taken when it is this long, whether it has ended or not.
const MAX_LINE: usize = 64 * 1024;

/// The router's program.
pub(super) const ROUTER: &str = "streamfleet-router";

/// Workers that a team installs for itself.
const LOCAL: &str = "/usr/local/lib/streamfleet";

/// Where programs are, all of them; or which are missing, and where they were looked for: beside our
/// own (`cargo build`), where a package puts workers (`/usr/lib/streamfleet` for a `/usr/bin`), and
/// where a machine's own are.
pub(super) fn programs(names: &[&str]) -> Result<Vec<PathBuf>, String> {
    let here = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let here = here.parent().unwrap_or(Path::new("/"));
    let beside = here.parent().unwrap_or(here).join("lib/streamfleet");
    let folders = [here, &beside, Path::new(LOCAL)];
    let find = |name: &&&str| {
        folders
            .iter()
            .map(|f| f.join(name))
            .find(|path| path.is_file())
    };
    let missing: Vec<_> = names
        .iter()
        .filter(|name| find(name).is_none())
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(names.iter().filter_map(|name| find(&name)).collect());
    }
    let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
    Err(format!(
        "not found in {}: {}",
        folders.join(", "),
        missing.join(", ")
    ))
}

/// What becomes of each line that a program says, on either output.
pub(super) type Listener = Arc<dyn Fn(&str) + Send + Sync>;

/// What to run.
pub(super) struct Spec {
    program: PathBuf,
    listener: Listener,
    command: Command,
}

impl Spec {
    /// A program, not started yet.
    pub(super) fn new(program: &Path, listener: Listener) -> Self {
        let me = std::env::current_exe().unwrap_or_else(|_| "streamfleet".into());
        // Not directly: the program is to die with us, which a process can only ask for itself.
        let mut command = Command::new(me);
        command
            .arg("child")
            .arg(std::process::id().to_string())
            .arg(program)
            // One address is not for many: who asks for metrics asks each process for its own.
            .env_remove(METRICS_ADDRESS);
        Self {
            program: program.to_owned(),
            listener,
            command,
        }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(super) fn envs(
        mut self,
        variables: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    pub(super) fn spawn(mut self) -> Result<Child, CommandError> {
        // A group of its own, so that Ctrl-C reaches us alone and we decide who stops when.
        self.command.process_group(0).kill_on_drop(true);
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = self.command.spawn().map_err(|cause| CommandError::File {
            path: self.program.clone(),
            cause,
        })?;
        let mut output = Vec::new();
        if let Some(pipe) = process.stdout.take() {
            output.push(tokio::spawn(relay(pipe, self.listener.clone())));
        }
        if let Some(pipe) = process.stderr.take() {
            output.push(tokio::spawn(relay(pipe, self.listener)));
        }
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Child {
            name,
            process,
            output,
            reported: false,
        })
    }
}

/// A program that runs.
pub(super) struct Child {
    name: String,
    process: tokio::process::Child,
    output: Vec<JoinHandle<()>>,
    reported: bool,
}

impl Child {
    /// Waits for its end, and says how it ended.
    pub(super) async fn exited(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Its process ID, until it has ended.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Asks it to stop.
    pub(super) fn terminate(&self) {
        // Without an ID it has ended and was waited for.
        let id = self.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // It may end at this very moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for its end and its last words; kills it at the deadline.
    pub(super) async fn wait_until(mut self, deadline: Instant) {
        if timeout_at(deadline, self.process.wait()).await.is_err() {
            eprintln!("{} did not stop in time: killed", self.name);
            if let Err(error) = self.process.kill().await {
                eprintln!("{}: {error}", self.name);
            }
        }
        for relay in self.output {
            // A grandchild could hold the pipe open.
            let _ = timeout_at(Instant::now() + std::time::Duration::from_secs(1), relay).await;
        }
    }
}

/// Waits until one of them ends that was not reported yet.
pub(super) async fn any_exit(children: &mut [Child]) -> (String, String) {
    let waits = children.iter_mut().filter(|c| !c.reported).map(|child| {
        Box::pin(async move {
            let status = child.exited().await;
            child.reported = true;
            (child.name.clone(), status)
        })
    });
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(waits).await.0
}

async fn relay(pipe: impl AsyncRead + Unpin, listener: Listener) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let (used, ended) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => {
                let end = buffer.iter().position(|b| *b == b'\n');
                let part = buffer
                    .get(..end.unwrap_or(buffer.len()))
                    .unwrap_or_default();
                line.extend_from_slice(part);
                (part.len() + usize::from(end.is_some()), end.is_some())
            }
        };
        reader.consume(used);
        if ended || line.len() >= MAX_LINE {
            tell(&listener, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        tell(&listener, &line);
    }
}

fn tell(listener: &Listener, line: &[u8]) {
    listener(String::from_utf8_lossy(line).trim_end());
}

/// What runs before each program.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The process that must be alive.
    parent: i32,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Turns this process into the program, bound to die when its parent does, even by SIGKILL.
pub(super) fn become_child(args: &Args) -> Result<Exit, CommandError> {
    let failed = |cause: io::Error| CommandError::File {
        path: args.program.clone(),
        cause,
    };
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|e| failed(e.into()))?;
    // It may have died before we asked.
    if getppid().map(Pid::as_raw_pid) != Some(args.parent) {
        return Ok(Exit::Failure);
    }
    Err(failed(
        std::process::Command::new(&args.program)
            .args(&args.args)
            .exec(),
    ))
}
