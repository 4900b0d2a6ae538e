//! The life of a worker: join the fleet, take over what an earlier life left, run the roles,
//! drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::core::{Core, DueTimes, Stop};
use super::handler::{Environment, Handler};
use super::held::Held;
use super::lanes::Lanes;
use super::restore::{self, NotHeld, Restore};
use super::settle::Settlers;
use super::{breaker, configuration, fetch, lanes, reclaim, renew, supervise};
use crate::failpoint::failpoint;
use crate::fleet::{self, Identity, MembershipLost};
use crate::progress::{Beat, Doing, PATIENCE, Progress};
use crate::routing::Config;
use crate::store::{Holder, Keys, Link, Redis, StoreError};
use crate::trace::Tracer;

/// Why a worker ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Redis could not be reached at the start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// routing.yaml does not name the subscriber.
    #[error(
        "routing.yaml routes nothing to {0}: add its name to a route, or to `retired` if it is to settle what it \
         still owes"
    )]
    NotSubscribed(String),
    /// routing.yaml says that it is retired, and its groups have been dropped.
    #[error(
        "{0} is retired and has no group any more: stop its workers for good, and take it out of `retired` in \
         routing.yaml"
    )]
    Retired(String),
    /// Name or dataset are no longer ours.
    #[error(transparent)]
    Membership(#[from] MembershipLost),
    /// Its handler does more than a rebuild may do again.
    #[error(
        "{0} cannot be rebuilt: its handler is not declared a read model (Handler::READ_MODEL), so to run history \
         again could call the outside, append to the event store or publish a second time"
    )]
    NotReadModel(String),
    /// The shadow that it was to fill is not there.
    #[error(
        "there is no rebuild {0} (any more): this process is started by streamfleet rebuild, which makes the groups \
         that it reads"
    )]
    NoShadow(String),
    /// What has left its streams is not in the event store either.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The operating system refused a thread.
    #[error("cannot start the renewing thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A rebuild, and a worker's part in it.
#[derive(Clone, Copy, Debug)]
pub struct Rebuild {
    /// Its number.
    pub number: u64,
    /// To fill the shadow with what has left the streams, instead of with what is in them.
    pub restore: Option<Restore>,
}

/// What a worker needs to run.
pub struct WorkerOptions {
    /// The server.
    pub redis: Redis,
    /// The configuration; a new value is a reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// Told which one is in force.
    pub in_force: watch::Sender<Arc<Config>>,
    /// The subscriber's name in routing.yaml: [`Handler::SUBSCRIBER`], unless one handler serves
    /// several.
    pub subscriber: String,
    /// The rebuild whose shadow it fills, instead of serving the live subscriber.
    pub rebuild: Option<Rebuild>,
    /// A stable name, or one of the host.
    pub name: Option<String>,
    /// How long started deliveries may go on after a stop.
    pub drain: Duration,
    /// How it is told to stop.
    pub stop: Stop,
    /// Called once it reads.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Told how it gets on.
    pub progress: Progress,
}

