//! Fetching: reads new entries, as many as there are free slots.
//!
//! Redis: XREADGROUP `>` on the domain streams and `redrive:<subscriber>`, on a connection of
//! its own, because it blocks. COUNT holds per stream, so a read of k streams may return k × COUNT:
//! the free slots are divided by k; a stream that brings all that was asked for is then asked alone
//! for a while, so that one long backlog gets all slots. A slot is not kept while the read blocks (retries that are
//! due need it more), so a few entries may wait here for one: those of a read with fewer free
//! slots than streams, and those that reclaiming overtook. Like all that are held, their leases
//! are renewed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::WorkerError;
use super::breaker::{Passage, Way};
use super::core::{Core, Source};
use super::delivery::Delivery;
use super::handler::Handler;
use super::lanes::let_others_run;
use super::settle::{Ack, End};
use crate::failpoint::failpoint;
use crate::fleet::control::POLL;
use crate::fleet::{self, MembershipLost, WantedGroup};
use crate::progress::{Doing, PATIENCE};
use crate::retry::RECONNECT;
use crate::store::{
    Ensure, Entry, EntryId, Fence, Fields, GroupState, Reader, StoreError, StreamField,
    is_dataset_gone,
};

/// How often a worker whose group was lost says so, and looks whether it is back.
const LOST_GROUP_CHECK: Duration = Duration::from_secs(2);

/// Every so many reads all streams are asked, however crowded some of them are.
const ASK_ALL_EVERY: usize = 8;

/// Streams that brought all that they were asked for: there may be more.
#[derive(Default)]
struct Crowded {
    streams: Vec<Arc<str>>,
    reads: usize,
}

impl Crowded {
    /// Whom to ask next.
    fn or_all(&mut self, all: &[Arc<Source>]) -> Vec<Arc<Source>> {
        self.reads += 1;
        let crowded = all.iter().filter(|s| self.streams.contains(&s.name));
        let crowded: Vec<_> = crowded.cloned().collect();
        if crowded.is_empty() || self.reads.is_multiple_of(ASK_ALL_EVERY) {
            all.to_vec()
        } else {
            crowded
        }
    }
}

/// Reads until told to stop. An error ends the process: going on would be wrong.
pub(crate) async fn run<H: Handler>(core: Arc<Core<H>>) -> Result<(), WorkerError> {
    let mut reader = Reader::new(core.link.clone());
    let consumer = core.identity.consumer();
    let mut failures = 0;
    let mut sources = core.sources.subscribe();
    let mut crowded = Crowded::default();
    let beat = core.progress.of("reading", PATIENCE);
    while let Some(passage) = core.passage().await {
        let Some(free) = core.wait_for_slots().await else {
            break;
        };
        if passage.ends.is_cancelled() {
            continue;
        }
        let current = sources.borrow_and_update().clone();
        if current.is_empty() {
            tokio::select! {
                () = core.stop.reading.cancelled() => break,
                _ = sources.changed() => continue,
            }
        }
        if passage.way == Way::Probing {
            match core.probe(&mut reader, &consumer, &current, &passage).await {
                Ok(()) => {
                    failures = 0;
                    core.progress.now(Doing::Working);
                }
                Err(error) => core.answer_error(&mut failures, &error).await?,
            }
            continue;
        }
        beat.touch();
        let asked = crowded.or_all(&current);
        let streams: Vec<_> = asked.iter().map(|s| s.holder.stream.as_str()).collect();
        let count = (free / streams.len()).max(1);
        let since = Instant::now();
        let read = reader.read(
            &core.env.group,
            &consumer,
            &streams,
            count,
            asked.len() == current.len(), // it waits for news of all, never of some
            &passage.ends,
        );
        let read = read.await;
        // What comes now waits for slots, for room among what is settled, or for an operator.
        beat.rest();
        match read {
            Ok(streams) => {
                failures = 0;
                core.progress.now(Doing::Working);
                failpoint!("worker.read");
                // All are held before any waits for a slot.
                let mut deliveries = Vec::new();
                crowded.streams.clear();
                for (key, entries) in streams {
                    if let Some(source) = asked.iter().find(|s| s.holder.stream == key) {
                        if entries.len() == count {
                            crowded.streams.push(source.name.clone());
                        }
                        deliveries.extend(core.sort(source, entries, since).await);
                    }
                }
                core.progress.took(deliveries.len());
                core.start(deliveries).await;
            }
            Err(error) => core.answer_error(&mut failures, &error).await?,
        }
    }
    Ok(())
}

