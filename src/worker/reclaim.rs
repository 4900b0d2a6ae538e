//! Reclaiming with XAUTOCLAIM: brings back retries that are due and deliveries whose worker
//! gave no sign of life for a lease, whoever's they were.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::time::Instant;

use super::breaker::{Probe, Way};
use super::core::{Core, Source};
use super::delivery::{AttemptLog, Delivery};
use super::handler::Handler;
use crate::failpoint::failpoint;
use crate::fleet::{self, ServerClock};
use crate::progress::{Beat, PATIENCE};
use crate::store::{Claimed, Scope, StoreError};

/// How soon a delivery is found that another process parked, released or died with. Own
/// retries are found when they are due.
const LOOK: Duration = Duration::from_secs(1);
/// Most deliveries per call: one call must not hold Redis up.
const LIMIT: usize = 128;

/// After an outage every lease looks expired, because nobody could renew. For a third of the
/// lease nothing is reclaimed but what no living worker runs, so that the living renew first.
struct Grace {
    /// The connection on which time has passed undisturbed.
    epoch: u64,
    until: Instant,
    /// What the server's clock said, and when; unknown until it has answered once.
    clock: Option<(u64, Instant)>,
    /// The same, whatever came between.
    server: ServerClock,
    /// Whether idle times may be spoilt because that clock was set back.
    set_back: bool,
}

impl Grace {
    /// What may be claimed by a request that is sent now.
    fn scope(&self, lease: Duration) -> Scope {
        match self.clock {
            Some((server_ms, at)) if Instant::now() >= self.until => {
                let patience = (lease / 6).max(MIN_PATIENCE);
                Scope::AllBefore(server_ms + (at.elapsed() + patience).as_millis() as u64)
            }
            _ => Scope::Parked,
        }
    }

    /// An outage came between: from here on time passes on this connection.
    fn restart(&mut self, epoch: u64, lease: Duration) {
        self.epoch = epoch;
        self.until = Instant::now() + lease / 3;
        self.clock = None;
    }

    /// The server's clock is ahead of what has passed: it was frozen, or its clock was set. In
    /// the latter case the living notice nothing and renew as ever, within half a lease.
    fn restart_late(&mut self, lease: Duration) {
        self.until = Instant::now() + lease * 2 / 3;
    }
}

/// A look passes everything that is pending and not due. One that took longer than this has a pause
/// after it, so that thousands of waiting retries do not keep Redis busy with being looked at.
const LONG_LOOK: Duration = Duration::from_millis(2);
/// How much longer than the look that pause is.
const REST: u32 = 9;

/// Requests that the server runs later than this are as if it had been away.
const MIN_PATIENCE: Duration = Duration::from_millis(100);

/// Reclaims until told to stop. `after_outage`: Redis itself has just come back.
pub(crate) async fn run<H: Handler>(core: Arc<Core<H>>, after_outage: bool) {
    let mut grace = Grace {
        epoch: core.link.epoch(),
        until: Instant::now(),
        clock: None,
        server: ServerClock::default(),
        set_back: false,
    };
    if after_outage {
        grace.until += core.lease / 3;
    }
    let beat = core.progress.of("reclaiming", PATIENCE);
    loop {
        beat.touch();
        let way = core.breaker.gate.way();
        core.reclaim_all(&mut grace, &beat).await;
        if grace.set_back {
            beat.rest(); // there may be much to look over
            if core.restart_idle().await {
                grace.set_back = false;
                continue;
            }
            beat.touch();
        }
        tokio::select! {
            () = core.stop.reading.cancelled() => return,
            () = core.breaker.gate.changed(way) => {}
            () = core.due.wait(Instant::now() + LOOK) => {}
        }
    }
}

fn is_of_one_stream(error: &StoreError) -> bool {
    let code = error.redis().and_then(RedisError::code);
    matches!(code, Some("NOGROUP" | "WRONGTYPE"))
}