/// Runs one worker until it is stopped.
pub async fn run<H: Handler>(handler: H, options: WorkerOptions) -> Result<(), WorkerError> {
    let WorkerOptions {
        redis,
        mut config,
        in_force,
        subscriber,
        rebuild,
        name,
        drain,
        stop,
        ready,
        progress,
    } = options;
    if rebuild.is_some() && !H::READ_MODEL {
        return Err(WorkerError::NotReadModel(subscriber));
    }
    let group = rebuild.map_or_else(
        || subscriber.clone(),
        |rebuild| Keys::shadow(&subscriber, rebuild.number),
    );
    let link = redis.link();
    let first = config.borrow_and_update().clone();
    in_force.send_replace(first.clone());
    let keys = Keys::new(first.routing.namespace());
    let settings = match first.routing.served(&subscriber) {
        Some(settings) => {
            let mut settings = settings.clone();
            // What is run again depends on nothing outside, and publishes no events of its state.
            settings.breaker.enabled &= rebuild.is_none();
            Arc::new(settings)
        }
        None => return Err(WorkerError::NotSubscribed(subscriber)),
    };
    let membership = fleet::join(&link, &keys, &first).await?;
    fleet::in_force(&first, membership.generation);
    failpoint!("worker.joined");
    // The groups of a shadow are made by who rebuilds. They end with the rebuild, and this process,
    // should it live on, must not make them again: they would hold up trimming for ever.
    let mut wanted = Vec::new();
    if rebuild.is_none() {
        wanted = fleet::wanted_groups(&first.routing, Some(&subscriber));
        // A lost group is answered by the fetcher, which meets it again at its first read.
        fleet::ensure_groups(&link, &keys, &wanted).await?;
    }
    let restored = match rebuild.and_then(|rebuild| rebuild.restore) {
        Some(how) => {
            let routing = &first.routing;
            restore::restore(&handler, how, &link, &keys, routing, &subscriber, &group).await?;
            Some(Keys::restored_name(&group))
        }
        None => None,
    };
    let identity = Identity::announce(&link, &keys, &group, name.as_deref()).await?;
    failpoint!("worker.announced");
    // What is run again was traced when it was run first.
    let traced = first.routing.trace().filter(|_| rebuild.is_none());
    let tracer = Tracer::start(link.clone(), keys.clone(), traced);
    let (unsettled_tx, unsettled) = mpsc::unbounded_channel();
    let settlers = Arc::new(Settlers::new(
        link.clone(),
        keys.inbox(),
        4 * settings.concurrency.max(64),
        stop.now.clone(),
        unsettled_tx,
        tracer.clone(),
    ));
    let mut sources =
        configuration::load_sources(&link, &keys, &wanted, settings.lease, &identity, &settlers)
            .await?;
    // What is gone comes before what is there: an entity's events in the order of its history.
    if let Some(restored) = &restored {
        sources.retain(|source| *source.name == **restored);
    }
    if sources.is_empty() {
        return Err(match rebuild {
            Some(_) => WorkerError::NoShadow(group),
            None => WorkerError::Retired(group),
        });
    }
    // A name that was merely free may be that of a live process that Redis lost sight of in an
    // outage; only a name that was given is ours by right.
    if name.is_some() {
        for source in &sources {
            fleet::take_over(&link, &source.holder, &identity).await;
        }
    }
    let uptime = link
        .run(|mut c| async move { crate::store::uptime(&mut c).await })
        .await?;
    // Not told, Redis may have just started: then others renew before anything is reclaimed.
    let after_outage = uptime.is_none_or(|uptime| uptime < settings.lease);

    // Before anything is read.
    let control = fleet::control::read(&link, &keys, &group).await?;
    let (requests_tx, requests) = mpsc::unbounded_channel();
    let breaker = breaker::Breaker::new(
        &control,
        &settings,
        &keys,
        &group,
        stop.reading.clone(),
        requests_tx,
    );

    let (settings_tx, settings_rx) = watch::channel(settings.clone());
    let core = Arc::new(Core {
        handler,
        env: Arc::new(Environment {
            redis: redis.clone(),
            keys: keys.clone(),
            subscriber: subscriber.as_str().into(),
            group: group.as_str().into(),
            stop: stop.reading.clone(),
        }),
        link: link.clone(),
        identity: identity.clone(),
        dataset: membership.dataset.clone(),
        config: in_force.subscribe(),
        sources: watch::Sender::new(Arc::new(sources)),
        settings: settings_rx,
        lease: settings.lease,
        slots: Arc::new(Semaphore::new(settings.concurrency)),
        concurrency: settings.concurrency,
        held: Held::default(),
        asked: tokio::sync::Mutex::default(),
        runtime: tokio::runtime::Handle::current(),
        lanes: Lanes::default(),
        breaker,
        settlers: settlers.clone(),
        tracer: tracer.clone(),
        due: DueTimes::default(),
        tasks: TaskTracker::new(),
        progress: progress.clone(),
        stop: stop.clone(),
    });
    let renewing = tokio_util::sync::CancellationToken::new();
    renew::spawn(
        redis.clone(),
        core.held.clone(),
        settings.lease,
        renewing.clone(),
        progress.of("renewing", PATIENCE + renew::pause(settings.lease)),
        supervise::run(core.clone()),
    )?;
    let running = AbortOnDropHandle::new(tokio::spawn(tick(threads(&core))));
    let lanes = lanes::spawn(&core, unsettled);
    let mut reclaiming = tokio::spawn(reclaim::run(core.clone(), after_outage));
    let controlled = tokio_util::sync::CancellationToken::new();
    let mut controlling = tokio::spawn(breaker::run(core.clone(), requests, controlled.clone()));
    let reloading = tokio::spawn(configuration::reload(
        core.clone(),
        config,
        in_force,
        settings_tx,
    ));
    tracing::info!(
        subscriber = group,
        consumer = identity.consumer(),
        generation = membership.generation,
        server = redis.server(),
        concurrency = settings.concurrency,
        "worker started"
    );
    progress.now(Doing::Working);
    ready();

    // From the moment of the stop there is only so much time, whatever hangs.
    let deadline = tokio::spawn({
        let (stop, held) = (stop.clone(), core.held.clone());
        async move {
            stop.reading.cancelled().await;
            tokio::time::sleep(drain).await;
            tracing::warn!(
                unfinished = held.count(),
                "the drain deadline has passed: releasing what still runs"
            );
            stop.now.cancel();
        }
    });
    // Signs of life go on while it drains: the name is taken until the end.
    let mut alive = tokio::spawn({
        let (link, keys, identity) = (link.clone(), keys.clone(), identity.clone());
        async move { fleet::keep_alive(&link, &keys, &identity, &membership).await }
    });
    // On the runtime's threads, beside the lanes: what is read need not change threads.
    let mut fetching = AbortOnDropHandle::new(tokio::spawn(fetch::run(core.clone())));
    let outcome = tokio::select! {
        outcome = &mut fetching => match outcome {
            Ok(outcome) => outcome,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        },
        lost = &mut alive => match lost {
            Ok(lost) => Err(lost.into()),
            Err(_) => Ok(()), // it panicked: stop in good order
        },
        // A read that Redis does not answer; what it brings comes back after its lease.
        () = out_of_time(&stop) => Ok(()),
    };
    stop.reading.cancel();
    // What it has just read is in our hands before the end, or comes back after its lease.
    if !fetching.is_finished() {
        fetching.abort();
        let _ended = tokio::time::timeout(LAST_STEP, &mut fetching).await;
    }
    if outcome.is_err() {
        stop.now.cancel();
    }

    // Drain: the roles end first, then what they started, then the acknowledgements.
    tokio::select! {
        _ = &mut reclaiming => {}
        () = out_of_time(&stop) => {
            reclaiming.abort();
            let _ended = tokio::time::timeout(LAST_STEP, &mut reclaiming).await;
        }
    }
    reloading.abort();
    core.tasks.close();
    core.tasks.wait().await;
    // What came of the last probes is known by now.
    controlled.cancel();
    if tokio::time::timeout(LAST_STEP, &mut controlling)
        .await
        .is_err()
    {
        controlling.abort();
    }
    let sources = core.sources.borrow().clone();
    let streams = sources.iter().map(|s| (s.name.clone(), s.holder.clone()));
    let streams: Vec<_> = streams.collect();
    drop(sources);
    drop(lanes);
    let flushed = tokio::time::timeout(Duration::from_secs(5), settlers.finish()).await;
    tracer.finish().await;
    deadline.abort();
    drop(running);
    renewing.cancel();
    alive.abort();
    if flushed.is_err() {
        tracing::warn!(
            "some acknowledgements were not answered: these deliveries may be handled again (they asked for no effects)"
        );
    }
    leave(&link, &keys, &streams, &identity, &outcome).await;
    outcome
}

