//! The arguments of the command, and what is to be measured by them.

use std::path::PathBuf;

use clap::error::ErrorKind;

use super::super::answer::Output;
use super::roles::{Kind, MILLION};
use super::stage::{Job, Scale, Stage};
use super::workload::{MAX_BYTES, MAX_TYPES, Workload};
use crate::process::args::UrlParser;

/// Measure: what each stage does per second and costs per event, beside a floor.
///
/// The floor is a bare client that issues the least commands with which the same work could be
/// done: batches, one dedupe mark per event, no validation and no fence. It runs in the same
/// call, and every figure is shown as a ratio to it.
///
/// Runs on a private Redis that it starts and stops, unless --redis-url names one. There it
/// stays under a namespace of its own, `streamfleet-bench`, which must be empty.
#[derive(clap::Args)]
pub(in super::super) struct Args {
    /// Events per measurement.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) events: u64,
    /// Bytes of each event.
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(super) event_bytes: u64,
    /// Event types, each with a schema of its own, in turn.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_TYPES))]
    pub(super) types: u64,
    /// Subscribers; each of them receives every event.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub(super) subscribers: u64,
    /// Worker processes per subscriber.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(super) workers: u64,
    /// Routers.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(super) routers: u64,
    /// Deliveries that one worker works on at a time. The floor's batches are as large.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(super) concurrency: u64,
    /// Threads that the handlers of each worker run on. The floor has one as well; a worker has one
    /// per core unless it is told otherwise.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: u16,
    /// Entries of the domain stream that were settled before, in the stage handle.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub(super) history: u64,
    /// Deliveries of each subscriber that wait for a retry meanwhile, in the stage handle. It is
    /// due in a day; until then each surfaces once in a lease and is parked again.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub(super) waiting: u64,
    /// How much history the domain stream keeps; the floor keeps all of it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) maxlen: Option<u64>,
    /// The producer waits while the inbox has more entries than this, in the stage end-to-end;
    /// else it runs far ahead of everyone.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) inbox_limit: Option<u64>,
    /// What handlers do; the first is that of the stages end-to-end and latency.
    #[arg(
        long,
        value_name = "KIND,…",
        value_delimiter = ',',
        default_value = "none,one-effect"
    )]
    pub(super) handlers: Vec<Kind>,
    /// The share of events that the handler `failing` fails once.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(super) failure_rate: f64,
    /// What to measure.
    #[arg(
        long,
        value_name = "STAGE,…",
        value_delimiter = ',',
        default_value = "publish,route,handle,end-to-end,latency"
    )]
    pub(super) stages: Vec<Stage>,
    /// Events per second in the stage latency.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) rate: u64,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) rate_seconds: u64,
    /// Measure so many times, ours and the floor in turn, and show medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) repeat: u64,
    /// Without the floor, and so without ratios.
    #[arg(long)]
    pub(super) no_floor: bool,
    /// A Redis to measure on, instead of a private one.
    #[arg(long, value_name = "URL", value_parser = UrlParser, conflicts_with_all = ["redis_server", "stream_node_bytes", "append_only"])]
    pub(super) redis_url: Option<String>,
    /// The Redis or Valkey server to start: a name in PATH, or a path.
    /// [env: STREAMFLEET_REDIS_SERVER] [default: redis-server]
    // Not read by the parser, to which a variable would contradict --redis-url.
    #[arg(long, value_name = "PROGRAM")]
    pub(super) redis_server: Option<PathBuf>,
    /// Its stream-node-max-bytes.
    #[arg(long, value_name = "N")]
    pub(super) stream_node_bytes: Option<u64>,
    /// Let it write an append-only file, with appendfsync everysec.
    #[arg(long)]
    pub(super) append_only: bool,
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
    /// Write everything as JSON into a file as well.
    #[arg(long, value_name = "FILE")]
    pub(super) save: Option<PathBuf>,
    /// Draw throughput and latencies into an SVG file.
    #[arg(long, value_name = "FILE")]
    pub(super) chart: Option<PathBuf>,
}

/// Without the URL, which can hold a password.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").finish_non_exhaustive()
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1, such as 0.1".into()),
    }
}

impl Args {
    /// What no parser of a single value can see.
    pub(super) fn check(&self) {
        let least = Workload::least_bytes(self.types);
        let usage = |message: String| -> ! {
            clap::Error::raw(ErrorKind::ValueValidation, message + "\n").exit()
        };
        if !(least..=MAX_BYTES).contains(&self.event_bytes) {
            usage(format!(
                "--event-bytes {}: an event has {least} to {MAX_BYTES} bytes",
                self.event_bytes
            ));
        }
    }

    pub(super) fn scale(&self) -> Scale {
        Scale {
            events: self.events,
            event_bytes: self.event_bytes,
            types: self.types,
            subscribers: self.subscribers,
            workers: self.workers,
            routers: self.routers,
            concurrency: self.concurrency,
            threads: self.threads,
            history: self.history,
            waiting: self.waiting,
            maxlen: self.maxlen,
            inbox_limit: self.inbox_limit,
            failures_per_million: (self.failure_rate * MILLION as f64).round() as u64,
            rate: self.rate,
            rate_seconds: self.rate_seconds,
        }
    }

    /// What to measure, each once.
    pub(super) fn jobs(&self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for &stage in &self.stages {
            let kinds: Vec<_> = match stage {
                Stage::Publish | Stage::Route => vec![None],
                Stage::Handle => self.handlers.iter().copied().map(Some).collect(),
                Stage::EndToEnd | Stage::Latency => vec![self.handlers.first().copied()],
            };
            jobs.extend(kinds.into_iter().map(|kind| Job { stage, kind }));
        }
        let mut once = Vec::new();
        jobs.retain(|job| {
            !once.contains(job) && {
                once.push(*job);
                true
            }
        });
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Cli;
    use clap::Parser;

    fn args(more: &[&str]) -> Args {
        let all = ["streamfleet", "bench"].iter().chain(more);
        match Cli::parse_from(all).command {
            crate::operator::Command::Bench(args) => *args,
            _ => unreachable!("another command"),
        }
    }

    #[test]
    fn each_job_is_done_once() {
        let jobs = args(&[
            "--stages",
            "handle,route,handle",
            "--handlers",
            "none,none,failing",
        ])
        .jobs();
        let names: Vec<_> = jobs
            .iter()
            .map(|j| (j.stage.as_str(), j.kind.map(Kind::as_str)))
            .collect();
        let handle = |kind| ("handle", Some(kind));
        assert_eq!(names, [handle("none"), handle("failing"), ("route", None)]);
        assert_eq!(args(&[]).jobs().len(), 6);
    }
}
