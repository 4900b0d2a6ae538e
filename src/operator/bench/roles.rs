//! What the processes of a benchmark run: the producer and the worker; those of the floor are in
//! `floor`. Each says on standard output when it is ready, and the producer when it is done.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::super::CommandError;
use super::floor;
use super::latency::Recorder;
use super::stage::LOOK;
use super::workload::{FOLLOW_UP_TYPE, NAMESPACE, Workload, is_counted, number, stamp};
use crate::process::args::{CommonArgs, MonitorArgs};
use crate::process::exit::Exit;
use crate::process::{Place, Watch, serve};
use crate::publisher::{Publisher, appends};
use crate::store::Keys;
use crate::{Context, Event, Handler, HandlerError};

/// Begins each line that is meant for the bench.
pub(super) const MARK: &str = "bench: ";
pub(super) const READY: &str = "bench: ready";
pub(super) const DONE: &str = "bench: done ";
/// Begins the line that tells what was counted since the one before.
const COUNTS: &str = "bench: counts ";
/// Most events that go together because they are late.
const MAX_LATE: u64 = 256;
/// Events in one pipeline.
pub(super) const BATCH: usize = 500;

/// A process of `streamfleet bench`.
#[derive(clap::Args)]
pub(in super::super) struct RoleArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    role: Role,
}

impl std::fmt::Debug for RoleArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleArgs").finish_non_exhaustive()
    }
}

#[derive(clap::Subcommand)]
enum Role {
    Produce(Produce),
    Work(Work),
    FloorRoute(floor::Route),
    FloorWork(Work),
}

/// What a handler does with each event.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Nothing.
    None,
    /// One write to Redis.
    OneEffect,
    /// One event.
    FollowUp,
    /// Nothing, but a share of the events fails once.
    Failing,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OneEffect => "one-effect",
            Self::FollowUp => "follow-up",
            Self::Failing => "failing",
        }
    }
}

/// How many of a million events fail once.
pub(super) const MILLION: u64 = 1_000_000;

/// Whether the event of that number fails once: so many of every million, well mixed.
pub(super) fn fails(n: u64, of_a_million: u64) -> bool {
    // A prime without a common factor visits every remainder once.
    n.wrapping_mul(617_063) % MILLION < of_a_million
}

#[derive(clap::Args)]
pub(super) struct Work {
    #[arg(long)]
    pub(super) subscriber: String,
    #[arg(long)]
    pub(super) kind: Kind,
    #[arg(long, default_value_t = 0)]
    pub(super) fail: u64,
    /// How many of a million fail whenever they are tried.
    #[arg(long, default_value_t = 0)]
    fail_always: u64,
    /// Its name in the group, stable across restarts.
    #[arg(long)]
    name: Option<String>,
    /// Threads of its runtime.
    #[arg(long)]
    threads: Option<u16>,
    /// Whether each handled event is counted in Redis, together with its acknowledgement.
    #[arg(long)]
    tally: bool,
    /// Tells what it counted every so many seconds, so that little is lost when it is killed.
    #[arg(long)]
    every: Option<u64>,
    /// Whether latencies are recorded.
    #[arg(long)]
    pub(super) record: bool,
    /// Where the counts go in the end.
    #[arg(long)]
    pub(super) counted: PathBuf,
}

#[derive(clap::Args)]
struct Produce {
    #[arg(long)]
    types: u64,
    #[arg(long)]
    event_bytes: u64,
    #[arg(long)]
    events: u64,
    /// Events per second; without it, as fast as it goes.
    #[arg(long)]
    rate: Option<u64>,
    /// So many come first and do not count.
    #[arg(long, default_value_t = 0)]
    warm_up: u64,
    /// It waits while the inbox is longer.
    #[arg(long)]
    inbox_limit: Option<u64>,
    /// With a bare client.
    #[arg(long)]
    bare: bool,
    #[arg(long)]
    counted: PathBuf,
}

/// Runs one role to its end.
pub(in super::super) fn run_role(args: RoleArgs) -> ExitCode {
    match run(args) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("{error}");
            Exit::from(&error).into()
        }
    }
}

fn run(args: RoleArgs) -> Result<ExitCode, CommandError> {
    let RoleArgs { common, role } = args;
    match role {
        Role::Work(work) => return run_worker(work, &common),
        Role::Produce(produce) => match produce.rate {
            Some(rate) => produce.at_rate(&common, rate),
            None => on_runtime(produce.flat_out(&common)),
        },
        Role::FloorRoute(route) => on_runtime(floor::route(route, &common)),
        Role::FloorWork(work) => on_runtime(floor::work(work, &common)),
    }?;
    Ok(Exit::Clean.into())
}

/// On one thread: for a bare client it costs less than several, and is no slower.
fn on_runtime(run: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run)
}

struct BenchHandler {
    kind: Kind,
    fail: u64,
    fail_always: u64,
    tally: bool,
    record: bool,
    recorder: Arc<Recorder>,
}

impl BenchHandler {
    fn fails(&self, n: u64, attempt: u32) -> bool {
        attempt == 1 && fails(n, self.fail) || fails(n, self.fail_always)
    }
}

#[derive(serde::Serialize)]
struct Shipment {
    order: uuid::Uuid,
}

