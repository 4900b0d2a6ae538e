//! Telling: hops are handed over without waiting, and written in batches by a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::MAX_HOPS;
use super::hop::{Flow, What, fields, ms};
use crate::store::{Keys, Link};

/// Hops that wait to be written. More are dropped: who traces must not hold up who works.
const WAITING: usize = 10_000;
/// Hops in one exchange.
const BATCH: usize = 256;
/// How long a process that ends waits for its last hops.
const LAST: Duration = Duration::from_secs(1);

/// A hop to be told.
#[derive(Clone, Debug)]
pub(crate) struct Traced(Box<Content>);

/// Apart, so that who hands one on moves no more than a pointer.
#[derive(Clone, Debug)]
struct Content {
    correlation: Uuid,
    ttl_ms: u64,
    fields: Vec<(&'static str, String)>,
}

/// Tells hops, where `trace` of routing.yaml asks for it.
#[derive(Clone)]
pub(crate) struct Tracer(Arc<Shared>);

struct Shared {
    /// How long a trace is kept; 0: nothing is traced.
    ttl_ms: AtomicU64,
    hops: mpsc::Sender<Traced>,
    dropped: AtomicU64,
    end: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Tracer {
    /// Starts the task that writes.
    pub(crate) fn start(link: Link, keys: Keys, ttl: Option<Duration>) -> Self {
        let (hops, queue) = mpsc::channel(WAITING);
        let end = CancellationToken::new();
        let writer = tokio::spawn(write(link, keys, queue, end.clone()));
        let tracer = Self(Arc::new(Shared {
            ttl_ms: AtomicU64::new(0),
            hops,
            dropped: AtomicU64::new(0),
            end,
            writer: Mutex::new(Some(writer)),
        }));
        tracer.set(ttl);
        tracer
    }

    /// A new routing.yaml.
    pub(crate) fn set(&self, ttl: Option<Duration>) {
        self.0.ttl_ms.store(ttl.map_or(0, ms), Ordering::Relaxed);
    }

    /// Whether anything is traced: all that it costs where nothing is.
    pub(crate) fn is_on(&self) -> bool {
        self.0.ttl_ms.load(Ordering::Relaxed) > 0
    }

    /// Makes a hop, if anything is traced.
    pub(crate) fn hop(
        &self,
        flow: impl FnOnce() -> Option<Flow>,
        what: impl FnOnce() -> What,
    ) -> Option<Traced> {
        let ttl_ms = self.0.ttl_ms.load(Ordering::Relaxed);
        if ttl_ms == 0 {
            return None;
        }
        let flow = flow()?;
        Some(Traced(Box::new(Content {
            correlation: flow.correlation,
            ttl_ms,
            fields: fields(&flow, &what()),
        })))
    }

    /// Tells hops: what they tell of has happened.
    pub(crate) fn tell(&self, hops: impl IntoIterator<Item = Traced>) {
        for hop in hops {
            if self.0.hops.try_send(hop).is_err() {
                let dropped = self.0.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                if dropped.is_power_of_two() {
                    tracing::warn!(
                        dropped,
                        "Redis takes hops of traces too slowly: some are left out"
                    );
                }
            }
        }
    }

    /// Waits a moment for what was told last.
    pub(crate) async fn finish(&self) {
        self.0.end.cancel();
        if let Some(mut writer) = self.0.writer.lock().await.take()
            && tokio::time::timeout(LAST, &mut writer).await.is_err()
        {
            writer.abort();
        }
    }
}

async fn write(link: Link, keys: Keys, mut queue: mpsc::Receiver<Traced>, end: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            taken = queue.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = end.cancelled() => return, // and nothing waits
        }
        let pipeline = pipeline(&keys, &batch);
        batch.clear();
        let written = link.run(|mut c| async move { pipeline.exec_async(&mut c).await });
        if let Err(error) = written.await {
            tracing::debug!(%error, "hops of traces were not written");
        }
    }
}

fn pipeline(keys: &Keys, batch: &[Traced]) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for Traced(content) in batch {
        let Content {
            correlation,
            ttl_ms,
            fields,
        } = &**content;
        let key = keys.trace(*correlation);
        let add = pipeline.cmd("XADD").arg(&key);
        add.arg("MAXLEN").arg("~").arg(MAX_HOPS).arg("*");
        for (name, value) in fields {
            add.arg(*name).arg(value);
        }
        add.ignore();
        pipeline.cmd("PEXPIRE").arg(&key).arg(*ttl_ms).ignore();
    }
    pipeline
}
