//! The parser: it reads what `serde_json` reads, value for value, and refuses what it should at
//! the same place. What it is held against is the plainest way to say the same.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use streamfleet::event::{Envelope, content_hash};
use streamfleet::event_type::EventType;
use streamfleet::json::{JsonError, Node, parse};
use xxhash_rust::xxh3::Xxh3;

use super::in_bounded_time;

/// Parses bytes with every small limit on depth, and hashes what comes out.
pub fn check(bytes: &[u8]) {
    for depth in [0, 1, 3, 8, 64] {
        let expected = plain(bytes, depth);
        match in_bounded_time("parsing", || parse(bytes, depth)) {
            Ok(node) => {
                assert_eq!(Ok(node.to_value()), expected);
                same_hash(&node);
                sorted(&node);
            }
            Err(error) => assert_eq!(place(error), place(expected.expect_err("it is refused"))),
        }
    }
}

/// Of a duplicate key, how much of it is quoted is not compared.
fn place(error: JsonError) -> JsonError {
    match error {
        JsonError::DuplicateKey(text) => {
            let place = text.rsplit(" appears twice in one object").next();
            JsonError::DuplicateKey(place.unwrap_or_default().to_owned())
        }
        other => other,
    }
}

fn sorted(node: &Node<'_>) {
    match node {
        Node::Array(items) => items.iter().for_each(sorted),
        Node::Object(fields) => {
            let keys: Vec<_> = fields.iter().map(|(key, _)| key).collect();
            assert!(keys.is_sorted_by(|one, two| one < two), "{keys:?}");
            for (key, value) in fields.iter() {
                assert_eq!(fields.get(key), Some(value));
                sorted(value);
            }
            assert!(fields.get("no such key").is_none() || keys.contains(&"no such key"));
        }
        _ => {}
    }
}

/// The limit on depth is told from other errors by its message, a duplicate key by what it says.
fn plain(bytes: &[u8], depth_left: usize) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::InvalidUtf8 {
        offset: e.valid_up_to(),
    })?;
    let mut input = serde_json::Deserializer::from_str(text);
    let value = Plain { depth_left }.deserialize(&mut input);
    value
        .and_then(|value| input.end().map(|()| value))
        .map_err(|error| match error.to_string() {
            text if text.starts_with("too deep") => JsonError::TooDeep {
                limit: depth_left,
                detail: format!("line {} column {}", error.line(), error.column()),
            },
            text if text.contains("appears twice in one object") => JsonError::DuplicateKey(text),
            text => JsonError::Invalid(text),
        })
}

#[derive(Clone, Copy)]
struct Plain {
    depth_left: usize,
}

impl Plain {
    fn enter<E: de::Error>(self) -> Result<Self, E> {
        let deeper = self.depth_left.checked_sub(1);
        let depth_left = deeper.ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = Value;
    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.enter()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.enter()?;
        let (mut object, mut seen) = (Map::new(), BTreeSet::new());
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                let key: String = key.chars().take(40).collect();
                return Err(de::Error::custom(format_args!(
                    "key {key:?} appears twice in one object"
                )));
            }
            object.insert(key, map.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}

/// Marks of duplicates outlive the process that wrote them, so the hash may never change: each
/// kind has a tag, each container its length, and 1 is 1.0.
fn same_hash(data: &Node<'_>) {
    fn feed(hash: &mut Xxh3, value: &Value) {
        let mut tagged = |tag: u8, len: usize| {
            hash.update(&[tag]);
            hash.update(&(len as u64).to_le_bytes());
        };
        match value {
            Value::Null => tagged(0, 0),
            Value::Bool(v) => tagged(1, usize::from(*v)),
            Value::Number(v) => {
                let float = v.as_f64().filter(|_| v.is_f64());
                let whole = float.filter(|f| f.fract() == 0.0 && f.abs() < 9e15);
                let text = whole.map_or_else(|| v.to_string(), |f| (f as i64).to_string());
                tagged(2, text.len());
                hash.update(text.as_bytes());
            }
            Value::String(v) => {
                tagged(3, v.len());
                hash.update(v.as_bytes());
            }
            Value::Array(items) => {
                tagged(4, items.len());
                items.iter().for_each(|item| feed(hash, item));
            }
            Value::Object(fields) => {
                tagged(5, fields.len());
                for (key, item) in fields {
                    hash.update(&(key.len() as u64).to_le_bytes());
                    hash.update(key.as_bytes());
                    feed(hash, item);
                }
            }
        }
    }
    let envelope = Envelope {
        event_id: Default::default(),
        event_type: EventType::parse("Test.Happened").unwrap(),
        version: 7,
        deliver_at: None,
        expires_at: None,
    };
    let mut hash = Xxh3::new();
    hash.update(b"Test.Happened");
    hash.update(&7_u32.to_le_bytes());
    feed(
        &mut hash,
        &data.get("data").map(Node::to_value).unwrap_or_default(),
    );
    let expected = format!("{:032x}", hash.digest128());
    assert_eq!(content_hash(&envelope, data), expected);
}
