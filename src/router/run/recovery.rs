//! What a router does about entries that were read and not routed: its own after a fault, and those of
//! routers that died.
//!
//! Redis: XAUTOCLAIM on the inbox, and the groups of the configuration in force.
//! Guarantee: what was read comes before what is unread, unless that takes longer than a lease.

use tokio::time::Instant;

use super::Router;
use crate::failpoint::failpoint;
use crate::fleet;
use crate::router::LEASE;
use crate::router::batch::bytes_of;
use crate::routing::Config;
use crate::store::{Scope, StoreError, refuses_key};

impl Router {
    /// After a fault: what this router holds is older than anything unread, so it comes first.
    /// (A read whose answer was lost has handed entries to it that it does not know of.)
    pub(super) async fn recover(&mut self) -> Result<(), StoreError> {
        // Redis may have gone back to before a group was made: nothing is routed to who has none.
        if let Some(error) = self.make_groups(&self.active).await? {
            tracing::error!(%error, "HALTED for this stream, or for more: repair or rename the key, or grant the right");
        }
        let (inbox, limit) = (self.inbox.clone(), self.count.get());
        loop {
            self.beat.touch();
            let holder = &inbox;
            let moved = self.link.run(|mut c| async move {
                holder.take_over(&mut c, &holder.consumer, limit).await
            });
            if moved.await? < limit || self.stop.is_cancelled() {
                break;
            }
        }
        // Not for ever: what is set aside comes back meanwhile, and the rest is owed as well.
        let until = Instant::now() + LEASE;
        while self.reclaim().await? && !self.stop.is_cancelled() && Instant::now() < until {}
        Ok(())
    }

    /// Brings back what a dead router had read. Answers whether there was anything.
    pub(super) async fn reclaim(&mut self) -> Result<bool, StoreError> {
        let (inbox, limit) = (self.inbox.clone(), self.count.get());
        let (lease, asked) = (LEASE.as_millis() as u64, Instant::now());
        let reclaimed = self
            .link
            .run(|mut c| async move { inbox.reclaim(&mut c, Scope::All, lease, limit).await })
            .await?;
        let clock = &mut self.server_clock;
        let before = *clock;
        self.beat.rest(); // there may be much to look over
        if clock.may_be_set_back(asked, reclaimed.server_ms)
            && let Err(error) = fleet::restart_idle(&self.link, &self.inbox, LEASE).await
        {
            tracing::warn!(%error, "cannot look for idle times from before the clock was set back; trying again");
            self.server_clock = before;
        }
        self.beat.touch();
        for id in reclaimed.lost {
            tracing::error!(
                entry = id,
                "LOST: the entry was deleted from the inbox while it was pending"
            );
        }
        let claimed = reclaimed.claimed.into_iter().map(|c| (c.fence, c.fields));
        let entries: Vec<_> = claimed.collect();
        let bytes = entries.iter().map(|(_, fields)| bytes_of(fields)).sum();
        self.count.learn(entries.len(), bytes);
        let found = !entries.is_empty();
        if found {
            failpoint!("router.reclaimed");
            tracing::info!(
                entries = entries.len(),
                "routing what was read and not routed"
            );
        }
        self.route(entries, None).await?;
        self.finish_sending(0).await?;
        Ok(found)
    }

    /// Makes the groups of a configuration that are not there, and says which were lost. Answers the first that
    /// its key alone stands against; the others are made all the same.
    pub(super) async fn make_groups(
        &self,
        config: &Config,
    ) -> Result<Option<StoreError>, StoreError> {
        let mut refused = None;
        for group in fleet::wanted_groups(&config.routing, None) {
            self.beat.touch();
            match fleet::ensure_groups(&self.link, &self.keys, &[group]).await {
                Ok(lost) => super::announce_lost(&lost),
                Err(error) if error.redis().is_some_and(refuses_key) => {
                    refused = refused.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }
}
