//! The fault suite: one fault after the other strikes a fleet of real processes on a real Redis
//! under load; at the end the ledger is drawn up. `cargo test --test faults` runs a short form of
//! each fault that needs no special machine; `scripts/faults` runs the whole.
//!
//! Each fault runs in a process of its own, with a process group of its own, so that nothing of
//! it survives it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other suites use the rest")]
mod support;

mod catalogue;
mod harness;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use harness::run::Report;
use harness::table;

/// One fault of the suite.
pub struct Fault {
    pub name: &'static str,
    /// What strikes, in a line.
    pub about: &'static str,
    /// Whether the short form runs with every change.
    pub short: bool,
    pub run: fn(bool) -> Result<Report, CannotInject>,
}

/// Why this machine cannot inject the fault.
pub struct CannotInject(pub String);

/// What a fault's process ends with when it cannot be injected, as in Automake's test protocol.
const SKIPPED: i32 = 77;
/// A fault that takes longer has failed.
const SHORT_LIMIT: Duration = Duration::from_secs(150);
const FULL_LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    if let Ok(subscriber) = std::env::var("PROBE_SUBSCRIBER") {
        support::probe::run(&subscriber);
    }
    let form = std::env::var("STREAMFLEET_FAULTS").unwrap_or_default();
    let full = form == "full";
    let faults = catalogue::all();
    if form == "list" {
        table::print_catalogue(&faults);
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = std::env::var("FAULT") {
        return strike(
            faults.iter().find(|fault| fault.name == name).unwrap(),
            full,
        );
    }
    let chosen = match choose(faults, full) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            eprintln!("no fault is called {unknown}: see scripts/faults --list");
            return ExitCode::from(2);
        }
    };
    let trials = chosen
        .into_iter()
        .map(|fault| Trial::ignorable_test(fault.name, move || strike_apart(fault.name, full)));
    let began = std::time::SystemTime::now();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    table::print(&reports(), began);
    conclusion.exit_code()
}

/// The faults that `STREAMFLEET_FAULT_NAMES` names, or those of the form that was asked for.
fn choose(faults: Vec<Fault>, full: bool) -> Result<Vec<Fault>, String> {
    let names = std::env::var("STREAMFLEET_FAULT_NAMES").unwrap_or_default();
    let names: Vec<_> = names.split_whitespace().collect();
    if let Some(unknown) = names
        .iter()
        .find(|name| faults.iter().all(|f| f.name != **name))
    {
        return Err((*unknown).to_owned());
    }
    let wanted = |fault: &Fault| match names.is_empty() {
        true => full || fault.short,
        false => names.contains(&fault.name),
    };
    Ok(faults.into_iter().filter(wanted).collect())
}

/// Runs one fault in this process.
fn strike(fault: &Fault, full: bool) -> ExitCode {
    let mut report = match (fault.run)(full) {
        Ok(report) => report,
        Err(CannotInject(reason)) => {
            println!("{reason}");
            return ExitCode::from(SKIPPED as u8);
        }
    };
    report.fault = fault.name.to_owned();
    report.about = fault.about.to_owned();
    std::fs::create_dir_all(reports()).unwrap();
    let file = File::create(reports().join(format!("{}.json", fault.name))).unwrap();
    serde_json::to_writer_pretty(file, &report).unwrap();
    for violation in report.account.violations.iter().take(20) {
        println!("{violation}");
    }
    if report.strikes == 0 {
        println!("the fault never struck");
    }
    ExitCode::from(u8::from(
        report.strikes == 0 || !report.account.violations.is_empty(),
    ))
}

/// Runs one fault in a process of its own, and ends whatever it leaves behind.
fn strike_apart(name: &str, full: bool) -> Result<Completion, Failed> {
    let limit = if full { FULL_LIMIT } else { SHORT_LIMIT };
    let output = tempfile::NamedTempFile::new()?;
    let mut child = Command::new(std::env::current_exe()?)
        .env("FAULT", name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(output.reopen()?)
        .stderr(output.reopen()?)
        .process_group(0)
        .spawn()?;
    let group = rustix::process::Pid::from_child(&child);
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // An error means that nothing is left.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    drop(child.wait());
    let said = std::fs::read_to_string(output.path())?;
    match status.map(|status| status.code()) {
        Some(Some(0)) => Ok(Completion::Completed),
        Some(Some(SKIPPED)) => Ok(Completion::ignored_with(said.trim().to_owned())),
        Some(_) => Err(said.into()),
        None => Err(format!("not over within {limit:?}\n{said}").into()),
    }
}

/// Where the reports go: `target/reliability/faults`.
fn reports() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("reliability/faults")
}
