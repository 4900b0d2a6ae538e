//! Belonging to the fleet: who a process is, which dataset it works on, and which groups exist.
//!
//! Redis: `fleet` (dataset, generations, groups) and `worker:<subscriber>:<name>` (live workers).
//! Guarantee: a group that was lost is never recreated by itself, and a process never goes on
//! working on another dataset than the one it joined.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use crate::routing::{Config, Routing, Start};
use crate::store::{
    self, Announce, EntryId, GroupState, Holder, Keys, Link, Membership, StoreError,
};

/// The group of the routers, on the inbox.
pub const ROUTER: &str = "router";
/// Name of the inbox, where a stream's name is asked for.
pub const INBOX: &str = "inbox";
/// How long a worker counts as alive after its last sign of life.
pub const WORKER_TTL: Duration = Duration::from_secs(15);
/// How often it gives one.
pub const HEARTBEAT: Duration = Duration::from_secs(4);

/// Who a process is within its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group: a subscriber, or [`ROUTER`].
    pub subscriber: String,
    /// Stable across restarts.
    pub name: String,
    /// Drawn at every start, so that a predecessor is told apart.
    pub nonce: String,
}

impl Identity {
    /// The consumer in Redis.
    pub fn consumer(&self) -> String {
        format!("{}.{}", self.name, self.nonce)
    }

    /// Announces itself under `name`, replacing whoever had it; without a name under
    /// `<host>-<n>` with the first number that nobody alive uses.
    pub async fn announce(
        link: &Link,
        keys: &Keys,
        subscriber: &str,
        name: Option<&str>,
        generation: u64,
    ) -> Result<Self, StoreError> {
        let nonce = Uuid::new_v4().simple().to_string()[..8].to_owned();
        let mut identity = Self { subscriber: subscriber.to_owned(), name: String::new(), nonce };
        let how = if name.is_some() { Announce::Replace } else { Announce::Claim };
        for number in 1.. {
            identity.name = name.map_or_else(|| format!("{}-{number}", host()), str::to_owned);
            if identity.register(link, keys, how, generation).await? {
                break;
            }
        }
        Ok(identity)
    }

    /// A sign of life. False: another process has taken the name over.
    pub async fn renew(&self, link: &Link, keys: &Keys, generation: u64) -> Result<bool, StoreError> {
        self.register(link, keys, Announce::Renew, generation).await
    }

    async fn register(&self, link: &Link, keys: &Keys, how: Announce, generation: u64) -> Result<bool, StoreError> {
        let key = keys.worker(&self.subscriber, &self.name);
        let fields = [
            ("host", host()),
            ("pid", std::process::id().to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("generation", generation.to_string()),
            ("seen", jiff::Timestamp::now().to_string()),
        ];
        let ttl = WORKER_TTL.as_millis() as u64;
        link.run(|mut c| async move {
            store::register_worker(&mut c, &key, &self.nonce, ttl, how, &fields).await
        })
        .await
    }

    /// Takes the announcement back.
    pub async fn withdraw(&self, link: &Link, keys: &Keys) -> Result<(), StoreError> {
        let key = keys.worker(&self.subscriber, &self.name);
        link.run(|mut c| async move { redis::cmd("DEL").arg(key).exec_async(&mut c).await }).await
    }
}

/// This machine's name, for consumers and letters.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain: String = name
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(64)
        .collect();
    if plain.is_empty() { "host".to_owned() } else { plain }
}

/// Whether a consumer is an earlier life of `name`.
pub fn is_predecessor(consumer: &str, identity: &Identity) -> bool {
    match consumer.rsplit_once('.') {
        Some((name, nonce)) => name == identity.name && nonce != identity.nonce && nonce.len() == 8,
        None => false,
    }
}

/// Joins the fleet with a configuration.
pub async fn join(link: &Link, keys: &Keys, config: &Config) -> Result<Membership, StoreError> {
    let fleet = keys.fleet();
    let fresh = Uuid::new_v4().to_string();
    let hash = config.content_hash;
    link.run(|mut c| async move { store::join_fleet(&mut c, &fleet, &fresh, hash).await }).await
}

/// The dataset that Redis holds now, if it holds one.
pub async fn current_dataset(link: &Link, keys: &Keys) -> Result<Option<String>, StoreError> {
    let fleet = keys.fleet();
    link.run(|mut c| async move { redis::cmd("HGET").arg(fleet).arg("dataset").query_async(&mut c).await }).await
}

/// What `fleet` remembers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its lease, milliseconds.
    pub lease_ms: u64,
    /// The stream's last ID when the group joined: older entries were not routed to it.
    pub joined: EntryId,
}

/// Every group ever created and not retired, by (stream, subscriber).
pub async fn group_records(link: &Link, keys: &Keys) -> Result<HashMap<(String, String), GroupRecord>, StoreError> {
    let fleet = keys.fleet();
    let fields: HashMap<String, String> =
        link.run(|mut c| async move { redis::cmd("HGETALL").arg(fleet).query_async(&mut c).await }).await?;
    Ok(fields.iter().filter_map(|(field, value)| parse_record(field, value)).collect())
}

