//! Entries: what Redis answers becomes entries and dead letters, and no byte is lost on the way.

use redis::{FromRedisValue, Value};
use streamfleet::admission::{Refusal, Rejection};
use streamfleet::letter::Letter;
use streamfleet::store::{Entry, EntryId, Fields, read_streams};

use super::in_bounded_time;

/// The most odd fields that a letter keeps.
const MAX_EXTRA: usize = 1_000;

/// Decodes an answer as each of the things that it could be.
pub fn check(value: &Value) {
    in_bounded_time("decoding", || {
        if let Ok(fields) = Fields::from_redis_value(value.clone()) {
            every_field_in_order(value, &fields);
        }
        if let Ok(id) = EntryId::from_redis_value(value.clone()) {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let streams = read_streams(value.clone()).unwrap_or_default();
        let listed = Vec::<Entry>::from_redis_value(value.clone()).unwrap_or_default();
        let single = Entry::from_redis_value(value.clone()).ok();
        let entries = streams.into_iter().flat_map(|(_, entries)| entries);
        entries
            .chain(listed)
            .chain(single)
            .for_each(|entry| letters(&entry));
    });
}

fn every_field_in_order(value: &Value, fields: &Fields) {
    let Value::Array(items) = value else { return };
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) => text.clone().into_bytes(),
        Value::Int(number) => number.to_string().into_bytes(),
        other => panic!("{other:?} was taken for a text"),
    };
    let sent: Vec<_> = items
        .chunks_exact(2)
        .map(|p| (text(&p[0]), text(&p[1])))
        .collect();
    assert_eq!(fields.0, sent);
}

/// Whatever an entry holds, it can be set aside, shown, and sent back with its event untouched.
fn letters(entry: &Entry) {
    let event = entry.fields.get("event");
    let rejection = Rejection {
        code: Refusal::BadEnvelope,
        error: "why".into(),
        details: Vec::new(),
        event_id: None,
        event_type: None,
        published_by: None,
    };
    let refused = Letter::refused(entry.id, entry.fields.clone(), &rejection);
    assert!(refused.extra.0.len() <= MAX_EXTRA);
    let given_up = Letter::given_up(
        "x-service",
        "x-events",
        entry.id,
        &entry.fields,
        "rejected",
        "why",
        &Default::default(),
    );
    // An entry that somebody else wrote into a dead-letter stream.
    let foreign = Letter::from_entry(entry.clone());
    for letter in [refused, given_up, foreign] {
        assert_eq!(letter.event.as_deref(), event, "as received");
        let written = Entry {
            id: letter.id,
            fields: letter.to_fields(),
        };
        let read = Letter::from_entry(written);
        assert_eq!(read, letter);
        if event.is_some() {
            assert_eq!(read.redriven().get("event"), event);
        }
    }
}
