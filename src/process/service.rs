//! The `main` of a worker and of the router: arguments in, exit code out.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Command, CommandFactory, Parser};
use tokio::sync::watch;

use super::args::{CommonArgs, MonitorArgs, parse, parse_as};
use super::core_dump;
use super::exit::Exit;
use super::left_behind;
use super::monitor::{Monitor, Role};
use super::notify::Manager;
use super::reload::{Reloader, Watch};
use super::signals::stop_on_signal;
use super::startup::accept;
use super::telemetry;
use crate::progress::Progress;
use crate::router::{self, RouterError, RouterOptions};
use crate::store::Redis;
use crate::worker::{self, Handler, Rebuild, Restore, Stop, WorkerError, WorkerOptions};

#[derive(Parser)]
#[command(version)]
struct WorkerArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    monitor: MonitorArgs,
    /// Name of this process within its group, stable across restarts: a restarted process takes
    /// over at once what its earlier life left. [default: host and a free number]
    #[arg(long, value_parser = process_name)]
    name: Option<String>,
    /// How long started deliveries may go on after SIGTERM; the rest is given back.
    #[arg(long, value_name = "SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    drain: u64,
    /// Threads that handlers run on. With one, nothing is handed from thread to thread, which costs
    /// the least; but a handler that blocks it then holds up all others. [default: one per core]
    #[arg(long, value_name = "N", env = "STREAMFLEET_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    watching: WatchArgs,
    /// Fill the shadow of the rebuild of this number instead of serving the live subscriber. What
    /// `streamfleet rebuild` starts; it makes the groups that such a process reads.
    #[arg(long, value_name = "N", hide = true)]
    rebuild: Option<u64>,
    /// Fill it with what has left the streams and is in the event store, all of it or whatever is there.
    #[arg(long, value_name = "all|some", hide = true, requires = "rebuild", value_parser = how_to_restore)]
    restore: Option<Restore>,
}

#[derive(Parser)]
#[command(
    version,
    about = "Routes events from the inbox to the streams that routing.yaml names"
)]
struct RouterArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    monitor: MonitorArgs,
    /// Name of this process among the routers, stable across restarts. [default: host and a free number]
    #[arg(long, value_parser = process_name)]
    name: Option<String>,
    #[command(flatten)]
    watching: WatchArgs,
}

#[derive(clap::Args)]
struct WatchArgs {
    /// Whether a changed routing.yaml or schema is taken by itself, once it has not changed for a
    /// moment and if it has no problem; SIGHUP has them read in any case.
    #[arg(
        long,
        value_enum,
        value_name = "on|off",
        hide_possible_values = true,
        env = "STREAMFLEET_WATCH",
        default_value_t
    )]
    watch: Watch,
}

/// What the router is told, for its manual page.
pub(crate) fn router_command() -> Command {
    RouterArgs::command().name("streamfleet-router")
}

/// What any worker is told, for the manual page that they share.
pub(crate) fn worker_command() -> Command {
    WorkerArgs::command().name("streamfleet-worker").about(
        "Handles the events that routing.yaml sends to one subscriber. Every worker is a program of \
         its own (inventory-worker, payment-worker, your own), and takes these options",
    )
}

fn process_name(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'));
    match plain && (1..=100).contains(&text.len()) && text != "retry" && text != "released" {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 100 letters, digits, `-`, `_`, `.` or `@`; `retry` and `released` are reserved".into()),
    }
}

fn how_to_restore(text: &str) -> Result<Restore, String> {
    match text {
        "all" => Ok(Restore::All),
        "some" => Ok(Restore::Some),
        _ => Err("it is all or some".to_owned()),
    }
}

/// Runs a worker: parses arguments, makes the handler, handles events until told to stop.
///
/// Exit codes: 0 stopped as told, 1 failed, 2 usage, 69 Redis unreachable, 78 bad configuration
/// (that includes a handler that cannot be made from its environment).
pub fn worker_main<H: Handler, E: Display>(make: impl FnOnce() -> Result<H, E>) -> ExitCode {
    let about = format!(
        "Handles the events that routing.yaml sends to {}",
        H::SUBSCRIBER
    );
    let args: WorkerArgs = parse_as(WorkerArgs::command().about(about));
    telemetry::init();
    core_dump::forbid();
    let subscriber = H::SUBSCRIBER.to_owned();
    // Before it is made: it may not have what it needs for what a rebuild would not do anyway.
    if args.rebuild.is_some() && !H::READ_MODEL {
        return failed(Exit::Failure, &WorkerError::NotReadModel(subscriber));
    }
    let handler = match make() {
        Ok(handler) => handler,
        Err(error) => return failed(Exit::BadConfig, &error),
    };
    let drain = Duration::from_secs(args.drain);
    let place = Place {
        subscriber,
        rebuild: args.rebuild.map(|number| Rebuild {
            number,
            restore: args.restore,
        }),
        name: args.name,
        drain,
        threads: args.threads,
        watch: args.watching.watch,
        monitor: args.monitor,
    };
    serve(handler, &args.common, place, || {})
}

/// Where a handler runs, and how.
pub(crate) struct Place {
    pub(crate) subscriber: String,
    /// The rebuild whose shadow it fills, if it does.
    pub(crate) rebuild: Option<Rebuild>,
    /// Its name in the group.
    pub(crate) name: Option<String>,
    pub(crate) drain: Duration,
    /// Of the runtime; one per core unless set.
    pub(crate) threads: Option<u16>,
    /// Whether changed files are taken without a signal.
    pub(crate) watch: Watch,
    /// What it tells over HTTP.
    pub(crate) monitor: MonitorArgs,
}