fn parse_record(field: &str, value: &str) -> Option<((String, String), GroupRecord)> {
    let (stream, subscriber) = field.strip_prefix("group:")?.rsplit_once(':')?;
    let (lease, joined) = value.split_once(':')?;
    let record = GroupRecord { lease_ms: lease.parse().ok()?, joined: joined.parse().ok()? };
    Some(((stream.to_owned(), subscriber.to_owned()), record))
}

/// The keys and names that settling needs for one group.
pub fn holder(keys: &Keys, stream: &str, subscriber: &str, consumer: &str) -> Holder {
    Holder {
        stream: keys.stream(stream),
        attempts: keys.attempts(stream, subscriber),
        stats: keys.stats(subscriber),
        group: subscriber.to_owned(),
        consumer: consumer.to_owned(),
        delete_settled: stream == Keys::redrive_name(subscriber),
    }
}

/// A group to be, and where it starts reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedGroup {
    /// Stream, without namespace.
    pub stream: String,
    /// The group.
    pub subscriber: String,
    /// ID after which it reads: `$`, `0` or an ID.
    pub start: String,
    /// Its lease, milliseconds.
    pub lease_ms: u64,
}

/// The groups that a routing table asks for; `only` one subscriber's, or all and the router's.
pub fn wanted_groups(routing: &Routing, only: Option<&str>) -> Vec<WantedGroup> {
    let mut wanted = Vec::new();
    if only.is_none() {
        wanted.push(WantedGroup {
            stream: INBOX.into(),
            subscriber: ROUTER.into(),
            start: "0".into(),
            lease_ms: crate::router::LEASE.as_millis() as u64,
        });
    }
    for settings in routing.subscribers().filter(|s| only.is_none_or(|name| &*s.name == name)) {
        let lease_ms = settings.lease.as_millis() as u64;
        let start = match settings.start {
            Start::New => "$".to_owned(),
            Start::Beginning => "0".to_owned(),
            Start::At(time) => format!("{}-0", time.as_millisecond().max(0)),
        };
        let group = |stream: String, start: String| WantedGroup {
            stream,
            subscriber: settings.name.to_string(),
            start,
            lease_ms,
        };
        wanted.extend(routing.streams_of(&settings.name).iter().map(|s| group(s.to_string(), start.clone())));
        wanted.push(group(Keys::redrive_name(&settings.name), "0".into()));
    }
    wanted
}

/// Creates the groups that never existed and registers them; answers those that were lost.
pub async fn ensure_groups(link: &Link, keys: &Keys, wanted: &[WantedGroup]) -> Result<Vec<WantedGroup>, StoreError> {
    let mut lost = Vec::new();
    for group in wanted {
        match ensure_group(link, keys, group, false).await? {
            GroupState::Lost => lost.push(group.clone()),
            GroupState::Created => {
                tracing::info!(stream = group.stream, subscriber = group.subscriber, start = group.start, "group created");
            }
            GroupState::Exists => {}
        }
    }
    Ok(lost)
}

/// Creates one group; `recreate` it even if it was lost.
pub async fn ensure_group(link: &Link, keys: &Keys, group: &WantedGroup, recreate: bool) -> Result<GroupState, StoreError> {
    let (fleet, stream) = (keys.fleet(), keys.stream(&group.stream));
    let field = Keys::fleet_group(&group.stream, &group.subscriber);
    link.run(|mut c| async move {
        let names = (group.subscriber.as_str(), field.as_str());
        store::ensure_group(&mut c, &fleet, &stream, names, &group.start, group.lease_ms, recreate).await
    })
    .await
}

/// What the operator must do about lost groups, for logs.
pub fn lost_group_advice(group: &WantedGroup) -> String {
    format!(
        "the group {sub} on {stream} was lost (it existed before, Redis no longer has it). Nothing is read for it \
         until you choose where it goes on: streamfleet group recreate {sub} {stream} --from beginning|new|<entry id>",
        sub = group.subscriber,
        stream = group.stream
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_life_of_the_same_name_is_a_predecessor() {
        let me = Identity { subscriber: "s".into(), name: "host.example-1".into(), nonce: "0a1b2c3d".into() };
        assert!(is_predecessor("host.example-1.ffffffff", &me));
        for other in ["host.example-1.0a1b2c3d", "host.example-11.ffffffff", "retry", "host.example-1"] {
            assert!(!is_predecessor(other, &me), "{other}");
        }
    }

    #[test]
    fn group_records_survive_redrive_streams() {
        let ((stream, subscriber), record) = parse_record("group:redrive:a-service:a-service", "30000:7-1").unwrap();
        assert_eq!((stream.as_str(), subscriber.as_str()), ("redrive:a-service", "a-service"));
        assert_eq!(record, GroupRecord { lease_ms: 30000, joined: EntryId { ms: 7, seq: 1 } });
        assert!(parse_record("dataset", "x").is_none());
    }
}
