//! Batches: cut so that no script holds Redis up for long, sent until answered.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use redis::RedisError;

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LEASE;
use super::dedupe::Window;
use super::measured;
use crate::fleet::ROUTER;
use crate::metrics;
use crate::progress::{Beat, Doing, Progress};
use crate::retry::RECONNECT;
use crate::store::{
    self, Audit, Fence, Fields, Holder, Keys, Link, Parked, RouteBatch, RouteCounts, Routed,
    StoreError, StreamField, is_dataset_gone, refuses_key,
};
use crate::trace::{Traced, Tracer};

/// Most entries that are read at a time. More, and reading, deciding and writing take longer turns
/// with each other: of 128, 256, 512 and 1,024, 128 routed the most on two cores (0.76 of the floor;
/// 0.75, 0.71 and 0.67).
const MAX_ENTRIES: usize = 128;
/// How long an event waits whose stream cannot take it.
const STUCK_DELAY: Duration = Duration::from_secs(20);
/// Bytes of events in one script, unless a single event has more.
pub(super) const MAX_BYTES: usize = 2 * 1024 * 1024;

/// How many entries to read: few at first and after trouble, then as many as fit the bytes.
/// (COUNT is all that Redis lets a reader ask for, so the size of what comes is learnt.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadCount(usize);

impl ReadCount {
    pub(super) const START: Self = Self(32);

    pub(super) fn get(self) -> usize {
        self.0
    }

    /// After a batch of so many entries and bytes.
    pub(super) fn learn(&mut self, entries: usize, bytes: usize) {
        if let Some(average) = bytes.checked_div(entries) {
            let fitting = MAX_BYTES / average.max(1);
            self.0 = fitting.min(self.0 * 2).clamp(1, MAX_ENTRIES);
        }
    }

    /// After a read that failed, perhaps because it was too much.
    pub(super) fn shrink(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

pub(super) fn bytes_of(fields: &Fields) -> usize {
    fields
        .0
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

pub(super) fn size(routed: &Routed) -> usize {
    match routed {
        Routed::Append { event, .. } | Routed::Schedule { event, .. } => event.len(),
        Routed::Dead(letter) => letter.get(StreamField::EVENT).map_or(0, <[u8]>::len),
    }
}

/// Where an entry goes: a key of the wrong type there holds it up, and no other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Stream(usize),
    Scheduled,
    Dead,
}

impl Place {
    fn of(routed: &Routed) -> Self {
        match routed {
            Routed::Append { target, .. } => Self::Stream(*target),
            Routed::Schedule { .. } => Self::Scheduled,
            Routed::Dead(_) => Self::Dead,
        }
    }
}

/// A batch of which is decided what becomes of each entry.
pub(super) struct Decided {
    pub(super) entries: Vec<(Fence, Routed)>,
    /// Names of the domain streams that the entries point into.
    pub(super) targets: Vec<String>,
    /// When it was read, if it is all that a read brought (see [`RouteBatch::contiguous`]).
    pub(super) read: Option<Instant>,
    /// The dedupe window in force.
    pub(super) window: Window,
    /// Who published each entry, if the batch is audited.
    pub(super) sources: Option<Vec<Option<String>>>,
    /// What is to be told once it is routed.
    pub(super) hops: Vec<Traced>,
}

impl Decided {
    /// All of it at once.
    pub(super) fn whole(&self) -> Part<'_> {
        self.part(0..self.entries.len())
    }

    fn part(&self, range: Range<usize>) -> Part<'_> {
        let sources = self.sources.as_deref();
        Part {
            sources: sources.map(|all| all.get(range.clone()).unwrap_or_default()),
            entries: self.entries.get(range).unwrap_or_default(),
            targets: &self.targets,
            contiguous: self.read.is_some(),
            window: &self.window,
        }
    }
}

