//! Looks whether every subscriber has a live worker and keeps up, and publishes
//! `System.Health.CheckFailed` when one does not: once when it begins, again only after it was well
//! in between or after a long time. Nothing is looked at where the configuration does not admit that
//! event.
//!
//! Redis: reads what `status` reads; marks `health:<subscriber>:<check>` in `fleet`; the inbox.
//! Guarantee: of several routers one publishes, in the step that changes the mark.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::fleet::{self, ROUTER, announcement, host};
use crate::metrics;
use crate::routing::{Config, HealthSettings, Routing};
use crate::status::{self, ProcessStatus, Snapshot};
use crate::store::{self, HealthNote, Keys, Link, StoreError};

const EVENT: &str = "System.Health.CheckFailed";
/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);

/// The data of the event.
#[derive(Serialize)]
struct CheckFailed<'a> {
    component: &'a str,
    check: &'a str,
    message: &'a str,
    failed_at: Timestamp,
    failing_since: Timestamp,
    host: String,
}

/// Looks until dropped; beside whoever awaits it, whom the many answers must not hold up.
pub(super) async fn run(link: Link, keys: Keys, config: watch::Receiver<Arc<Config>>) {
    let looking = async move {
        loop {
            let current = config.borrow().clone();
            if current.routing.route(EVENT).is_some()
                && let Err(error) = look(&link, &keys, &current).await
            {
                tracing::warn!(%error, "cannot look whether the subscribers are well; trying again");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    let ended = AbortOnDropHandle::new(tokio::spawn(looking)).await;
    match ended {
        Ok(never) => never,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn look(link: &Link, keys: &Keys, config: &Config) -> Result<(), StoreError> {
    let (fleet_key, inbox) = (&keys.fleet(), &keys.inbox());
    let marks: BTreeMap<String, String> = link
        .run(|mut c| async move {
            redis::cmd("HGETALL")
                .arg(fleet_key)
                .query_async(&mut c)
                .await
        })
        .await?;
    let snapshot = status::collect(link, keys, &config.routing).await?;
    let routed_by = marks.get(fleet::ROUTING).map(String::as_str);
    if !is_ours_to_look(&config.fingerprint(), routed_by, &snapshot.processes) {
        return Ok(());
    }
    let checks = checks(&snapshot, &config.routing);
    let mut fields = Vec::new();
    for check in &checks {
        let field = Keys::fleet_health(check.subscriber, check.name);
        let before = marks.get(&field).map_or("", String::as_str);
        let step = step(before, check, snapshot.at.as_millisecond());
        let event = match step.tell_since {
            Some(since) => check.event(since, snapshot.at, config),
            None => Vec::new(),
        };
        if before != step.mark {
            let note = HealthNote {
                field: field.clone(),
                before: before.to_owned(),
                after: step.mark,
                event,
            };
            note_and_say(link, fleet_key, inbox, &note, check).await?;
        }
        fields.push(field);
    }
    // What is looked at no more.
    let stale = marks
        .into_iter()
        .filter(|(field, _)| Keys::health_of(field).is_some() && !fields.contains(field));
    for (field, before) in stale {
        let note = HealthNote {
            field,
            before,
            after: String::new(),
            event: Vec::new(),
        };
        link.run(|mut c| async move { store::note_health(&mut c, fleet_key, inbox, &note).await })
            .await?;
    }
    Ok(())
}

/// Of routers that run different configurations (a reload is under way, or is refused by some) those of one
/// look, so that they do not undo each other's marks: of the one that a router was the last to begin to route
/// by, unless none lives that runs it.
fn is_ours_to_look(ours: &str, routed_by: Option<&str>, processes: &[ProcessStatus]) -> bool {
    let routers = processes.iter().filter(|p| p.subscriber == ROUTER);
    let live = routers.map(|p| p.configuration.fingerprint.as_str());
    let live: BTreeSet<&str> = live.chain([ours]).collect();
    let last = routed_by.filter(|by| live.contains(by));
    last.or(live.last().copied()) == Some(ours)
}

async fn note_and_say(
    link: &Link,
    fleet: &str,
    inbox: &str,
    note: &HealthNote,
    check: &Check<'_>,
) -> Result<(), StoreError> {
    let asked = Instant::now();
    let noted = link
        .run(|mut c| async move { store::note_health(&mut c, fleet, inbox, note).await })
        .await;
    if metrics::on() && !note.event.is_empty() && !matches!(noted, Ok(false)) {
        metrics::published(1, asked.elapsed(), noted.is_ok());
    }
    let noted = noted?;
    let (subscriber, name) = (check.subscriber, check.name);
    if noted && !note.event.is_empty() {
        let found = check.failing.as_deref().unwrap_or_default();
        tracing::warn!(subscriber, check = name, "NOT WELL: {found}");
    } else if noted && note.after.is_empty() && note.before.contains(':') {
        tracing::info!(subscriber, check = name, "well again");
    }
    Ok(())
}

/// One thing about one subscriber.
#[derive(Debug, PartialEq)]
struct Check<'a> {
    subscriber: &'a str,
    name: &'static str,
    /// What was found and what was expected, if it does not pass.
    failing: Option<String>,
    /// How long it may fail before that is told.
    patience: Duration,
    again: Duration,
}

/// How every subscriber is that the routes name.
fn checks<'a>(snapshot: &Snapshot, routing: &'a Routing) -> Vec<Check<'a>> {
    let mut checks = Vec::new();
    for settings in routing.subscribers().filter(|s| s.health.enabled) {
        let subscriber = &*settings.name;
        let HealthSettings {
            no_worker,
            behind,
            again,
            ..
        } = settings.health;
        let Some(status) = snapshot.subscribers.iter().find(|s| s.name == subscriber) else {
            continue;
        };
        if status.control.paused.is_some() {
            continue; // an operator wants it so
        }
        let alone = status.workers.is_empty();
        checks.push(Check {
            subscriber,
            name: "workers",
            failing: alone.then(|| {
                format!(
                    "no live worker for {no_worker:?} or longer, expected at least one: start one"
                )
            }),
            patience: no_worker,
            again,
        });
        let groups = snapshot
            .groups
            .iter()
            .filter(|g| g.subscriber == subscriber);
        let oldest = groups.max_by_key(|group| group.oldest_waiting_ms);
        let late = oldest.filter(|group| {
            let waited = group.oldest_waiting_ms.map(Duration::from_millis);
            waited.is_some_and(|waited| waited > behind)
        });
        checks.push(Check {
            subscriber,
            name: "behind",
            failing: late.map(|group| {
                let waited = group.oldest_waiting_ms.unwrap_or(0) / 1_000;
                let waiting = group.waiting.map_or("?".to_owned(), |n| n.to_string());
                let stream = &group.stream;
                format!(
                    "the oldest event that it has not read has waited for {waited}s on {stream}, with {waiting} in \
                     all; expected at most {behind:?}: see streamfleet status"
                )
            }),
            patience: Duration::ZERO,
            again,
        });
    }
    checks
}

/// What a look leads to.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// The mark from now on; empty for none.
    mark: String,
    /// It is to be told now that it fails since then (ms, 1970).
    tell_since: Option<i64>,
}

/// Decides by the mark, `<since>` or `<since>:<told>`. What cannot be read counts as none.
fn step(mark: &str, check: &Check<'_>, now_ms: i64) -> Step {
    if check.failing.is_none() {
        return Step {
            mark: String::new(),
            tell_since: None,
        };
    }
    let (since, told) = match mark.split_once(':') {
        Some((since, told)) => (since.parse().ok(), told.parse::<i64>().ok()),
        None => (mark.parse().ok(), None),
    };
    let since = since.unwrap_or(now_ms);
    let passed = |from: i64, time: Duration| {
        u128::try_from(now_ms.saturating_sub(from)).is_ok_and(|ms| ms >= time.as_millis())
    };
    let due = match told {
        Some(told) => passed(told, check.again),
        None => passed(since, check.patience),
    };
    match (due, told) {
        (true, _) => Step {
            mark: format!("{since}:{now_ms}"),
            tell_since: Some(since),
        },
        (false, Some(told)) => Step {
            mark: format!("{since}:{told}"),
            tell_since: None,
        },
        (false, None) => Step {
            mark: since.to_string(),
            tell_since: None,
        },
    }
}

impl Check<'_> {
    /// The event; what belongs to one failure has one correlation ID.
    fn event(&self, since_ms: i64, now: Timestamp, config: &Config) -> Vec<u8> {
        let Self {
            subscriber, name, ..
        } = self;
        let flow = format!("{subscriber}:{name}:{since_ms}");
        let data = CheckFailed {
            component: subscriber,
            check: name,
            message: self.failing.as_deref().unwrap_or_default(),
            failed_at: now,
            failing_since: Timestamp::from_millisecond(since_ms).unwrap_or(now),
            host: host(),
        };
        let flow = Uuid::new_v5(&Uuid::NAMESPACE_OID, flow.as_bytes());
        announcement(EVENT, subscriber, flow, &data, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failing: bool) -> Check<'static> {
        Check {
            subscriber: "a-service",
            name: "workers",
            failing: failing.then(|| "why".to_owned()),
            patience: Duration::from_secs(60),
            again: Duration::from_secs(3_600),
        }
    }

    #[test]
    fn routers_of_one_configuration_look() {
        let router = |name: &str, runs: &str| ProcessStatus {
            subscriber: ROUTER.into(),
            name: name.into(),
            host: String::new(),
            pid: String::new(),
            version: String::new(),
            seen: String::new(),
            configuration: fleet::Configuration {
                fingerprint: runs.into(),
                ..fleet::Configuration::default()
            },
        };
        let two = [router("r1", "aa"), router("r2", "bb")];
        let who = |routed_by, processes: &[ProcessStatus]| {
            ["aa", "bb"].map(|ours| is_ours_to_look(ours, routed_by, processes))
        };
        assert_eq!(who(Some("aa"), &two), [true, false]);
        assert_eq!(who(Some("bb"), &two), [false, true]);
        assert_eq!(who(Some("cc"), &two), [false, true], "nobody runs that");
        assert_eq!(who(None, &two), [false, true]);
        let only = [router("r1", "aa")];
        assert!(
            is_ours_to_look("aa", Some("bb"), &only),
            "its router is gone"
        );
        assert!(is_ours_to_look("aa", None, &[]), "not announced yet");
    }

    #[test]
    fn it_is_told_once_after_its_patience_and_again_after_a_long_time_or_a_recovery() {
        let table = [
            ("", 1_000, "1000", None),
            ("1000", 60_999, "1000", None),
            ("1000", 61_000, "1000:61000", Some(1_000)),
            ("1000:61000", 90_000, "1000:61000", None),
            ("1000:61000", 3_661_000, "1000:3661000", Some(1_000)),
            ("nonsense", 5, "5", None),
            // The clock was set back: not longer silent than `again` after it has caught up.
            ("1000:61000", 500, "1000:61000", None),
        ];
        for (mark, now, after, told) in table {
            let expected = Step {
                mark: after.to_owned(),
                tell_since: told,
            };
            assert_eq!(step(mark, &check(true), now), expected, "{mark} at {now}");
        }
        for mark in ["", "1000", "1000:61000"] {
            let step = step(mark, &check(false), 70_000);
            assert_eq!((step.mark.as_str(), step.tell_since), ("", None), "{mark}");
        }
    }
}
