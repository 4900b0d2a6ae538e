//! What each pure step of an event costs besides time, the same on every run of one build:
//!
//! - `cargo bench --bench hot_path_cost`: allocations and bytes allocated per event;
//! - `scripts/instructions`: instructions per event, by running this under valgrind with
//!   `--calls N <step>`: N calls of one step, or with `--prepare` only their inputs.
#![allow(clippy::expect_used, missing_docs, unreachable_pub)]

mod stages;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use self::stages::{Stage, stages};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const USAGE: &str = "usage: hot_path_cost [--list | --calls N [--prepare] STEP]";

fn main() -> ExitCode {
    // cargo itself adds `--bench`.
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let given: Vec<&str> = given.into_iter().filter(|a| *a != "--bench").collect();
    let done = match given[..] {
        [] => {
            allocations(&stages());
            Some(())
        }
        ["--list"] => {
            stages()
                .iter()
                .for_each(|s| println!("{}\t{}", s.events, s.name));
            Some(())
        }
        ["--calls", calls, step] => run(calls, step, true),
        ["--calls", calls, "--prepare", step] => run(calls, step, false),
        _ => None,
    };
    if done.is_none() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn run(calls: &str, step: &str, whole: bool) -> Option<()> {
    let calls = calls.parse().ok()?;
    let stages = stages();
    let stage = stages.iter().find(|stage| stage.name == step)?;
    let work = stage.work(calls);
    if whole {
        work();
    } else {
        std::mem::forget(work);
    }
    Some(())
}

fn allocations(stages: &[Stage]) {
    const CALLS: u64 = 200;
    println!(
        "{:<24}{:>12}{:>12}{:>12}",
        "per event", "allocations", "grown", "bytes"
    );
    for stage in stages {
        stage.work(1)(); // what is built once is not counted
        let work = stage.work(CALLS);
        let region = Region::new(ALLOCATOR);
        work();
        let change = region.change();
        let events = (CALLS * u64::from(stage.events)) as f64;
        println!(
            "{:<24}{:>12.2}{:>12.2}{:>12.0}",
            stage.name,
            change.allocations as f64 / events,
            change.reallocations as f64 / events,
            change.bytes_allocated as f64 / events,
        );
    }
}
