//! The compiled routing table: what is asked for every event, read-only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::check::Checked;
use super::duration::Span;
use super::model::{BreakerModel, HealthModel, Model, SettingsModel};
use super::redact::Redact;
use crate::event_type::EventType;
use crate::retry::Backoff;
use crate::schemas::SchemaSet;

/// The compiled routing table.
#[derive(Debug)]
pub struct Routing {
    namespace: Option<String>,
    dedupe_window: Duration,
    dead_retention: Duration,
    trace: Option<Duration>,
    limits: Limits,
    audit: Option<AuditSettings>,
    redact: Redact,
    streams: Vec<StreamSettings>,
    subscribers: BTreeMap<Arc<str>, SubscriberSettings>,
    retired: BTreeMap<Arc<str>, SubscriberSettings>,
    streams_of: HashMap<Arc<str>, Vec<Arc<str>>>,
    routes: HashMap<EventType, Route>,
}

/// What a single event may measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest event, in bytes of JSON.
    pub event_bytes: usize,
    /// How deep its JSON may nest.
    pub depth: usize,
}

/// How much of the audit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// How many records; all if absent.
    pub maxlen: Option<u64>,
    /// How long; for ever if absent.
    pub retention: Option<Duration>,
}

/// A domain stream and how much history it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name: the Redis key without the namespace.
    pub name: Arc<str>,
    /// How many entries are kept; all if absent.
    pub maxlen: Option<u64>,
    /// How long entries are kept; for ever if absent.
    pub retention: Option<Duration>,
}

/// Where events of one type go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The domain stream that keeps them.
    pub stream: Arc<str>,
    /// The subscribers that receive them, each once, in the order of the file.
    pub to: Vec<Arc<str>>,
    /// The same, separated by commas: what is stamped on entries. Empty if nobody receives them.
    pub to_joined: Arc<str>,
}

/// How one subscriber works.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriberSettings {
    /// Its name: the name of its consumer group.
    pub name: Arc<str>,
    /// How many attempts an event gets before it is dead-lettered.
    pub max_attempts: u32,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// How many events one worker handles at a time.
    pub concurrency: usize,
    /// How long one handler call may take; may exceed the lease, which is renewed.
    pub timeout: Duration,
    /// How long a delivery may go without a sign of life before another worker claims it.
    pub lease: Duration,
    /// When all its workers stop reading because what it depends on is down.
    pub breaker: BreakerSettings,
    /// When it counts as not well.
    pub health: HealthSettings,
    /// Where its group starts when it is first created.
    pub start: Start,
    /// The binary that serves it.
    pub worker: String,
}

/// When the circuit breaker of a subscriber opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// It opens when so many deliveries in a row, in one worker, found something unavailable.
    pub consecutive: u32,
    /// It opens when this share of the deliveries of a worker failed within the window; not looked
    /// at if absent.
    pub failure_rate: Option<f64>,
    /// How far back the failure rate looks.
    pub window: Duration,
    /// With fewer deliveries in the window there is no failure rate.
    pub min_outcomes: u32,
    /// How long it stays open at first.
    pub open: Duration,
    /// It never stays open for longer.
    pub max_open: Duration,
    /// How many deliveries try whether it can be closed, and must find that.
    pub probes: u32,
}

/// When a subscriber counts as not well, so that a router publishes System.Health.CheckFailed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Whether it is looked at.
    pub enabled: bool,
    /// How long it may be without a live worker.
    pub no_worker: Duration,
    /// How long the oldest event that it has not read may have waited.
    pub behind: Duration,
    /// While it does not recover, it is published again after this time.
    pub again: Duration,
}

impl BreakerSettings {
    /// How long it stays open the `opened`-th time in a row (counted from 1).
    pub fn open_for(&self, opened: u32) -> Duration {
        let doubled = 1_u32.checked_shl(opened.saturating_sub(1));
        let longer = doubled.map_or(self.max_open, |times| self.open.saturating_mul(times));
        longer.min(self.max_open)
    }
}

/// Where a new group starts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what arrives from now on.
    New,
    /// With the oldest entry that is kept.
    Beginning,
    /// With the first entry that was appended at or after this time.
    At(Timestamp),
}

impl Routing {
    /// The prefix of every key, without the colon.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// How long an event ID is remembered to drop duplicates.
    pub fn dedupe_window(&self) -> Duration {
        self.dedupe_window
    }

    /// How long dead letters are kept.
    pub fn dead_retention(&self) -> Duration {
        self.dead_retention
    }

    /// How long a trace is kept after its last hop; none are if absent.
    pub fn trace(&self) -> Option<Duration> {
        self.trace
    }

    /// What a single event may measure.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How much of the audit is kept; nothing if there is to be none.
    pub fn audit(&self) -> Option<AuditSettings> {
        self.audit
    }

    /// What of events is not shown.
    pub fn redact(&self) -> &Redact {
        &self.redact
    }