/// Some of a batch, in one script.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    entries: &'a [(Fence, Routed)],
    targets: &'a [String],
    contiguous: bool,
    window: &'a Window,
    sources: Option<&'a [Option<String>]>,
}

/// Hands decided batches to Redis, one after the other.
#[derive(Clone)]
pub(super) struct Dispatch {
    pub(super) link: Link,
    pub(super) keys: Keys,
    pub(super) inbox: Arc<Holder>,
    pub(super) tracer: Tracer,
    pub(super) progress: Progress,
    pub(super) stop: CancellationToken,
}

impl Dispatch {
    /// Routes decided entries, in order, in as many scripts as their bytes ask for. Each attempt is a sign of life.
    pub(super) async fn send_all(
        &self,
        batch: &Decided,
        beat: &Beat,
    ) -> Result<RouteCounts, StoreError> {
        let mut total = RouteCounts::default();
        let mut from = 0;
        while from < batch.entries.len() {
            let mut bytes = 0;
            let rest = batch.entries.iter().skip(from);
            let fitting = rest.take_while(|(_, routed)| {
                bytes += size(routed);
                bytes <= MAX_BYTES
            });
            let to = from + fitting.count().max(1);
            total += self.send_until_answered(batch.part(from..to), beat).await?;
            from = to;
        }
        Ok(total)
    }

    /// Counts a batch, and tells its hops, if all of it went the way that was decided: what is told did
    /// happen.
    pub(super) fn tell(&self, batch: Decided, counts: &RouteCounts) {
        if metrics::on() {
            measured::routed(&batch, counts);
        }
        if counts.routed + counts.scheduled + counts.refused == batch.entries.len() as u64 {
            self.tracer.tell(batch.hops);
        }
    }

    async fn send_until_answered(
        &self,
        part: Part<'_>,
        beat: &Beat,
    ) -> Result<RouteCounts, StoreError> {
        let mut failures = 0;
        loop {
            beat.touch();
            let error = match self.send(part).await {
                Ok(counts) => return Ok(counts),
                Err(error) => error,
            };
            if error.redis().is_some_and(refuses_key) {
                return self.send_apart(part, beat).await;
            }
            if self.stop.is_cancelled() || error.redis().is_some_and(is_dataset_gone) {
                return Err(error);
            }
            failures += 1;
            tracing::warn!(%error, failures, "Redis did not route a batch; sending it again");
            self.progress.now(Doing::Degraded(error.to_string()));
            tokio::time::sleep(RECONNECT.delay(failures)).await;
        }
    }