/// How the threads of handlers get on. A handler that blocks its thread may do so until its time is up, and all
/// slots may be of such handlers: what waits for a thread behind them waits for one after the other.
fn threads<H: Handler>(core: &Core<H>) -> Beat {
    let threads = core.runtime.metrics().num_workers();
    let in_turn = u32::try_from(1 + core.concurrency.div_ceil(threads)).unwrap_or(u32::MAX);
    let (settings, longest) = (core.settings.clone(), AtomicU64::new(0));
    let patience = move || {
        // Handlers that began before a reload may take as long as they were given.
        let now = settings.borrow().timeout.as_millis() as u64;
        let longest = longest.fetch_max(now, Ordering::Relaxed).max(now);
        PATIENCE + Duration::from_millis(longest).saturating_mul(in_turn)
    };
    core.progress.as_patient_as("its threads", patience)
}

/// Shows that the threads of handlers still run what is not blocked.
async fn tick(beat: Beat) {
    loop {
        beat.touch();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How long a role that was aborted may take to its next step.
const LAST_STEP: Duration = Duration::from_secs(1);

/// A moment after everything should have ended.
async fn out_of_time(stop: &Stop) {
    stop.now.cancelled().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Leaves no trace: the consumers that own nothing, and the announcement.
async fn leave(
    link: &Link,
    keys: &Keys,
    streams: &[(Arc<str>, Arc<Holder>)],
    identity: &Identity,
    outcome: &Result<(), WorkerError>,
) {
    if matches!(outcome, Err(WorkerError::Membership(_))) {
        return; // neither name nor groups are ours any more
    }
    failpoint!("worker.leaving");
    let consumer = identity.consumer();
    let leaving = async {
        for (stream, holder) in streams {
            let consumer = consumer.as_str();
            let dropped =
                link.run(|mut c| async move { holder.drop_consumer(&mut c, consumer).await });
            if let Err(error) = dropped.await {
                tracing::debug!(%error, stream = &**stream, "the janitor will remove the consumer");
            }
        }
        identity.withdraw(link, keys).await
    };
    match tokio::time::timeout(Duration::from_secs(2), leaving).await {
        Ok(Ok(())) => tracing::info!("worker stopped"),
        Ok(Err(error)) => tracing::warn!(%error, "stopped without a goodbye to Redis"),
        Err(_) => tracing::warn!("stopped without a goodbye to Redis: it did not answer"),
    }
}
