//! The groups: created once, registered in `fleet`, never recreated without being told to.

use std::collections::HashMap;

use super::{INBOX, ROUTER};
use crate::routing::{Routing, Start};
use crate::store::{
    self, Ensure, EntryId, GroupState, Holder, Keys, Link, StoreError, name_denied,
};

/// What `fleet` remembers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its lease, milliseconds.
    pub lease_ms: u64,
    /// The stream's last ID when the group joined: older entries were not routed to it.
    pub joined: EntryId,
}

/// Every group ever created and not retired, by (stream, subscriber).
pub async fn group_records(
    link: &Link,
    keys: &Keys,
) -> Result<HashMap<(String, String), GroupRecord>, StoreError> {
    let fleet = keys.fleet();
    let fields: HashMap<String, String> = link
        .run(|mut c| async move { redis::cmd("HGETALL").arg(fleet).query_async(&mut c).await })
        .await?;
    Ok(fields
        .iter()
        .filter_map(|(field, value)| parse_record(field, value))
        .collect())
}

fn parse_record(field: &str, value: &str) -> Option<((String, String), GroupRecord)> {
    let (stream, subscriber) = field.strip_prefix("group:")?.rsplit_once(':')?;
    let (lease, joined) = value.split_once(':')?;
    let record = GroupRecord {
        lease_ms: lease.parse().ok()?,
        joined: joined.parse().ok()?,
    };
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
    for settings in routing
        .subscribers()
        .filter(|s| only.is_none_or(|name| &*s.name == name))
    {
        let lease_ms = settings.lease.as_millis() as u64;
        let start = match settings.start {
            Start::New => "$".to_owned(),
            Start::Beginning => "0".to_owned(),
            // A group reads what comes after its ID: the last one before that time.
            Start::At(time) => format!("{}-{}", (time.as_millisecond() - 1).max(0), u64::MAX),
        };
        let group = |stream: String, start: String| WantedGroup {
            stream,
            subscriber: settings.name.to_string(),
            start,
            lease_ms,
        };
        wanted.extend(
            routing
                .streams_of(&settings.name)
                .iter()
                .map(|s| group(s.to_string(), start.clone())),
        );
        wanted.push(group(Keys::redrive_name(&settings.name), "0".into()));
    }
    wanted
}

/// Creates the groups that never existed and registers them; answers those that were lost. None is created, and no
/// lease changed, if Redis stands against one of them.
pub async fn ensure_groups(
    link: &Link,
    keys: &Keys,
    wanted: &[WantedGroup],
) -> Result<Vec<WantedGroup>, StoreError> {
    for group in wanted {
        ensure_group(link, keys, group, Ensure::Check).await?;
    }
    let mut lost = Vec::new();
    for group in wanted {
        match ensure_group(link, keys, group, Ensure::Create).await? {
            GroupState::Lost => lost.push(group.clone()),
            GroupState::Created => {
                tracing::info!(
                    stream = group.stream,
                    subscriber = group.subscriber,
                    start = group.start,
                    "group created"
                );
            }
            GroupState::Exists | GroupState::Retired => {}
        }
    }
    Ok(lost)
}

/// Looks for one group, and creates it where `how` allows.
pub async fn ensure_group(
    link: &Link,
    keys: &Keys,
    group: &WantedGroup,
    how: Ensure,
) -> Result<GroupState, StoreError> {
    let (fleet, me) = (keys.fleet(), &group.subscriber);
    let holder = holder(keys, &group.stream, me, "");
    let field = Keys::fleet_group(&group.stream, me);
    link.run(|mut c| async move {
        store::ensure_group(
            &mut c,
            &fleet,
            &holder,
            &field,
            &group.start,
            group.lease_ms,
            how,
        )
        .await
        .map_err(|cause| name_denied(cause, &[&fleet, &holder.stream, &holder.attempts]))
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
    fn group_records_survive_redrive_streams() {
        let ((stream, subscriber), record) =
            parse_record("group:redrive:a-service:a-service", "30000:7-1").unwrap();
        assert_eq!(
            (stream.as_str(), subscriber.as_str()),
            ("redrive:a-service", "a-service")
        );
        assert_eq!(
            record,
            GroupRecord {
                lease_ms: 30000,
                joined: EntryId { ms: 7, seq: 1 }
            }
        );
        assert!(parse_record("dataset", "x").is_none());
    }
}
