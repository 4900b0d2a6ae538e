//! The part of a router's page that is of the whole fleet: what `status` tells, read from Redis when
//! somebody asks, and not again within [`FRESH`]. Every router tells the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use crate::fleet::ROUTER;
use crate::fleet::control::BreakerState;
use crate::metrics::{Labels, Page};
use crate::routing::Config;
use crate::status::{self, Condition, GroupStatus, Snapshot, SubscriberStatus};
use crate::store::{Keys, Link};

/// For so long a read is as good as another one.
const FRESH: Duration = Duration::from_secs(5);

pub(super) struct FleetPage {
    link: Link,
    keys: Keys,
    config: watch::Receiver<Arc<Config>>,
    /// Held while it is read: who asks meanwhile gets the same. Nothing if Redis could not be read.
    last: Mutex<Option<(Instant, Option<Snapshot>)>>,
}

impl FleetPage {
    pub(super) fn new(link: Link, keys: Keys, config: watch::Receiver<Arc<Config>>) -> Self {
        Self {
            link,
            keys,
            config,
            last: Mutex::default(),
        }
    }

    /// Adds it, or that it could not be read.
    pub(super) async fn add_to(&self, page: &mut Page) {
        let mut last = self.last.lock().await;
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() >= FRESH) {
            *last = Some((Instant::now(), self.read().await));
        }
        let snapshot = last.as_ref().and_then(|(_, snapshot)| snapshot.as_ref());
        page.gauge(
            "fleet_up",
            "Whether Redis could be read for the metrics of the fleet.",
            &[],
            flag(snapshot.is_some()),
        );
        if let Some(snapshot) = snapshot {
            show(page, snapshot);
        }
    }

    async fn read(&self) -> Option<Snapshot> {
        let config = self.config.borrow().clone();
        let read = status::collect(&self.link, &self.keys, &config.routing);
        match timeout(PATIENCE, read).await {
            Ok(Ok(snapshot)) => Some(snapshot),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot read the metrics of the fleet");
                None
            }
            Err(_) => {
                tracing::debug!("the metrics of the fleet took too long");
                None
            }
        }
    }
}

fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn seconds(ms: Option<u64>) -> f64 {
    ms.unwrap_or(0) as f64 / 1_000.0
}

fn show(page: &mut Page, snapshot: &Snapshot) {
    let router = &snapshot.router;
    for (outcome, count) in [
        ("routed", router.routed),
        ("refused", router.refused),
        ("duplicate", router.duplicates),
    ] {
        page.counter(
            "router_events",
            "Events that the routers of the fleet took from the inbox, by what became of them.",
            &[("outcome", outcome)],
            count,
        );
    }
    page.gauge(
        "inbox_entries",
        "Events in the inbox that are not routed yet.",
        &[],
        router.inbox as f64,
    );
    page.seconds(
        "inbox_oldest_age",
        "Age of the oldest of them; 0 if there is none.",
        &[],
        seconds(router.oldest_ms),
    );
    page.gauge(
        "scheduled_events",
        "Events that are accepted and to be delivered later.",
        &[],
        router.scheduled as f64,
    );
    page.gauge(
        "fleet_config_generation",
        "Highest number of a configuration that any process ever ran.",
        &[],
        snapshot.generation.unwrap_or(0) as f64,
    );
    for stream in &snapshot.streams {
        page.gauge(
            "stream_entries",
            "Entries that a domain stream keeps.",
            &[("stream", &stream.name)],
            stream.length as f64,
        );
    }
    for (entity, size) in &snapshot.event_store {
        for (name, help, value) in [
            (
                "store_entities",
                "Histories in the event store.",
                size.entities,
            ),
            ("store_events", "Events in the event store.", size.events),
            (
                "store_event_bytes",
                "Bytes of types and data of the events in the event store.",
                size.bytes,
            ),
        ] {
            page.gauge(name, help, &[("entity", entity)], value as f64);
        }
    }
    for group in snapshot.groups.iter().filter(|g| g.subscriber != ROUTER) {
        // What a rebuild has yet to read is owed to nobody, and others' groups are theirs.
        if !matches!(group.condition, Condition::Shadow | Condition::Foreign) {
            show_group(page, group);
        }
    }
    let labels: Labels<'_> = &[("subscriber", ROUTER)];
    in_dead(page, labels, router.dead);
    alive(page, labels, router.workers.len());
    for subscriber in &snapshot.subscribers {
        show_subscriber(page, subscriber);
    }
}

fn show_group(page: &mut Page, group: &GroupStatus) {
    let labels = [
        ("subscriber", group.subscriber.as_str()),
        ("stream", group.stream.as_str()),
    ];
    // Nothing where Redis cannot tell: a number would be a guess.
    if let Some(waiting) = group.waiting {
        page.gauge(
            "backlog_entries",
            "Entries of a stream that a subscriber has not read yet; missing where Redis cannot tell.",
            &labels,
            waiting as f64,
        );
    }
    page.seconds(
        "backlog_oldest_age",
        "Age of the oldest of them; 0 if there is none.",
        &labels,
        seconds(group.oldest_waiting_ms),
    );
    for (state, count) in [
        ("in_flight", group.in_flight),
        ("retrying", group.retrying),
        ("released", group.released),
    ] {
        let [subscriber, stream] = labels;
        page.gauge(
            "pending_deliveries",
            "Deliveries that were read and not settled, by where they are.",
            &[subscriber, stream, ("state", state)],
            count as f64,
        );
    }
    page.gauge(
        "group_lost",
        "Whether a group that existed is gone: nothing is read for it until it is recreated.",
        &labels,
        flag(group.condition == Condition::Lost),
    );
}

fn show_subscriber(page: &mut Page, subscriber: &SubscriberStatus) {
    let name = subscriber.name.as_str();
    let labels: Labels<'_> = &[("subscriber", name)];
    in_dead(page, labels, subscriber.dead);
    alive(page, labels, subscriber.workers.len());
    page.gauge(
        "subscribed",
        "Whether routing.yaml routes anything to a subscriber.",
        labels,
        flag(subscriber.routed),
    );
    page.counter(
        "lost_deliveries",
        "Deliveries whose entry was deleted from its stream before they were settled.",
        labels,
        subscriber.lost,
    );
    page.gauge(
        "paused",
        "Whether a subscriber is paused.",
        labels,
        flag(subscriber.control.paused.is_some()),
    );
    for (state, is) in [
        ("closed", BreakerState::Closed),
        ("open", BreakerState::Open),
        ("half_open", BreakerState::HalfOpen),
    ] {
        page.gauge(
            "breaker_state",
            "Whether the circuit breaker of a subscriber is in this state.",
            &[("subscriber", name), ("state", state)],
            flag(subscriber.control.breaker.state == is),
        );
    }
    for (to, count) in [("open", subscriber.opened), ("closed", subscriber.closed)] {
        page.counter(
            "breaker_changes",
            "Times that the circuit breaker of a subscriber opened, and closed again.",
            &[("subscriber", name), ("to", to)],
            count,
        );
    }
}

fn in_dead(page: &mut Page, labels: Labels<'_>, letters: u64) {
    page.gauge(
        "dead_letters_kept",
        "Dead letters of a subscriber that nobody has redriven or discarded; of the router, refused events.",
        labels,
        letters as f64,
    );
}

fn alive(page: &mut Page, labels: Labels<'_>, workers: usize) {
    page.gauge(
        "live_workers",
        "Live processes of a subscriber, or routers.",
        labels,
        workers as f64,
    );
}
