//! Layer 3: the operator's commands. Each file is one command: its arguments, and what it shows
//! of the library below. What a command answers goes to standard output, everything about how
//! it went to standard error.

mod answer;
mod audit;
mod bench;
mod capacity;
mod check;
mod child;
mod completions;
mod config;
mod configurations;
mod confirm;
mod control;
mod dead;
mod dev;
mod diff;
mod doctor;
mod entity;
mod filter;
mod group;
mod instance;
mod man;
mod names;
mod ndjson;
mod pending;
mod publish;
mod rebuild;
mod reload;
mod scheduled;
mod server;
mod stand_in;
mod status;
mod tap;
mod text;
mod trace;
mod workers;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::dead::RedriveError;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::{core_dump, telemetry};
use crate::routing::{Config, ConfigError};
use crate::store::{Keys, Link, StoreError};
use crate::text::escape_lines;

/// Run, watch and repair a fleet of workers on Redis Streams.
#[derive(Debug, Parser)]
#[command(name = "streamfleet", version, arg_required_else_help = true, after_help = exit_codes())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Diff(diff::Args),
    Publish(publish::Args),
    Status(status::Args),
    Pending(pending::Args),
    Workers(workers::Args),
    Dead(dead::Args),
    Audit(audit::Args),
    Scheduled(scheduled::Args),
    Group(group::Args),
    Entity(entity::Args),
    Saga(entity::SagaArgs),
    Pause(control::PauseArgs),
    Resume(control::ResumeArgs),
    Rebuild(rebuild::Args),
    Trace(trace::Args),
    Tap(tap::Args),
    Capacity(capacity::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Dev(dev::Args),
    #[command(hide = true)]
    Instance(instance::Args),
    #[command(hide = true)]
    Reload(reload::Args),
    Bench(Box<bench::Args>),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    Complete(completions::WordsArgs),
    #[command(hide = true)]
    Child(child::Args),
    #[command(hide = true)]
    BenchRole(bench::RoleArgs),
}

/// The exit codes of every command.
fn exit_codes() -> String {
    let meanings = Exit::MEANINGS.map(|(code, what)| format!("  {code:<3} {what}"));
    format!("Exit codes:\n{}", meanings.join("\n"))
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// routing.yaml or a schema cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Redis could not be reached, or answered with an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A letter could not be redriven.
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    /// The answer could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// The answer could not be put into JSON.
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A file could not be read or written.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The command will not do that; says why, and what to do instead.
    #[error("{0}")]
    Refused(String),
}

impl From<&CommandError> for Exit {
    fn from(error: &CommandError) -> Self {
        match error {
            CommandError::Config(error) => error.into(),
            CommandError::Store(error) | CommandError::Redrive(RedriveError::Store(error)) => {
                error.into()
            }
            // `streamfleet dead list | head` has what it wanted.
            CommandError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::Clean,
            _ => Self::Failure,
        }
    }
}

/// Runs one command; what the `streamfleet` binary does.
pub fn main(cli: Cli) -> ExitCode {
    telemetry::init();
    core_dump::forbid();
    // One thread: `dev` ties the lives of its children to the thread that starts them.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("streamfleet: cannot start: {error}");
            return Exit::Failure.into();
        }
    };
    let outcome = match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Diff(args) => runtime.block_on(diff::run(args)),
        Command::Publish(args) => runtime.block_on(publish::run(args)),
        Command::Status(args) => runtime.block_on(status::run(args)),
        Command::Pending(args) => runtime.block_on(pending::run(args)),
        Command::Workers(args) => runtime.block_on(workers::run(args)),
        Command::Dead(args) => runtime.block_on(dead::run(args)),
        Command::Audit(args) => runtime.block_on(audit::run(args)),
        Command::Scheduled(args) => runtime.block_on(scheduled::run(args)),
        Command::Group(args) => runtime.block_on(group::run(args)),
        Command::Entity(args) => runtime.block_on(entity::run(args)),
        Command::Saga(args) => runtime.block_on(entity::run_saga(args)),
        Command::Pause(args) => runtime.block_on(control::pause(args)),
        Command::Resume(args) => runtime.block_on(control::resume(args)),
        Command::Rebuild(args) => runtime.block_on(rebuild::run(args)),
        Command::Trace(args) => runtime.block_on(trace::run(args)),
        Command::Tap(args) => runtime.block_on(tap::run(args)),
        Command::Capacity(args) => runtime.block_on(capacity::run(args)),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => runtime.block_on(doctor::run(args)),
        Command::Dev(args) => runtime.block_on(dev::run(args)),
        Command::Instance(args) => instance::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Bench(args) => runtime.block_on(bench::run(*args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Complete(args) => runtime.block_on(completions::complete(args)),
        Command::Child(args) => child::become_child(&args),
        // A worker brings a runtime of its own.
        Command::BenchRole(args) => {
            drop(runtime);
            return bench::run_role(args);
        }
    };
    let exit = match outcome {
        Ok(exit) => exit,
        Err(error) => {
            let exit = Exit::from(&error);
            if exit != Exit::Clean {
                eprintln!("streamfleet: {}", escape_lines(&error.to_string()));
            }
            exit
        }
    };
    exit.into()
}

/// A configuration and a Redis that answers.
struct Session {
    config: Config,
    link: Link,
    keys: Keys,
}

impl Session {
    async fn open(args: &CommonArgs) -> Result<Self, CommandError> {
        let config = args.load()?;
        let keys = Keys::new(config.routing.namespace());
        let link = args.redis.open()?.link();
        link.run(|mut c| async move { redis::cmd("PING").exec_async(&mut c).await })
            .await?;
        Ok(Self { config, link, keys })
    }
}

/// Reads a count of which 0 is none.
fn at_least_one<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "write a whole number, 1 at least".to_owned())
}

/// Reads `500ms`, `30s`, `2h`, `7d`, or several of them in a row.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a whole number and ms, s, m, h or d, such as 30s or 1h30m".to_owned();
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(ms).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", 500),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5h",
            "1 s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
