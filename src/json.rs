//! Strict JSON: the one reader for events from outside.
//!
//! Beyond what `serde_json` refuses, it refuses duplicate keys (two parties could read two
//! different events from the same bytes) and nesting beyond a limit, and says where.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::text::bounded;

/// Of a longer key, messages quote the beginning.
const MAX_QUOTED_BYTES: usize = 128;

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
pub fn parse(bytes: &[u8], max_depth: usize) -> Result<Value, JsonError> {
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
struct Strict<'a> {
    depth_left: usize,
    fault: &'a Cell<Fault>,
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
    type Value = Value;
    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
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
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                self.fault.set(Fault::DuplicateKey);
                let key = bounded(key, MAX_QUOTED_BYTES);
                return Err(de::Error::custom(format_args!(
                    "key {key:?} appears twice in one object"
                )));
            }
            let value = map.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x"],"b":{"c":18446744073709551615}}"#;
        assert_eq!(
            parse(text.as_bytes(), 8).unwrap(),
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
