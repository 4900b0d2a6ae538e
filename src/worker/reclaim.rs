//! Reclaiming (XPENDING … IDLE, then XCLAIM): brings back retries that are due and deliveries whose worker
//! gave no sign of life for a lease, whoever's they were.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::{Core, Source};
use super::delivery::{AttemptLog, Delivery};
use super::handler::Handler;
use crate::store::{Claimed, StoreError};

/// How soon a delivery is found that another process parked, released or died with. Own
/// retries are found when they are due.
const LOOK: Duration = Duration::from_secs(1);
/// Most deliveries per call: one call must not hold Redis up.
const LIMIT: usize = 128;

/// Reclaims until told to stop.
pub(crate) async fn run<H: Handler>(core: Arc<Core<H>>) {
    let mut epoch = core.link.epoch();
    let mut not_before = Instant::now();
    loop {
        let now = Instant::now();
        if core.link.epoch() != epoch {
            // After an outage everybody's leases look expired: give their owners time to renew.
            epoch = core.link.epoch();
            not_before = now + core.settings.borrow().lease / 3;
        }
        if now >= not_before {
            let sources = core.sources.borrow().clone();
            for source in sources.iter() {
                if let Err(error) = core.reclaim(source).await {
                    tracing::warn!(%error, stream = &*source.name, "cannot reclaim; trying again");
                    break;
                }
            }
        }
        let pause = core.throttle.paused_until().unwrap_or(now);
        tokio::select! {
            () = core.stop.reading.cancelled() => return,
            () = core.due.wait((Instant::now() + LOOK).max(pause).max(not_before)) => {}
        }
    }
}

impl<H: Handler> Core<H> {
    /// Claims what is due on one stream, as much as there are slots for.
    async fn reclaim(self: &Arc<Self>, source: &Source) -> Result<(), StoreError> {
        while !self.stop.reading.is_cancelled() && self.throttle.paused_until().is_none() {
            // A slot first: a claim without one would start its lease for nothing.
            tokio::select! {
                biased;
                () = self.stop.reading.cancelled() => return Ok(()),
                slot = self.slots.acquire() => drop(slot),
            }
            let free = self
                .throttle
                .allowance(self.slots.available_permits().clamp(1, LIMIT));
            let lease = source.lease.as_millis() as u64;
            let holder = source.holder.clone();
            let (claimed, lost) = self
                .link
                .run(|mut c| async move { holder.reclaim(&mut c, lease, free).await })
                .await?;
            for id in &lost {
                tracing::error!(
                    stream = &*source.name,
                    entry = id,
                    "LOST: the entry was deleted from its stream while it was pending"
                );
            }
            if claimed.is_empty() && lost.is_empty() {
                return Ok(());
            }
            let mut deliveries = Vec::with_capacity(claimed.len());
            for Claimed {
                fence,
                fields,
                starts,
                log,
            } in claimed
            {
                if self.is_ours(source, fence.id, &fields) {
                    let log = AttemptLog::parse(log.as_bytes());
                    let held = self.hold(source, fence, fields);
                    let troubled = starts.is_some() || !log.0.is_empty();
                    deliveries.push(Delivery {
                        starts,
                        log,
                        troubled,
                        ..held
                    });
                } else {
                    self.skip(source, fence, true).await;
                }
            }
            self.start(deliveries).await;
        }
        Ok(())
    }
}