/// Runs a worker until it is told to stop; `ready` is called once it reads.
pub(crate) fn serve<H: Handler>(
    handler: H,
    common: &CommonArgs,
    place: Place,
    ready: impl FnOnce() + Send + 'static,
) -> ExitCode {
    let role = match place.rebuild {
        None => Role::Worker(place.subscriber.clone()),
        Some(_) => Role::Rebuild(place.subscriber.clone()),
    };
    let monitor = place.monitor.clone();
    run_process(
        common,
        (&monitor, role),
        place.threads,
        place.watch,
        |redis, reloader, progress, manager| async move {
            let Place {
                subscriber,
                rebuild,
                name,
                drain,
                ..
            } = place;
            let stop = Stop::default();
            tokio::spawn(stop_on_signal(stop.reading.clone(), stop.now.clone()));
            tokio::spawn(
                manager
                    .clone()
                    .told_of(stop.reading.clone(), progress.clone()),
            );
            let (mut config, in_force) = (reloader.subscribe(), reloader.in_force());
            if rebuild.is_some() {
                // The whole of history is judged by the routes of one file.
                let first = config.borrow().clone();
                config = watch::channel(first).1;
            }
            let begun = progress.clone();
            let options = WorkerOptions {
                redis,
                config,
                in_force,
                subscriber,
                rebuild,
                name,
                drain,
                stop,
                ready: Box::new(move || {
                    begun.begin();
                    manager.ready();
                    ready();
                }),
                progress,
            };
            worker::run(handler, options).await.map_err(|error| {
                let exit = match &error {
                    WorkerError::Store(error) => Exit::from(error),
                    WorkerError::NotSubscribed(_) | WorkerError::Retired(_) => Exit::BadConfig,
                    WorkerError::Membership(_)
                    | WorkerError::NotReadModel(_)
                    | WorkerError::NoShadow(_)
                    | WorkerError::NotHeld(_)
                    | WorkerError::Thread(_) => Exit::Failure,
                };
                failed(exit, &error)
            })
        },
    )
}

/// Runs the router. Exit codes as for [`worker_main`].
pub fn router_main() -> ExitCode {
    let args: RouterArgs = parse();
    telemetry::init();
    core_dump::forbid();
    run_process(
        &args.common,
        (&args.monitor, Role::Router),
        None,
        args.watching.watch,
        |redis, reloader, progress, manager| async move {
            let stop = Stop::default();
            tokio::spawn(stop_on_signal(stop.reading.clone(), stop.now.clone()));
            tokio::spawn(
                manager
                    .clone()
                    .told_of(stop.reading.clone(), progress.clone()),
            );
            let rereader = reloader.clone();
            let first = reloader.subscribe().borrow().clone();
            left_behind::warn(&redis.link(), &first).await;
            let begun = progress.clone();
            let options = RouterOptions {
                redis,
                config: reloader.subscribe(),
                in_force: reloader.in_force(),
                reread: Box::new(move || tokio::task::block_in_place(|| rereader.reload())),
                name: args.name,
                stop: stop.reading.clone(),
                ready: Box::new(move || {
                    begun.begin();
                    manager.ready();
                }),
                progress,
            };
            let ran = tokio::select! {
                ran = router::run(options) => ran,
                // What was read and not routed stays pending, for the next router.
                () = stop.now.cancelled() => Ok(()),
            };
            ran.map_err(|error| {
                let exit = match &error {
                    RouterError::Store(error) => Exit::from(error),
                    RouterError::Membership(_) => Exit::Failure,
                };
                failed(exit, &error)
            })
        },
    )
}

/// What both have in common: configuration, an address for metrics, Redis, runtime, reloading.
fn run_process<F, Fut>(
    args: &CommonArgs,
    (told, role): (&MonitorArgs, Role),
    threads: Option<u16>,
    watch: Watch,
    run: F,
) -> ExitCode
where
    F: FnOnce(Redis, Arc<Reloader>, Progress, Manager) -> Fut,
    Fut: Future<Output = Result<(), ExitCode>>,
{
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => return failed(Exit::from(&error), &error),
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let monitor = match Monitor::bind(told, role) {
        Ok(monitor) => monitor,
        Err(error) => return failed(Exit::from(&error), &error),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.into());
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Exit::Failure, &error),
    };
    let outcome = runtime.block_on(async {
        let redis = args.redis.open().map_err(|e| failed(Exit::from(&e), &e))?;
        let reloader = Reloader::new(config, watch, redis.link());
        let progress = Progress::default();
        if let Some(monitor) = monitor {
            let started = monitor.start(&redis, reloader.in_force().subscribe(), &progress);
            started.map_err(|e| failed(Exit::Failure, &e))?;
        }
        accept(&redis)
            .await
            .map_err(|e| failed(Exit::from(&e), &e))?;
        let manager = Manager::of_this_process(&progress);
        // Before the files are read again at the signal that both wait for.
        let answering = tokio::spawn(manager.clone().answer_reloads());
        let reloading = tokio::spawn(reloader.clone().run());
        let outcome = run(redis, reloader, progress, manager).await;
        reloading.abort();
        answering.abort();
        outcome
    });
    // A handler that blocks a thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome.err().unwrap_or_else(|| Exit::Clean.into())
}

fn failed(exit: Exit, error: &dyn Display) -> ExitCode {
    tracing::error!("{error}");
    exit.into()
}
