//! How a worker takes new configurations over.
//!
//! Redis: the groups of the new configuration, and in `fleet` its generation and what is known of groups.
//! Guarantee: nothing of a configuration is in force before the groups exist that it asks for; what keeps it
//! from that holds up neither the one that is in force nor the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::core::{Core, Source};
use super::handler::Handler;
use super::settle::Settlers;
use crate::fleet::{self, Identity, Outcome, WantedGroup};
use crate::routing::{Config, SubscriberSettings};
use crate::store::{Keys, Link, StoreError, refuses_key, retry_until};

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
    settings: watch::Sender<Arc<SubscriberSettings>>,
) {
    while config.changed().await.is_ok() {
        let new = config.borrow_and_update().clone();
        core.tracer.set(new.routing.trace());
        let me = &core.env.subscriber;
        let mine = new.routing.served(me).cloned().map(Arc::new);
        let wanted = fleet::wanted_groups(&new.routing, Some(me));
        if wanted.is_empty() {
            tracing::warn!(
                "the new routing.yaml routes nothing to this subscriber: finishing what it still owes"
            );
        }
        if let Some(mine) = &mine
            && (mine.concurrency, mine.lease) != (core.concurrency, core.lease)
        {
            tracing::warn!(
                "a changed concurrency or lease takes effect when this process is restarted"
            );
        }
        let (link, keys) = (&core.link, &core.env.keys);
        let told = AtomicBool::new(false);
        let prepare = |_| async {
            fleet::ensure_groups(link, keys, &wanted)
                .await
                .inspect_err(|error| refuse_once(&told, error))?;
            let (me, settlers) = (&core.identity, &core.settlers);
            let loaded = load_sources(link, keys, &wanted, core.lease, me, settlers).await?;
            Ok((loaded, fleet::join(link, keys, &new).await?.generation))
        };
        let overtaken = || config.has_changed().unwrap_or(true);
        let give_up = |_: &StoreError| core.stop.reading.is_cancelled() || overtaken();
        match retry_until(None, give_up, prepare).await {
            Ok((loaded, generation)) => {
                tracing::info!(
                    generation,
                    streams = loaded.len(),
                    "the new routing.yaml is in force"
                );
                core.sources.send_replace(Arc::new(loaded));
                if let Some(mine) = mine {
                    settings.send_replace(mine);
                }
                fleet::in_force(&new, generation);
            }
            Err(error) => {
                tracing::warn!(%error, "the new routing.yaml did not take effect before the end, or before the next")
            }
        }
    }
}

/// Tells what stands against a configuration; it is tried all the same until there is another.
fn refuse_once(told: &AtomicBool, error: &StoreError) {
    if error.redis().is_some_and(refuses_key) && !told.swap(true, Ordering::Relaxed) {
        tracing::error!(
            "REFUSED, the running configuration stays: {error}; once that is repaired it is taken"
        );
        fleet::reloaded(Outcome::Refused(error.to_string()));
    }
}