impl Handler for BenchHandler {
    // Not used: which one it is, each process is told.
    const SUBSCRIBER: &'static str = NAMESPACE;

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        // What waited for another attempt was asked to wait.
        if self.record && cx.attempt() == 1 && is_counted(event.source()) {
            self.recorder.since(event.timestamp());
        }
        match self.kind {
            Kind::None => {}
            Kind::OneEffect => cx.hash_set("handled", &event.id().to_string(), "1")?,
            Kind::FollowUp => {
                cx.publish(FOLLOW_UP_TYPE, &Shipment { order: event.id() })?;
            }
            Kind::Failing if self.fails(number(event.id()), cx.attempt()) => {
                self.recorder.failed();
                return Err(HandlerError::retry("told to fail"));
            }
            Kind::Failing => {}
        }
        if self.tally {
            cx.increment("tally", 1)?;
        }
        self.recorder.handled(1);
        Ok(())
    }
}

fn run_worker(work: Work, common: &CommonArgs) -> Result<ExitCode, CommandError> {
    crate::process::telemetry::init();
    let recorder = Arc::new(Recorder::new()?);
    let handler = BenchHandler {
        kind: work.kind,
        fail: work.fail,
        fail_always: work.fail_always,
        tally: work.tally,
        record: work.record,
        recorder: recorder.clone(),
    };
    let ready = || println!("{READY}");
    let drain = Duration::from_secs(25);
    if let Some(seconds) = work.every {
        let (recorder, every) = (recorder.clone(), Duration::from_secs(seconds.max(1)));
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every);
                if let Ok(counted) = serde_json::to_string(&recorder.take()) {
                    println!("{COUNTS}{counted}");
                }
            }
        });
    }
    let place = Place {
        rebuild: None,
        subscriber: work.subscriber,
        name: work.name,
        drain,
        threads: work.threads,
        watch: Watch::Off,
        monitor: MonitorArgs::default(),
    };
    let exit = serve(handler, common, place, ready);
    recorder.write(&work.counted)?;
    Ok(exit)
}

impl Produce {
    /// As fast as answers come.
    async fn flat_out(self, common: &CommonArgs) -> Result<(), CommandError> {
        let workload = Workload::new(self.types, self.event_bytes);
        let redis = common.redis.open()?;
        let keys = Keys::new(Some(NAMESPACE));
        let publisher = Publisher::new(redis.link(), &keys);
        let bare = floor::Producer::new(&redis, &keys).await?;
        let (link, mut length) = (redis.link(), redis::cmd("XLEN"));
        let length = &*length.arg(keys.inbox());
        println!("{READY}");
        let start = Instant::now();
        let mut next = 0;
        while next < self.events {
            if let Some(limit) = self.inbox_limit {
                let ask = |mut c| async move { length.query_async::<u64>(&mut c).await };
                while link.run(ask).await? > limit {
                    tokio::time::sleep(LOOK).await;
                }
            }
            let end = (next + BATCH as u64).min(self.events);
            let now = stamp(Timestamp::now());
            let batch: Vec<_> = (next..end).map(|n| workload.event(n, &now, true)).collect();
            match self.bare {
                true => bare.send(batch).await?,
                false => drop(publisher.publish(&batch).await?),
            }
            next = end;
        }
        bare.finish().await?;
        let took = start.elapsed();
        Recorder::new()?.write(&self.counted)?;
        done(took)
    }

    /// Each at its time; what is due together, because the last round trip took longer than the time
    /// between two events, goes together, so that the schedule is held. Blocking, on a thread of its
    /// own: the runtime's timers know whole milliseconds only.
    fn at_rate(&self, common: &CommonArgs, rate: u64) -> Result<(), CommandError> {
        let workload = Workload::new(self.types, self.event_bytes);
        let redis = common.redis.open()?;
        let failed = |e| redis.error(e);
        let mut connection = redis.blocking()?;
        let inbox = Keys::new(Some(NAMESPACE)).inbox();
        let recorder = Recorder::new()?;
        println!("{READY}");
        let (start, time) = (Instant::now(), Timestamp::now());
        let due = |n: u64| {
            Duration::from_nanos((u128::from(n) * 1_000_000_000 / u128::from(rate)) as u64)
        };
        let (mut next, end) = (0, self.warm_up + self.events);
        while next < end {
            std::thread::sleep((start + due(next)).saturating_duration_since(Instant::now()));
            let last = (next + MAX_LATE).min(end);
            let late = (next + 1..last).take_while(|&n| due(n) <= start.elapsed());
            let (from, count) = (next, 1 + late.count() as u64);
            next += count;
            let told = |n| time + SignedDuration::try_from(due(n)).unwrap_or_default();
            let events =
                (from..next).map(|n| workload.event(n, &stamp(told(n)), n >= self.warm_up));
            appends(&inbox, &events.collect::<Vec<_>>())
                .exec(&mut connection)
                .map_err(failed)?;
            for n in from.max(self.warm_up)..next {
                recorder.since(told(n));
            }
        }
        let took = start.elapsed();
        recorder.write(&self.counted)?;
        done(took)
    }
}

/// Stays until it is ended, so that what it cost can be read.
fn done(took: Duration) -> Result<(), CommandError> {
    println!("{DONE}{}", took.as_nanos());
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_share_fails() {
        let count = |share| (0..MILLION).filter(|n| fails(*n, share)).count() as u64;
        assert_eq!(
            (count(0), count(100_000), count(MILLION)),
            (0, 100_000, MILLION)
        );
        let early = (0..2_000).filter(|n| fails(*n, 100_000)).count();
        assert!((100..300).contains(&early), "{early}");
    }
}