    /// The domain streams, in the order of the file.
    pub fn streams(&self) -> impl Iterator<Item = &StreamSettings> {
        self.streams.iter()
    }

    /// Everyone named in routes, sorted by name.
    pub fn subscribers(&self) -> impl Iterator<Item = &SubscriberSettings> {
        self.subscribers.values()
    }

    /// The settings of a subscriber that is named in routes.
    pub fn subscriber(&self, name: &str) -> Option<&SubscriberSettings> {
        self.subscribers.get(name)
    }

    /// Everyone that is to get nothing new and to settle what it still owes, sorted by name.
    pub fn retired(&self) -> impl Iterator<Item = &SubscriberSettings> {
        self.retired.values()
    }

    /// The settings of a subscriber that may have workers: it is named in routes, or retired.
    pub fn served(&self, name: &str) -> Option<&SubscriberSettings> {
        self.subscriber(name).or_else(|| self.retired.get(name))
    }

    /// The domain streams that carry a known type routed to the subscriber, in the order of the
    /// file; none for an unknown subscriber.
    pub fn streams_of(&self, subscriber: &str) -> &[Arc<str>] {
        self.streams_of
            .get(subscriber)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Where events of this type go; nothing if no schema or no stream knows the type.
    pub fn route(&self, event_type: &str) -> Option<&Route> {
        self.routes.get(event_type)
    }

    /// The types that go to the subscriber on one stream, sorted.
    pub fn types_for(&self, subscriber: &str, stream: &str) -> Vec<&str> {
        let mut types: Vec<&str> = self
            .routes
            .iter()
            .filter(|(_, route)| *route.stream == *stream)
            .map(|(event_type, _)| event_type.as_str())
            .filter(|event_type| self.is_for(subscriber, event_type))
            .collect();
        types.sort_unstable();
        types
    }

    /// Whether events of this type go to the subscriber.
    pub fn is_for(&self, subscriber: &str, event_type: &str) -> bool {
        self.route(event_type)
            .is_some_and(|route| route.to.iter().any(|to| **to == *subscriber))
    }

    /// Compiles what was checked; of a file with errors, the result is not to be used.
    pub(super) fn compile(model: &Model, checked: &Checked<'_>, schemas: &SchemaSet) -> Self {
        let defaults = model.defaults.as_ref();
        let mut routes: HashMap<EventType, Route> = HashMap::new();
        for event_type in schemas.event_types() {
            let Some(stream) = checked.stream_of(event_type) else {
                continue;
            };
            let to = checked.receivers(event_type);
            let to_joined = to.join(",").into();
            let to = to.into_iter().map(Arc::from).collect();
            routes.insert(
                event_type.clone(),
                Route {
                    stream: stream.into(),
                    to,
                    to_joined,
                },
            );
        }
        let streams: Vec<_> = checked
            .streams
            .iter()
            .map(|stream| StreamSettings {
                name: stream.name.into(),
                maxlen: stream.model.maxlen,
                retention: stream.model.retention.map(|Span(span)| span),
            })
            .collect();
        let settled = |name| {
            let own = model.subscribers.as_ref().and_then(|all| all.get(name));
            let settings = settle(name, own, defaults);
            (Arc::clone(&settings.name), settings)
        };
        let subscribers: BTreeMap<_, _> = checked.subscribers().map(settled).collect();
        let mut carried: HashMap<&str, HashSet<&Arc<str>>> = HashMap::new();
        for route in routes.values() {
            for name in &route.to {
                carried.entry(name).or_default().insert(&route.stream);
            }
        }
        let streams_of = subscribers
            .keys()
            .map(|name| {
                let carried = carried.remove(&**name).unwrap_or_default();
                let names = streams.iter().map(|s| &s.name);
                let of = names.filter(|s| carried.contains(s)).cloned().collect();
                (Arc::clone(name), of)
            })
            .collect();
        let span = |set: Option<Span>, or| set.map_or(or, |Span(span)| span);
        let limits = model.limits.as_ref();
        Self {
            namespace: model.namespace.clone(),
            dedupe_window: span(model.dedupe_window, Duration::from_secs(24 * 3_600)),
            dead_retention: span(model.dead_retention, Duration::from_secs(30 * 86_400)),
            trace: model
                .trace
                .as_ref()
                .and_then(|trace| trace.ttl)
                .map(|Span(ttl)| ttl),
            limits: Limits {
                event_bytes: size(limits.and_then(|l| l.event_bytes), 1_048_576),
                depth: size(limits.and_then(|l| l.depth), 64),
            },
            audit: model.audit.as_ref().map(|audit| AuditSettings {
                maxlen: audit.maxlen,
                retention: audit.retention.map(|Span(span)| span),
            }),
            redact: Redact::new(checked.redact.clone()),
            streams,
            subscribers,
            retired: checked.retired.iter().copied().map(settled).collect(),
            streams_of,
            routes,
        }
    }
}

fn size(set: Option<u64>, or: usize) -> usize {
    set.map_or(or, |set| usize::try_from(set).unwrap_or(usize::MAX))
}

/// The settings that a subscriber ends up with: its own, else the defaults, else ours.
pub(super) fn settle(
    name: &str,
    own: Option<&SettingsModel>,
    defaults: Option<&SettingsModel>,
) -> SubscriberSettings {
    fn pick<'a, F, T>(layers: [Option<&'a SettingsModel>; 2], field: F) -> Option<T>
    where
        F: Fn(&'a SettingsModel) -> Option<T>,
    {
        layers.into_iter().flatten().find_map(field)
    }
    let layers = [own, defaults];
    let seconds = Duration::from_secs;
    let span = |set: Option<Span>, or| set.map_or(or, |Span(span)| span);
    SubscriberSettings {
        name: name.into(),
        max_attempts: pick(layers, |s| s.max_attempts).unwrap_or(3),
        backoff: Backoff {
            initial: span(pick(layers, |s| s.backoff.as_ref()?.initial), seconds(1)),
            multiplier: pick(layers, |s| s.backoff.as_ref()?.multiplier).unwrap_or(2.0),
            max: span(pick(layers, |s| s.backoff.as_ref()?.max), seconds(30)),
            jitter: pick(layers, |s| s.backoff.as_ref()?.jitter).unwrap_or(0.5),
        },
        concurrency: pick(layers, |s| s.concurrency).map_or(16, |n| size(Some(n.into()), 16)),
        timeout: span(pick(layers, |s| s.timeout), seconds(30)),
        lease: span(pick(layers, |s| s.lease), seconds(30)),
        breaker: breaker(layers.map(|layer| layer?.breaker.as_ref())),
        health: health(layers.map(|layer| layer?.health.as_ref())),
        start: pick(layers, |s| s.start.as_deref())
            .and_then(parse_start)
            .unwrap_or(Start::New),
        worker: own
            .and_then(|own| own.worker.clone())
            .unwrap_or_else(|| format!("{}-worker", name.strip_suffix("-service").unwrap_or(name))),
    }
}

