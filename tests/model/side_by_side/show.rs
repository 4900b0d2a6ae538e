//! What is compared: a state in lines, one per key, alike for the model and for Redis.

use std::collections::BTreeMap;

use super::super::store::{Content, Due, Event, Id, Owner, Queue, Reason, Record, Store};
use super::QUEUES;

/// What a key or a group holds.
pub(super) type Shown = BTreeMap<String, Vec<String>>;

pub(super) fn entry(id: Id, event: Event, content: Content) -> String {
    format!("{id}: event {event} {content:?}")
}

pub(super) fn pending(id: Id, owner: Owner, count: u8, idle: bool) -> String {
    let idle = if idle { ", idle" } else { "" };
    match owner {
        Owner::Process(consumer) => format!("{id}: worker {} x{count}{idle}", consumer.name),
        parked => format!("{id}: {parked:?} x{count}{idle}"),
    }
}

pub(super) fn record(id: Id, record: Record) -> String {
    let due = match record.due {
        None => "",
        Some(Due::Now) => ", parked",
        Some(Due::FarAway) => ", parked for long",
    };
    let claimed = if record.claimed { ", claimed" } else { "" };
    format!(
        "{id}: {} failures, {:?} starts{due}{claimed}",
        record.failures, record.starts
    )
}

pub(super) fn letter(event: Event, reason: Reason) -> String {
    format!("event {event}, {reason:?}")
}

pub(super) fn name(queue: Queue) -> String {
    format!("{queue:?}")
}

pub(super) fn model(store: &Store) -> Shown {
    let mut shown = Shown::new();
    for queue in QUEUES {
        let (stream, group) = (store.stream(queue), store.group(queue));
        let entries = stream
            .entries
            .iter()
            .map(|e| entry(e.id, e.event, e.content));
        let rows = group
            .pending
            .iter()
            .map(|(id, p)| pending(*id, p.owner, p.count, p.idle));
        let records = group.attempts.iter().map(|(id, r)| record(*id, *r));
        shown.insert(name(queue), entries.collect());
        shown.insert(format!("{queue:?} read"), vec![group.last.to_string()]);
        shown.insert(format!("{queue:?} pending"), rows.collect());
        shown.insert(format!("{queue:?} attempts"), records.collect());
    }
    for of in [None, Some(0), Some(1)] {
        let letters = store.letters.iter().filter(|l| l.of == of);
        shown.insert(
            format!("dead {of:?}"),
            letters.map(|l| letter(l.event, l.reason)).collect(),
        );
    }
    let seen = store
        .seen
        .iter()
        .map(|(event, content)| format!("{event} {content:?}"));
    shown.insert("seen".into(), seen.collect());
    let effects = store
        .effects
        .iter()
        .map(|((of, event), times)| format!("{of}: {event} x{times}"));
    shown.insert("effects".into(), effects.collect());
    shown.insert("stats".into(), vec![format!("{:?}", store.stats)]);
    shown
}
