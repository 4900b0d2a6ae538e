//! How a worker takes new configurations over.
//!
//! Redis: the groups of the new configuration, and in `fleet` its generation and what is known of groups.
//! Guarantee: nothing of a configuration is in force before the groups exist that it asks for; what keeps it
//! from that holds up neither the one that is in force nor the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::core::{Core, Source};
use super::handler::Handler;
use super::settle::Settlers;
use crate::fleet::{self, Identity, WantedGroup};
use crate::retry::RECONNECT;
use crate::routing::{Config, SubscriberSettings};
use crate::store::{Keys, Link, StoreError, refuses_key};

/// The streams to read: those of our routes, and those on which a group of ours still owes
/// something because routing.yaml named them once.
pub(super) async fn load_sources(
    link: &Link,
    keys: &Keys,
    wanted: &[WantedGroup],
    own_lease: Duration,
    identity: &Identity,
    settlers: &Settlers,
) -> Result<Vec<Arc<Source>>, StoreError> {
    let records = fleet::group_records(link, keys).await?;
    let mut names: Vec<String> = wanted.iter().map(|w| w.stream.clone()).collect();
    let mut earlier: Vec<_> = records
        .keys()
        .filter(|(stream, subscriber)| {
            *subscriber == identity.subscriber && !names.contains(stream)
        })
        .map(|(stream, _)| stream.clone())
        .collect();
    earlier.sort();
    names.extend(earlier);
    Ok(names
        .into_iter()
        .map(|name| {
            let record = records.get(&(name.clone(), identity.subscriber.clone()));
            let known = record.map_or(Duration::ZERO, |r| Duration::from_millis(r.lease_ms));
            let (me, consumer) = (&identity.subscriber, identity.consumer());
            let holder = Arc::new(fleet::holder(keys, &name, me, &consumer));
            Arc::new(Source {
                ends: settlers.ends(&holder),
                holder,
                lease: own_lease.max(known),
                joined: record.map(|r| r.joined).unwrap_or_default(),
                name: name.into(),
            })
        })
        .collect())
}

/// Takes new configurations over: groups first, so that nothing is routed to a group that does
/// not exist, then streams and settings. Concurrency and lease stay as they were at the start.
pub(super) async fn reload<H: Handler>(
    core: Arc<Core<H>>,
    mut config: watch::Receiver<Arc<Config>>,
    in_force: watch::Sender<Arc<Config>>,
    settings: watch::Sender<Arc<SubscriberSettings>>,
) {
    while config.changed().await.is_ok() {
        let new = config.borrow_and_update().clone();
        if new.fingerprint() == in_force.borrow().fingerprint() {
            continue; // the file has been put back
        }
        let (mut failures, mut told) = (0, None);
        let prepared = loop {
            let prepared = core.prepare(&new).await;
            // What the file does not say any more is neither taken nor told.
            if config.has_changed().unwrap_or(false) {
                break None;
            }
            let error = match prepared {
                Ok(prepared) => break Some(prepared),
                Err(error) => error,
            };
            failures += 1;
            if error.redis().is_some_and(refuses_key) {
                fleet::refused_by_redis(&mut told, &error);
            } else {
                tracing::warn!(%error, failures, "cannot take the new routing.yaml over; trying again");
            }
            tokio::time::sleep(RECONNECT.delay(failures)).await;
        };
        let Some((loaded, generation)) = prepared else {
            continue; // there is another one
        };
        core.warn_of(&new);
        tracing::info!(
            generation,
            streams = loaded.len(),
            "the new routing.yaml is in force"
        );
        core.tracer.set(new.routing.trace());
        core.sources.send_replace(Arc::new(loaded));
        if let Some(mine) = new.routing.served(&core.env.subscriber) {
            settings.send_replace(Arc::new(mine.clone()));
        }
        in_force.send_replace(new.clone());
        fleet::in_force(&new, generation);
    }
}

impl<H: Handler> Core<H> {
    /// Makes in Redis what a configuration needs. Answers the streams to read, and its generation.
    async fn prepare(&self, new: &Config) -> Result<(Vec<Arc<Source>>, u64), StoreError> {
        let (link, keys) = (&self.link, &self.env.keys);
        let wanted = fleet::wanted_groups(&new.routing, Some(&self.env.subscriber));
        // A lost group is answered by the fetcher.
        fleet::ensure_groups(link, keys, &wanted).await?;
        let (me, settlers) = (&self.identity, &self.settlers);
        let loaded = load_sources(link, keys, &wanted, self.lease, me, settlers).await?;
        Ok((loaded, fleet::join(link, keys, new).await?.generation))
    }

    fn warn_of(&self, new: &Config) {
        let me = &self.env.subscriber;
        if new.routing.subscriber(me).is_none() {
            tracing::warn!(
                "the new routing.yaml routes nothing to this subscriber: finishing what it still owes"
            );
        }
        if let Some(mine) = new.routing.served(me)
            && (mine.concurrency, mine.lease) != (self.concurrency, self.lease)
        {
            tracing::warn!(
                "a changed concurrency or lease takes effect when this process is restarted"
            );
        }
    }
}