fn breaker(layers: [Option<&BreakerModel>; 2]) -> BreakerSettings {
    fn pick<T>(
        layers: [Option<&BreakerModel>; 2],
        field: impl Fn(&BreakerModel) -> Option<T>,
    ) -> Option<T> {
        layers.into_iter().flatten().find_map(field)
    }
    let span = |set: Option<Span>, or| set.map_or(Duration::from_secs(or), |Span(span)| span);
    BreakerSettings {
        enabled: pick(layers, |b| b.enabled).unwrap_or(true),
        consecutive: pick(layers, |b| b.consecutive).unwrap_or(5),
        failure_rate: pick(layers, |b| b.failure_rate),
        window: span(pick(layers, |b| b.window), 10),
        min_outcomes: pick(layers, |b| b.min_outcomes).unwrap_or(20),
        open: span(pick(layers, |b| b.open), 5),
        max_open: span(pick(layers, |b| b.max_open), 60),
        probes: pick(layers, |b| b.probes).unwrap_or(3),
    }
}

fn health(layers: [Option<&HealthModel>; 2]) -> HealthSettings {
    let span = |field: fn(&HealthModel) -> Option<Span>, or| {
        let set = layers.into_iter().flatten().find_map(field);
        set.map_or(Duration::from_secs(or), |Span(span)| span)
    };
    let enabled = layers.into_iter().flatten().find_map(|h| h.enabled);
    HealthSettings {
        enabled: enabled.unwrap_or(true),
        no_worker: span(|h| h.no_worker, 60),
        behind: span(|h| h.behind, 900),
        again: span(|h| h.again, 6 * 3_600),
    }
}

/// `new`, `beginning`, or an RFC 3339 time.
pub(super) fn parse_start(text: &str) -> Option<Start> {
    match text {
        "new" => Some(Start::New),
        "beginning" => Some(Start::Beginning),
        time => time.parse().ok().map(Start::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_stays_open_twice_as_long_each_time_up_to_the_longest() {
        let settings = breaker([None, None]);
        let seconds = |opened| settings.open_for(opened).as_secs();
        assert_eq!([1, 2, 3, 4, 5].map(seconds), [5, 10, 20, 40, 60]);
        assert_eq!([0, 32, 33, u32::MAX].map(seconds), [5, 60, 60, 60]);
    }

    #[test]
    fn each_setting_of_a_breaker_is_ones_own_else_the_default() {
        let defaults = BreakerModel {
            enabled: Some(false),
            probes: Some(7),
            ..BreakerModel::default()
        };
        let own = BreakerModel {
            enabled: Some(true),
            failure_rate: Some(0.5),
            ..BreakerModel::default()
        };
        let settings = breaker([Some(&own), Some(&defaults)]);
        assert!(settings.enabled);
        assert_eq!((settings.probes, settings.consecutive), (7, 5));
        assert_eq!(settings.failure_rate, Some(0.5));
        assert!(!breaker([None, Some(&defaults)]).enabled);
    }
}
