//! Every key that streamfleet touches, built in one place.
//!
//! An optional namespace comes first (`shop:order-events`). Names of streams and subscribers
//! are checked by routing.yaml, so no key of one family can be mistaken for another's.

use std::fmt::Display;
use std::sync::Arc;

use uuid::Uuid;

/// Builds keys under one namespace.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// Keys under `<namespace>:`, or bare.
    pub fn new(namespace: Option<&str>) -> Self {
        Self {
            prefix: namespace
                .map(|n| format!("{n}:"))
                .unwrap_or_default()
                .into(),
        }
    }

    fn key(&self, rest: impl Display) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// The name of a key without the namespace.
    pub fn strip<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(&*self.prefix).unwrap_or(key)
    }

    /// Stream of events as producers sent them.
    pub fn inbox(&self) -> String {
        self.key("inbox")
    }
    /// A domain stream, `order-events`; also `redrive:<subscriber>` by its name.
    pub fn stream(&self, name: &str) -> String {
        self.key(name)
    }
    /// Name (without namespace) of the stream of dead letters sent back to one subscriber.
    pub fn redrive_name(subscriber: &str) -> String {
        format!("redrive:{subscriber}")
    }
    /// Stream of a subscriber's dead letters; `dead:router` holds what was refused at the door.
    pub fn dead(&self, subscriber: &str) -> String {
        self.key(format_args!("dead:{subscriber}"))
    }
    /// Hash of the deliveries of one group that had trouble. Fields `<id>` (log of recorded
    /// failures), `<id>:starts` (starts without an outcome), `<id>:due` (parked until, ms),
    /// `<id>:claimed` (delivery count under which it was last reclaimed).
    pub fn attempts(&self, stream: &str, subscriber: &str) -> String {
        self.key(format_args!("attempts:{stream}:{subscriber}"))
    }
    /// Hash of event ID -> content hash, of the `bucket`-th span of `size_ms` since 1970.
    pub fn seen(&self, size_ms: u64, bucket: u64) -> String {
        self.key(format_args!("seen:{size_ms}:{bucket}"))
    }
    /// Field of [`fleet`](Self::fleet): until when (ms, 1970) buckets of a size matter.
    pub fn fleet_dedupe(size_ms: u64) -> String {
        format!("dedupe:{size_ms}")
    }
    /// Sorted set of the events that are to be delivered later: event ID, and when it is due (ms,
    /// 1970; later if its stream could not take it then).
    pub fn scheduled(&self) -> String {
        self.key("scheduled")
    }
    /// Hash of the same events: event ID -> `<hops> <content hash> <JSON as sent>`.
    pub fn scheduled_events(&self) -> String {
        self.key("scheduled:events")
    }
    /// Stream of what came to the door and what became of it, if routing.yaml asks for it.
    pub fn audit(&self) -> String {
        self.key("audit")
    }
    /// Hash: dataset ID, configuration generations and which of them is routed by, every group ever
    /// created, who announced itself, who is not well.
    pub fn fleet(&self) -> String {
        self.key("fleet")
    }
    /// Field of [`fleet`](Self::fleet) for one group; `stream` without namespace.
    pub fn fleet_group(stream: &str, subscriber: &str) -> String {
        format!("group:{stream}:{subscriber}")
    }
    /// The group of a subscriber's rebuild, and the prefix of its keys: `<subscriber>@<number>`. No
    /// name of routing.yaml has an `@`.
    pub fn shadow(subscriber: &str, number: u64) -> String {
        format!("{subscriber}@{number}")
    }
    /// The subscriber whose rebuild a group belongs to, if it is such a group.
    pub fn shadow_of(group: &str) -> Option<&str> {
        let (subscriber, number) = group.split_once('@')?;
        number.parse::<u64>().ok().map(|_| subscriber)
    }
    /// A glob for the groups of all rebuilds of a subscriber; it also finds others, which
    /// [`shadow_of`](Self::shadow_of) tells apart.
    pub fn shadow_glob(subscriber: &str) -> String {
        format!("{subscriber}@*")
    }
    /// Name (without namespace) of the stream of what a rebuild brings back from the event store.
    pub fn restored_name(shadow: &str) -> String {
        format!("restored:{shadow}")
    }
    /// Field of [`fleet`](Self::fleet): how many rebuilds of a subscriber were begun.
    pub fn fleet_rebuilds(subscriber: &str) -> String {
        format!("rebuilds:{subscriber}")
    }
    /// Field of [`fleet`](Self::fleet): the number of the rebuild that a subscriber's keys are from.
    pub fn fleet_rebuilt(subscriber: &str) -> String {
        format!("rebuilt:{subscriber}")
    }
    /// Field of [`fleet`](Self::fleet): a worker that announced itself, and may be dead by now.
    pub fn fleet_worker(subscriber: &str, name: &str) -> String {
        format!("worker:{subscriber}:{name}")
    }
    /// The subscriber and the name of such a field.
    pub fn worker_of(field: &str) -> Option<(&str, &str)> {
        field.strip_prefix("worker:")?.split_once(':')
    }
    /// Field of [`fleet`](Self::fleet): since when a subscriber does not pass a check.
    pub fn fleet_health(subscriber: &str, check: &str) -> String {
        format!("health:{subscriber}:{check}")
    }
    /// The subscriber and the check of such a field.
    pub fn health_of(field: &str) -> Option<(&str, &str)> {
        field.strip_prefix("health:")?.split_once(':')
    }
    /// Hash with TTL: one live worker.
    pub fn worker(&self, subscriber: &str, name: &str) -> String {
        self.key(format_args!("worker:{subscriber}:{name}"))
    }
    /// Hash: whether a subscriber is paused (`paused_until`, `paused_by`, `paused_why`), and its circuit
    /// breaker unless that is closed (`breaker`, `since`, `until`, `first`, `opened`, `why`, `flow`, and
    /// while it is half-open `probes`, `passed`).
    pub fn control(&self, subscriber: &str) -> String {
        self.key(format_args!("control:{subscriber}"))
    }
    /// Hash of counters that no stream can tell: `lost`, `opened`, `closed`; for the router `routed`, `refused`,
    /// `duplicates`, `scheduled` (accepted to be delivered later; counted as routed when they are).
    pub fn stats(&self, subscriber: &str) -> String {
        self.key(format_args!("stats:{subscriber}"))
    }
    /// Stream of the hops of one business flow.
    pub fn trace(&self, correlation: Uuid) -> String {
        self.key(format_args!("trace:{correlation}"))
    }
    /// A key of a subscriber's handlers.
    pub fn effect(&self, subscriber: &str, key: &str) -> String {
        self.key(format_args!("{subscriber}:{key}"))
    }
    /// The event store's stream of one entity.
    pub fn entity(&self, entity: &str, id: &str) -> String {
        self.key(format_args!("es:{entity}:{id}"))
    }
    /// Hash: what the event store takes, by kind of entity: `<Entity>:entities`, `<Entity>:events`,
    /// `<Entity>:bytes`.
    pub fn entities(&self) -> String {
        self.key("entities")
    }

    /// Hash: the newest snapshot of an entity: `version`, `shape`, `state`.
    pub fn snapshot(&self, entity: &str, id: &str) -> String {
        self.key(format_args!("snapshot:{entity}:{id}"))
    }
    /// Hash of the sagas of one kind that are not over: id -> where it stands.
    pub fn sagas(&self, entity: &str) -> String {
        self.key(format_args!("sagas:{entity}"))
    }
    /// String with TTL: a command that was carried out.
    pub fn command(&self, id: Uuid) -> String {
        self.key(format_args!("command:{id}"))
    }
}