impl<H: Handler> Core<H> {
    /// Claims what is due on all streams in turn, until there is nothing more; while the circuit
    /// breaker is half-open, one delivery for each probe.
    async fn reclaim_all(self: &Arc<Self>, grace: &mut Grace, beat: &Beat) {
        let sources = self.sources.borrow().clone();
        let mut probe = None;
        let mut found = true;
        while found {
            found = false;
            let mut longest = Duration::ZERO;
            for source in sources.iter() {
                // A slot first: a claim without one would start its lease for nothing, and a probe would
                // be kept from others.
                beat.rest();
                tokio::select! {
                    biased;
                    () = self.stop.reading.cancelled() => return,
                    slot = self.slots.acquire() => drop(slot),
                }
                beat.touch();
                match self.breaker.gate.way() {
                    Way::Free => probe = None,
                    Way::Shut => return,
                    Way::Probing if probe.is_some() => {}
                    Way::Probing => match self.take_probe().await {
                        Ok(Some(taken)) => probe = Some(taken),
                        Ok(None) => return,
                        Err(error) => {
                            tracing::warn!(%error, "cannot take a probe; trying again");
                            return;
                        }
                    },
                }
                let looked = self
                    .reclaim(source, &mut probe, grace, &mut longest, beat)
                    .await;
                beat.touch();
                match looked {
                    Ok(Some(more)) => found |= more,
                    Ok(None) => {
                        grace.restart(self.link.epoch(), self.lease);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, stream = &*source.name, "cannot reclaim; trying again");
                        // The other streams may be well; but a server that refuses us (BUSY,
                        // LOADING, NOPERM) refuses the living their renewals.
                        if !is_of_one_stream(&error) {
                            grace.restart(self.link.epoch(), self.lease);
                            return;
                        }
                    }
                }
            }
            if longest > LONG_LOOK {
                tokio::select! {
                    () = self.stop.reading.cancelled() => return,
                    () = tokio::time::sleep((longest * REST).min(LOOK)) => {}
                }
            }
        }
    }

    /// Mends the idle times on all streams after the server's clock was set back. Answers whether
    /// it could.
    async fn restart_idle(&self) -> bool {
        let sources = self.sources.borrow().clone();
        let mut all = true;
        for source in sources.iter() {
            match fleet::restart_idle(&self.link, &source.holder, source.lease).await {
                Ok(()) => {}
                // A lost group is announced where it is read; nothing of it is pending. A key of
                // the wrong type is announced with every round: others are not looked over again
                // and again for its sake.
                Err(error) if is_of_one_stream(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, stream = &*source.name,
                        "cannot look for idle times from before the clock was set back; trying again");
                    all = false;
                }
            }
        }
        all
    }

    /// Claims what is due on one stream, as much as there are slots for, or one with a probe. Answers whether there
    /// was anything; `None` if an outage came between.
    async fn reclaim(
        self: &Arc<Self>,
        source: &Arc<Source>,
        probe: &mut Option<Probe>,
        grace: &mut Grace,
        longest: &mut Duration,
        beat: &Beat,
    ) -> Result<Option<bool>, StoreError> {
        // While it waited for a probe there may have come an end to it.
        let free = match (self.breaker.gate.way(), &probe) {
            (Way::Free, _) => self.slots.available_permits().clamp(1, LIMIT),
            (Way::Probing, Some(_)) => 1,
            _ => return Ok(Some(false)),
        };
        let scope = grace.scope(self.lease);
        let lease = source.lease.as_millis() as u64;
        let (holder, since) = (source.holder.clone(), Instant::now());
        let exchange = |mut c| async move { holder.reclaim(&mut c, scope, lease, free).await };
        let Some(reclaimed) = self.link.run_on(grace.epoch, exchange).await? else {
            return Ok(None);
        };
        // One that brought all there was room for was worth its time.
        if reclaimed.claimed.len() < free {
            *longest = since.elapsed().max(*longest);
        }
        grace.clock = Some((reclaimed.server_ms, Instant::now()));
        grace.set_back |= grace.server.may_be_set_back(since, reclaimed.server_ms);
        if reclaimed.late {
            grace.restart_late(self.lease);
            return Ok(Some(false));
        }
        for id in &reclaimed.lost {
            tracing::error!(
                stream = &*source.name,
                entry = id,
                "LOST: the entry was deleted from its stream while it was pending"
            );
        }
        let found = reclaimed.found_any();
        if found {
            failpoint!("worker.reclaimed");
        }
        beat.rest(); // what was found waits for slots, as long as handlers take
        let mut deliveries = Vec::with_capacity(reclaimed.claimed.len());
        for Claimed {
            fence,
            fields,
            starts,
            log,
        } in reclaimed.claimed
        {
            if self.is_ours(source, fence.id, &fields) {
                let log = AttemptLog::parse(log.as_bytes());
                let held = self.hold(source, fence, fields, since);
                deliveries.push(Delivery {
                    starts,
                    log,
                    troubled: true, // reclaiming leaves a record
                    probe: probe.take(),
                    ..held
                });
            } else {
                self.skip(source, fence, true).await;
            }
        }
        self.start(deliveries).await;
        Ok(Some(found))
    }
}
