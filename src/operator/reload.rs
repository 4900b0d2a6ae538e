//! `streamfleet reload`: asks one process to read its configuration again, and waits for what came
//! of it. What `ExecReload=` of the systemd units runs, so that `systemctl reload` fails when the
//! process refuses the file.
//!
//! The answer is the process's own, since it may refuse what `streamfleet check` finds good (another
//! namespace). It comes over a file in the folder that systemd gives both (`RuntimeDirectory=`), so
//! that a reload needs neither Redis nor its password.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::CommandError;
use crate::process::exit::Exit;
use crate::process::notify::{Answer, monotonic_us};

/// How often it is looked for the answer.
const LOOK: Duration = Duration::from_millis(20);

/// Ask one process to read its configuration again, and wait for its answer.
///
/// The process and this command must have the same RUNTIME_DIRECTORY. Exits with 0 if the process
/// runs what is in the file, with 78 if it refuses it, and with 1 if it gives no answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its process ID.
    #[arg(value_parser = clap::value_parser!(i32).range(2..))]
    pid: i32,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    timeout: Duration,
}

pub(super) fn run(args: &Args) -> Result<Exit, CommandError> {
    let Some(path) = Answer::path() else {
        return refused(
            "RUNTIME_DIRECTORY is not set, so the process has no place for its answer: send it SIGHUP, and look into its log",
        );
    };
    let no_such = || {
        refused(&format!(
            "there is no process {} that this user may signal",
            args.pid
        ))
    };
    let Some(pid) = Pid::from_raw(args.pid) else {
        return no_such();
    };
    let asked_us = monotonic_us();
    if kill_process(pid, Signal::HUP).is_err() {
        return no_such();
    }
    let deadline = Instant::now() + args.timeout;
    loop {
        if let Some(answer) = read(&path).filter(|answer| answer.began_us >= asked_us) {
            // What it says is for the journal.
            eprintln!("{}", answer.text);
            return Ok(if answer.taken {
                Exit::Clean
            } else {
                Exit::BadConfig
            });
        }
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return refused("the process has ended without an answer: see its log");
        }
        if Instant::now() >= deadline {
            return refused("the process gave no answer in time: see its log");
        }
        std::thread::sleep(LOOK);
    }
}

fn refused<T>(why: &str) -> Result<T, CommandError> {
    Err(CommandError::Refused(why.to_owned()))
}

/// The last answer that was given, if there is one. (It is exchanged in one step.)
fn read(path: &Path) -> Option<Answer> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
