//! Strict JSON: the one reader for events from outside.
//!
//! Beyond what `serde_json` refuses, it refuses duplicate keys (two parties could read two
//! different events from the same bytes) and nesting beyond a limit, and says where. What it
//! reads borrows its texts from the input: nothing is copied but what is written with escapes.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::text::bounded;

/// Of a longer key, messages quote the beginning.
const MAX_QUOTED_BYTES: usize = 128;
/// Fewer fields than these are kept sorted as they come; moving them would cost more if there
/// were many.
const FEW_KEYS: usize = 16;
/// Room for the fields of most objects, so that they need not move as they grow.
const USUAL_KEYS: usize = 8;

/// A parsed JSON value, its texts borrowed from the input where they can be.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Node<'a> {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// What a 64-bit type holds.
    Number(Number),
    /// A text.
    String(Cow<'a, str>),
    /// Values in their order.
    Array(Vec<Node<'a>>),
    /// Fields.
    Object(Object<'a>),
}

/// The fields of a JSON object, sorted by key, each key once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Node<'a>)>);

impl<'a> Object<'a> {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key));
        at.ok().map(|at| &self.0[at].1)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields in the order of their keys.
    pub fn iter(&self) -> Fields<'_> {
        Fields(self.0.iter())
    }
}

/// The fields of an object in the order of their keys.
#[derive(Debug, Clone)]
pub struct Fields<'a>(std::slice::Iter<'a, (Cow<'a, str>, Node<'a>)>);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a Node<'a>);
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (&**key, value))
    }
}

impl<'a> Node<'a> {
    /// The value of a field; nothing if this is no object.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        match self {
            Self::Object(fields) => fields.get(key),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A copy in the common representation.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(*v),
            Self::Number(v) => Value::Number(v.clone()),
            Self::String(v) => Value::String(v.clone().into_owned()),
            Self::Array(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(fields) => {
                let copies = fields.iter().map(|(k, v)| (k.to_owned(), v.to_value()));
                Value::Object(copies.collect::<Map<_, _>>())
            }
        }
    }
}

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are not UTF-8; `offset` is the first byte that is not.
    #[error("byte {offset} is not valid UTF-8")]
    InvalidUtf8 {
        /// Offset of the first offending byte.
        offset: usize,
    },
    /// Not JSON at all, or a number that no 64-bit type holds.
    #[error("{0}")]
    Invalid(String),
    /// Objects and arrays nested deeper than the limit.
    #[error("nested deeper than {limit} levels: {detail}")]
    TooDeep {
        /// The limit that was exceeded.
        limit: usize,
        /// Where, as line and column.
        detail: String,
    },
    /// One object names a key twice.
    #[error("{0}")]
    DuplicateKey(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    TooDeep,
    DuplicateKey,
}

/// Parses one JSON text. `max_depth` counts nested objects and arrays; it must stay below
/// `serde_json`'s own recursion limit of 128 for the error to be ours.
pub fn parse(bytes: &[u8], max_depth: usize) -> Result<Node<'_>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::InvalidUtf8 {
        offset: e.valid_up_to(),
    })?;
    let fault = Cell::new(Fault::None);
    let mut input = serde_json::Deserializer::from_str(text);
    let seed = Strict {
        depth_left: max_depth,
        fault: &fault,
    };
    seed.deserialize(&mut input)
        .and_then(|value| input.end().map(|()| value))
        .map_err(|e| match fault.get() {
            Fault::None => JsonError::Invalid(e.to_string()),
            Fault::TooDeep => JsonError::TooDeep {
                limit: max_depth,
                detail: position(&e),
            },
            Fault::DuplicateKey => JsonError::DuplicateKey(e.to_string()),
        })
}

fn position(e: &serde_json::Error) -> String {
    format!("line {} column {}", e.line(), e.column())
}

#[derive(Clone, Copy)]
struct Strict<'f> {
    depth_left: usize,
    fault: &'f Cell<Fault>,
}

impl Strict<'_> {
    fn enter<E: de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => {
                self.fault.set(Fault::TooDeep);
                Err(E::custom("nested too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Node<'de>;
    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<Node<'de>, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Node<'de>, E> {
        Ok(Number::from_f64(v).map_or(Node::Null, Node::Number))
    }
    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Borrowed(v)))
    }
    fn visit_str<E>(self, v: &str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Owned(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<'de>, A::Error> {
        let inner = self.enter()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let inner = self.enter()?;
        let mut fields: Vec<(Cow<'de, str>, Node<'de>)> = Vec::new();
        let mut keys = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            // Where it goes, if it is not there yet.
            let place = if fields.len() < FEW_KEYS {
                fields.binary_search_by(|(known, _)| known.cmp(&key)).err()
            } else {
                if keys.is_empty() {
                    keys.extend(fields.iter().map(|(known, _)| known.clone()));
                }
                keys.insert(key.clone()).then_some(fields.len())
            };
            let Some(place) = place else {
                self.fault.set(Fault::DuplicateKey);
                let key = bounded(key.into_owned(), MAX_QUOTED_BYTES);
                return Err(de::Error::custom(format_args!(
                    "key {key:?} appears twice in one object"
                )));
            };
            if fields.is_empty() {
                fields.reserve_exact(USUAL_KEYS);
            }
            fields.insert(place, (key, map.next_value_seed(inner)?));
        }
        if !keys.is_empty() {
            fields.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
        }
        Ok(Node::Object(Object(fields)))
    }
}

/// The key of a field, borrowed where it can be.
struct Key<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Key<'de> {
    fn deserialize<D: de::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        input.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x"],"b":{"c":18446744073709551615}}"#;
        assert_eq!(
            parse(text.as_bytes(), 8).unwrap().to_value(),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn refuses_each_fault_with_its_own_error() {
        type Expected = fn(&JsonError) -> bool;
        let cases: [(&[u8], Expected); 8] = [
            (
                b"{\"a\":1,\"a\":2}",
                |e| matches!(e, JsonError::DuplicateKey(m) if m.contains("\"a\"")),
            ),
            (b"{\"x\":{\"a\":1,\"\\u0061\":2}}", |e| {
                matches!(e, JsonError::DuplicateKey(_))
            }),
            (b"[[[[1]]]]", |e| {
                matches!(e, JsonError::TooDeep { limit: 3, .. })
            }),
            (b"\"\xff\"", |e| {
                matches!(e, JsonError::InvalidUtf8 { offset: 1 })
            }),
            (b"{\"a\":", |e| matches!(e, JsonError::Invalid(_))),
            (b"{} {}", |e| matches!(e, JsonError::Invalid(_))),
            (b"1e400", |e| matches!(e, JsonError::Invalid(_))),
            (b"\"\\ud800\"", |e| matches!(e, JsonError::Invalid(_))),
        ];
        for (text, expected) in cases {
            let error = parse(text, 3).unwrap_err();
            assert!(
                expected(&error),
                "{}: {error:?}",
                String::from_utf8_lossy(text)
            );
        }
        let long = "k".repeat(100_000);
        let twice = format!("{{\"{long}\":1,\"{long}\":2}}");
        let error = parse(twice.as_bytes(), 3).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        let bomb = "[".repeat(100_000);
        assert!(matches!(
            parse(bomb.as_bytes(), 64),
            Err(JsonError::TooDeep { .. })
        ));
    }
}
