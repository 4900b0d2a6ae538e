//! The facts for the ledger: what is in Redis at the end of a run, and what the witness wrote.

use std::collections::BTreeSet;
use std::path::Path;

use redis::Commands;
use redis::streams::{StreamPendingCountReply, StreamRangeReply};
use serde_json::Value;

use crate::support::Fleet;
use crate::support::ledger::{Dead, Facts, Handled, Witnessed};

/// What is there now. Looked up along the way of an event, so that one that moves on meanwhile is
/// not missed.
pub fn gather(fleet: &Fleet, witness: &Path) -> Facts {
    let mut facts = Facts::default();
    add_inbox(fleet, &mut facts.owed);
    for subscriber in ["probe-service", "other-service"] {
        for stream in ["test-events", "more-events"] {
            add_owed(fleet, stream, subscriber, &mut facts.owed);
        }
    }
    for subscriber in ["probe-service", "other-service"] {
        add_effects(fleet, subscriber, &mut facts);
    }
    for subscriber in ["probe-service", "other-service", "router"] {
        facts.dead.extend(dead(fleet, subscriber));
    }
    let witness = std::fs::read_to_string(witness).unwrap_or_default();
    facts.witnessed = witness.lines().filter_map(parse_witness).collect();
    facts
}

fn add_effects(fleet: &Fleet, subscriber: &str, facts: &mut Facts) {
    for (id, times) in fleet.handled(subscriber) {
        facts.counted.insert((subscriber.to_owned(), id), times);
    }
    for entry in range(fleet, &format!("{subscriber}:log")).ids {
        let text = |field| entry.get::<String>(field).unwrap_or_default();
        facts.handled.push(Handled {
            subscriber: subscriber.to_owned(),
            id: text("id"),
            at_ms: time_of(&entry.id),
            attempt: text("attempt").parse().unwrap(),
            parent: text("parent"),
        });
    }
}

/// The dead letters of a subscriber, or of the router.
pub fn dead(fleet: &Fleet, subscriber: &str) -> Vec<Dead> {
    let mut dead = Vec::new();
    for entry in range(fleet, &format!("dead:{subscriber}")).ids {
        let text = |field| entry.get::<String>(field).unwrap_or_default();
        let event: Value = serde_json::from_str(&text("event")).unwrap_or_default();
        let attempts: Value = serde_json::from_str(&text("attempts")).unwrap_or_default();
        dead.push(Dead {
            subscriber: subscriber.to_owned(),
            id: event["event_id"].as_str().unwrap_or_default().to_owned(),
            at_ms: time_of(&entry.id),
            reason: text("reason"),
            charged: attempts.as_array().map_or(0, |log| log.len() as u32),
            parent: event["data"]["parent"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        });
    }
    dead
}

fn add_owed(fleet: &Fleet, stream: &str, subscriber: &str, owed: &mut BTreeSet<String>) {
    let mut connection = fleet.connection();
    let groups: redis::streams::StreamInfoGroupsReply =
        connection.xinfo_groups(stream).unwrap_or_default();
    let group = groups.groups.iter().find(|g| g.name == subscriber);
    let after = group.map_or("-".to_owned(), |g| format!("({}", g.last_delivered_id));
    let pending: StreamPendingCountReply = connection
        .xpending_count(stream, subscriber, "-", "+", 100_000)
        .unwrap_or_default();
    let pending: BTreeSet<String> = pending.ids.into_iter().map(|p| p.id).collect();
    let undelivered: StreamRangeReply = connection.xrange(stream, after, "+").unwrap_or_default();
    let undelivered: BTreeSet<String> = undelivered.ids.into_iter().map(|e| e.id).collect();
    for entry in range(fleet, stream).ids {
        if pending.contains(&entry.id) || undelivered.contains(&entry.id) {
            owed.extend(entry.get::<String>("id"));
        }
    }
}

fn add_inbox(fleet: &Fleet, owed: &mut BTreeSet<String>) {
    for entry in range(fleet, "inbox").ids {
        let event: Value = serde_json::from_str(&entry.get::<String>("event").unwrap_or_default())
            .unwrap_or_default();
        owed.extend(event["event_id"].as_str().map(str::to_owned));
    }
}

fn range(fleet: &Fleet, stream: &str) -> StreamRangeReply {
    fleet.connection().xrange_all(stream).unwrap()
}

fn time_of(entry: &str) -> u64 {
    entry.split('-').next().unwrap().parse().unwrap()
}

/// `<subscriber> <event> <attempt> <key> start|end`
fn parse_witness(line: &str) -> Option<Witnessed> {
    let words: Vec<&str> = line.split(' ').collect();
    let [subscriber, id, attempt, key, what] = words[..] else {
        return None;
    };
    Some(Witnessed {
        subscriber: subscriber.to_owned(),
        id: id.to_owned(),
        attempt: attempt.parse().ok()?,
        key: key.to_owned(),
        ended: what == "end",
    })
}