impl<H: Handler> Core<H> {
    /// Leave to read, as soon as there is any; `None` when reading has ended.
    async fn passage(&self) -> Option<Passage> {
        let gate = &self.breaker.gate;
        if gate.way() == Way::Shut {
            self.progress.now(Doing::Shut);
        }
        gate.passage().await
    }

    /// How many entries may be taken now; `None` when reading has ended.
    async fn wait_for_slots(&self) -> Option<usize> {
        loop {
            // Taking a permit and giving it back waits in line behind whoever needs a slot.
            let permit = tokio::select! {
                biased;
                () = self.stop.reading.cancelled() => return None,
                permit = self.slots.acquire() => permit.ok()?,
            };
            drop(permit);
            // Reads of a few entries cost as much as those of many: what is just ending may end
            // first. Nobody waits for what takes longer than this thread's turn.
            let mut free = 0;
            while self.slots.available_permits() > free && free < self.concurrency {
                free = self.slots.available_permits();
                let_others_run().await;
            }
            if free > 0 {
                // Half at a time: Redis reads the next while these are worked on.
                let half = self.concurrency.div_ceil(2);
                return Some(free.min(half));
            }
        }
    }

    /// Reads one delivery as a probe, from the first stream that has one.
    async fn probe(
        self: &Arc<Self>,
        reader: &mut Reader,
        consumer: &str,
        sources: &[Arc<Source>],
        passage: &Passage,
    ) -> Result<(), StoreError> {
        if let Some(probe) = self.take_probe().await? {
            for source in sources {
                let (me, stream) = (&*self.env.group, [source.holder.stream.as_str()]);
                while !passage.ends.is_cancelled() {
                    let since = Instant::now();
                    let read = reader.read(me, consumer, &stream, 1, false, &passage.ends);
                    let entries: Vec<_> = read.await?.into_iter().flat_map(|(_, e)| e).collect();
                    if entries.is_empty() {
                        break;
                    }
                    if let Some(fresh) = self.sort(source, entries, since).await.pop() {
                        let probe = Some(probe);
                        self.start(vec![Delivery { probe, ..fresh }]).await;
                        return Ok(());
                    }
                }
            }
        }
        // Others have all probes, or there is nothing to try.
        tokio::select! {
            () = passage.ends.cancelled() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        Ok(())
    }

    /// Sorts fresh entries: acknowledges those that name others, holds those that are for us.
    async fn sort(
        &self,
        source: &Arc<Source>,
        entries: Vec<Entry>,
        since: Instant,
    ) -> Vec<Delivery> {
        let mut ours = Vec::with_capacity(entries.len());
        for Entry { id, fields } in entries {
            let fence = Fence { id, count: 1 };
            if self.is_ours(source, id, &fields) {
                ours.push(self.hold(source, fence, fields, since));
            } else {
                self.skip(source, fence, false).await;
            }
        }
        ours
    }

    /// Acknowledges an entry that names others.
    pub(crate) async fn skip(&self, source: &Arc<Source>, fence: Fence, troubled: bool) {
        let ack = Ack {
            fence,
            troubled,
            guard: None,
            hop: None,
        };
        // Not sent, it stays pending and is skipped by whoever claims it.
        tokio::select! {
            () = source.ends.push_when_there_is_room(End::Ack(ack)) => {}
            () = self.stop.now.cancelled() => {}
        }
    }

    /// Whether the router routed this entry to us. What was routed before our group existed
    /// could not name us: there our own routes decide.
    pub(crate) fn is_ours(&self, source: &Arc<Source>, id: EntryId, fields: &Fields) -> bool {
        let me = &*self.env.subscriber;
        if source.holder.delete_settled {
            return true; // redrives have one addressee
        }
        let Some(to) = fields.text(StreamField::TO) else {
            return true; // not written by the router: it must end as a dead letter, not vanish
        };
        to.split(',').any(|name| name == me)
            || (id <= source.joined
                && fields
                    .text(StreamField::TYPE)
                    .is_some_and(|t| self.config.borrow().routing.is_for(me, t)))
    }

    async fn answer_error(
        &self,
        failures: &mut u32,
        error: &StoreError,
    ) -> Result<(), WorkerError> {
        *failures += 1;
        if error.redis().is_some_and(is_dataset_gone) {
            return self.answer_lost_group().await;
        }
        self.pause(*failures, error).await;
        Ok(())
    }

    async fn pause(&self, failures: u32, error: &StoreError) {
        tracing::warn!(%error, failures, "cannot read; trying again");
        self.progress.now(Doing::Degraded(error.to_string()));
        tokio::select! {
            () = self.stop.reading.cancelled() => {}
            () = tokio::time::sleep(RECONNECT.delay(failures)) => {}
        }
    }

    /// A group that Redis does not have: either the whole dataset is another (then this process
    /// must not go on), or only the group was lost (then the operator decides).
    async fn answer_lost_group(&self) -> Result<(), WorkerError> {
        let mut announced: Option<Instant> = None;
        self.progress.now(Doing::Halted);
        while !self.stop.reading.is_cancelled() {
            match self.look_for_groups().await {
                Ok(lost) if lost.is_empty() => return Ok(()),
                Ok(lost) if announced.is_none_or(|at| at.elapsed() > Duration::from_secs(30)) => {
                    announced = Some(Instant::now());
                    lost.iter().for_each(|group| {
                        tracing::error!("HALTED: {}", fleet::lost_group_advice(group))
                    });
                }
                Ok(_) => {}
                Err(WorkerError::Store(error)) => {
                    tracing::warn!(%error, "cannot look for the group")
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = self.stop.reading.cancelled() => {}
                () = tokio::time::sleep(LOST_GROUP_CHECK) => {}
            }
        }
        Ok(())
    }

    /// Whether routing.yaml sends something to the group on this stream.
    fn is_routed(&self, stream: &str) -> bool {
        self.wanted_groups()
            .iter()
            .any(|group| group.stream == stream)
    }

    /// Makes what was never made, as at the start; answers what was lost.
    async fn make_groups(&self) -> Result<Vec<WantedGroup>, StoreError> {
        fleet::ensure_groups(&self.link, &self.env.keys, &self.wanted_groups()).await
    }

    /// The groups of the subscriber. (Those of a rebuild are made by who rebuilds.)
    fn wanted_groups(&self) -> Vec<WantedGroup> {
        match self.env.is_rebuild() {
            true => Vec::new(),
            false => {
                let routing = &self.config.borrow().routing;
                fleet::wanted_groups(routing, Some(&self.env.subscriber))
            }
        }
    }

    /// The groups that are still lost; those that were retired are read no more. The dataset is
    /// checked first: in another one no group counts as lost.
    async fn look_for_groups(&self) -> Result<Vec<WantedGroup>, WorkerError> {
        let (link, keys) = (&self.link, &self.env.keys);
        if !fleet::check_dataset(link, keys, &self.dataset).await? {
            return Err(MembershipLost::DatasetChanged.into());
        }
        let mut lost = Vec::new();
        let sources = self.sources.borrow().clone();
        for source in sources.iter() {
            let group = WantedGroup {
                stream: source.name.to_string(),
                subscriber: self.env.group.to_string(),
                start: "$".to_owned(),
                lease_ms: source.lease.as_millis() as u64,
            };
            match fleet::ensure_group(link, keys, &group, Ensure::Look).await? {
                GroupState::Lost => lost.push(group),
                // Redis has gone back to before it was made.
                GroupState::Retired if self.is_routed(&source.name) => {
                    let more = self.make_groups().await?;
                    lost.extend(
                        more.into_iter()
                            .filter(|group| group.stream == *source.name),
                    );
                }
                GroupState::Retired => {
                    tracing::warn!(
                        stream = &*source.name,
                        "the group was retired: reading it no more"
                    );
                    let retired = &source.name;
                    self.sources.send_modify(|all| {
                        let rest = all.iter().filter(|s| s.name != *retired).cloned();
                        *all = Arc::new(rest.collect());
                    });
                }
                GroupState::Exists | GroupState::Created => {}
            }
        }
        Ok(lost)
    }
}