    async fn send(&self, part: Part<'_>) -> Result<RouteCounts, StoreError> {
        let link = &self.link;
        self.with_batch(&part, async |batch: &RouteBatch<'_>| {
            link.run(|mut c| async move { store::route(&mut c, batch).await })
                .await
        })
        .await
    }

    /// A part as the scripts want it.
    pub(super) async fn with_batch<T>(
        &self,
        part: &Part<'_>,
        exchange: impl AsyncFnOnce(&RouteBatch<'_>) -> T,
    ) -> T {
        let (seen, seen_ttl_ms) = part.window.buckets(&self.keys);
        let names = part.targets.iter();
        let targets: Vec<_> = names.map(|name| self.keys.stream(name)).collect();
        let (dead, now) = (self.keys.dead(ROUTER), Timestamp::now().to_string());
        let (scheduled, events) = (self.keys.scheduled(), self.keys.scheduled_events());
        let audit = part.sources.map(|sources| (self.keys.audit(), sources));
        exchange(&RouteBatch {
            inbox: &self.inbox,
            dead: &dead,
            seen: &seen,
            seen_ttl_ms,
            targets: &targets,
            scheduled: [&scheduled, &events],
            now: &now,
            entries: part.entries,
            contiguous: part.contiguous,
            audit: audit
                .as_ref()
                .map(|(stream, sources)| Audit { stream, sources }),
        })
        .await
    }

    /// Redis refuses some key of the batch. What goes elsewhere is routed all the same; the rest stays in the inbox,
    /// owed, and is tried again until the key is repaired. A right may also be lacking to a key that all need, and
    /// Redis need not say to which: then nothing goes elsewhere, and nothing is set aside.
    async fn send_apart(&self, whole: Part<'_>, beat: &Beat) -> Result<RouteCounts, StoreError> {
        let (mut total, mut went, mut refused) = (RouteCounts::default(), false, Vec::new());
        let streams = (0..whole.targets.len()).map(Place::Stream);
        for place in streams.chain([Place::Scheduled, Place::Dead]) {
            beat.touch();
            let all = whole.entries.iter().enumerate();
            let there = all.filter(|(_, (_, routed))| Place::of(routed) == place);
            let (at, mut entries): (Vec<_>, Vec<_>) = there.map(|(i, e)| (i, e.clone())).unzip();
            if entries.is_empty() {
                continue;
            }
            let sources = whole.sources.map(|all| -> Vec<_> {
                let source = |&i: &usize| all.get(i).cloned().flatten();
                at.iter().map(source).collect()
            });
            for (_, routed) in &mut entries {
                if let Routed::Append { target, .. } = routed {
                    *target = 0;
                }
            }
            let (key, targets) = match place {
                Place::Stream(index) => match whole.targets.get(index..=index) {
                    Some(only) => (self.keys.stream(&only.concat()), only),
                    None => continue,
                },
                Place::Scheduled => (self.keys.scheduled(), &[][..]),
                Place::Dead => (self.keys.dead(ROUTER), &[][..]),
            };
            let part = Part {
                entries: &entries,
                targets,
                contiguous: false,
                window: whole.window,
                sources: sources.as_deref(),
            };
            match self.send(part).await {
                Ok(counts) => {
                    total += counts;
                    went = true;
                }
                Err(error) if error.redis().is_some_and(refuses_key) => {
                    let fences: Vec<_> = entries.iter().map(|(fence, _)| *fence).collect();
                    refused.push((key, fences, error));
                }
                Err(error) => return Err(error),
            }
        }
        for (key, fences, error) in refused {
            // (As scripts say it: `must_be_able`.)
            let of_it = |cause: &RedisError| {
                cause.code() == Some("WRONGTYPE")
                    || cause.to_string().contains(&format!(" on {key}: "))
            };
            if !(went || error.redis().is_some_and(of_it)) {
                return Err(error);
            }
            tracing::error!(%error, stream = key, entries = fences.len(),
                "HALTED for this stream: repair or rename the key, or grant the right; its events wait in the inbox");
            self.set_aside(fences, STUCK_DELAY).await?;
        }
        Ok(total)
    }

    /// Lets entries wait out of the way of what can be routed.
    pub(super) async fn set_aside(
        &self,
        fences: Vec<Fence>,
        delay: Duration,
    ) -> Result<(), StoreError> {
        let wait = |fence: Fence| Parked {
            fence,
            delay_ms: delay.as_millis() as u64,
            log: String::new(),
            starts: None,
        };
        let parked: Vec<_> = fences.into_iter().map(wait).collect();
        let (inbox, lease) = (&self.inbox, LEASE.as_millis() as u64);
        let answers = self
            .link
            .run(|mut c| async move { inbox.retry_later(&mut c, lease, &parked).await });
        answers.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_small_events_and_shrink_with_large_ones() {
        let mut count = ReadCount::START;
        for _ in 0..5 {
            count.learn(count.get(), count.get() * 600);
        }
        assert_eq!(count.get(), MAX_ENTRIES);
        count.learn(256, 256 << 20);
        assert_eq!(count.get(), 2);
        count.learn(0, 0);
        count.shrink();
        assert_eq!(count.get(), 1);
        count.learn(1, 64 << 20);
        assert_eq!(count.get(), 1);
    }
}
