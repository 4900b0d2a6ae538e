//! What an event says, as one number: equal content is a duplicate, other content under the same ID
//! a conflict.

use std::io::Write;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::Envelope;
use crate::json::Node;

/// Room for what most events say.
const USUAL_CONTENT_BYTES: usize = 1024;

/// Identifies what an event says: equal for the same type, version and data, whatever the
/// order of keys and the white space. Two numbers are equal when they are the same double.
///
/// It is compared with marks that earlier versions left in Redis, so it may never change.
pub fn content_hash(envelope: &Envelope, event: &Node<'_>) -> String {
    let mut said = Vec::with_capacity(USUAL_CONTENT_BYTES);
    said.extend_from_slice(envelope.event_type.as_str().as_bytes());
    said.extend_from_slice(&envelope.version.to_le_bytes());
    say(&mut said, event.get("data").unwrap_or(&Node::Null));
    // The digits of a UUID are the fast way to write 128 bits.
    Uuid::from_u128(xxh3_128(&said)).simple().to_string()
}

/// Each kind has a tag and each container its length, so that no two values say the same bytes.
fn say(said: &mut Vec<u8>, value: &Node<'_>) {
    let mut tagged = |tag: u8, len: usize| {
        said.push(tag);
        said.extend_from_slice(&(len as u64).to_le_bytes());
    };
    match value {
        Node::Null => tagged(0, 0),
        Node::Bool(v) => tagged(1, usize::from(*v)),
        Node::Number(v) => {
            tagged(2, 0);
            let start = said.len();
            // 1 and 1.0 are the same double.
            let whole = v
                .as_f64()
                .filter(|f| v.is_f64() && f.fract() == 0.0 && f.abs() < 9e15);
            // Writing to memory cannot fail.
            let _ = match whole {
                Some(whole) => write!(said, "{}", whole as i64),
                None => write!(said, "{v}"),
            };
            let len = (said.len() - start) as u64;
            said[start - 8..start].copy_from_slice(&len.to_le_bytes());
        }
        Node::String(v) => {
            tagged(3, v.len());
            said.extend_from_slice(v.as_bytes());
        }
        Node::Array(items) => {
            tagged(4, items.len());
            items.iter().for_each(|item| say(said, item));
        }
        // Sorted by key.
        Node::Object(fields) => {
            tagged(5, fields.len());
            for (key, item) in fields.iter() {
                said.extend_from_slice(&(key.len() as u64).to_le_bytes());
                said.extend_from_slice(key.as_bytes());
                say(said, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_type::EventType;

    #[test]
    fn content_is_the_same_however_it_is_written_and_differs_when_it_differs() {
        let envelope = Envelope {
            event_id: Uuid::nil(),
            event_type: EventType::parse("Order.Created").unwrap(),
            version: 1,
            deliver_at: None,
            expires_at: None,
        };
        let hash = |data: &str| {
            let event = format!("{{\"data\":{data},\"timestamp\":\"ignored\"}}");
            content_hash(&envelope, &crate::json::parse(event.as_bytes(), 8).unwrap())
        };
        assert_eq!(
            hash(r#"{"a":1,"b":[2.5]}"#),
            hash(r#"{ "b": [2.50], "a": 1.0 }"#)
        );
        for other in [
            r#"{"a":2,"b":[2.5]}"#,
            r#"{"a":1,"b":["2.5"]}"#,
            r#"{"a":1,"b":2.5}"#,
            "{}",
        ] {
            assert_ne!(hash(r#"{"a":1,"b":[2.5]}"#), hash(other), "{other}");
        }
    }
}
