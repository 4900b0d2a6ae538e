//! Entries as Redis sends them, decoded by moving the bytes.
//!
//! `redis::streams` would deep-copy every payload and lose the order of fields.

use std::fmt;
use std::str::FromStr;

use redis::{FromRedisValue, ParsingError, RedisWrite, ToRedisArgs, Value};

/// The ID of a stream entry, ordered as Redis orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryId {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Sequence number within the millisecond.
    pub seq: u64,
}

/// A text that is not an entry ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an entry ID such as 1700000000000-0")]
pub struct InvalidEntryId(String);

impl EntryId {
    /// The greatest there is.
    pub const LAST: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The smallest ID above this one; nothing is above the last.
    pub fn following(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self {
                ms: self.ms.checked_add(1)?,
                seq: 0,
            }),
        }
    }

    /// The same; the last one itself where there is none.
    pub fn next(self) -> Self {
        self.following().unwrap_or(self)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;
    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        match (ms.parse(), seq.parse()) {
            (Ok(ms), Ok(seq)) => Ok(Self { ms, seq }),
            _ => Err(InvalidEntryId(text.to_owned())),
        }
    }
}

impl ToRedisArgs for EntryId {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

impl FromRedisValue for EntryId {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text = String::from_redis_value(value)?;
        text.parse()
            .map_err(|e: InvalidEntryId| ParsingError::from(e.to_string()))
    }
}

/// The names of the fields of our entries.
pub struct StreamField;

impl StreamField {
    /// The event's JSON, exactly as sent.
    pub const EVENT: &'static str = "event";
    /// Event ID.
    pub const ID: &'static str = "id";
    /// Event type.
    pub const TYPE: &'static str = "type";
    /// Comma-separated subscribers that it is for.
    pub const TO: &'static str = "to";
    /// Length of the chain of follow-ups that led here.
    pub const HOPS: &'static str = "hops";
    /// How often the dead letter that this came from was redriven, this time included.
    pub const REDRIVES: &'static str = "redrives";
    /// Log of the attempts before the redrive, JSON.
    pub const HISTORY: &'static str = "history";
    /// Stream that the event was first delivered from.
    pub const STREAM: &'static str = "stream";
    /// Its entry ID there.
    pub const ENTRY: &'static str = "entry";
}

/// Fields in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    /// The first field of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(n, _)| n == name.as_bytes())
            .map(|(_, v)| v.as_slice())
    }
    /// The same as text; what is not UTF-8 counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }
    /// The same as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

impl FromRedisValue for Fields {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let items = match value {
            Value::Array(items) => items,
            Value::Map(pairs) => pairs.into_iter().flat_map(|(k, v)| [k, v]).collect(),
            // A deleted entry that is still pending.
            Value::Nil => Vec::new(),
            _ => return Err("the fields of an entry are not an array".into()),
        };
        let mut fields = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            fields.push((bytes(name)?, bytes(value)?));
        }
        Ok(Self(fields))
    }
}

fn bytes(value: Value) -> Result<Vec<u8>, ParsingError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err("a field of an entry is not a string".into()),
    }
}

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its ID.
    pub id: EntryId,
    /// Its fields.
    pub fields: Fields,
}

impl FromRedisValue for Entry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (id, fields) = FromRedisValue::from_redis_value(value)?;
        Ok(Self { id, fields })
    }
}

/// The answer of XREAD and XREADGROUP: entries per stream key; nothing when it timed out.
pub fn read_streams(value: Value) -> Result<Vec<(String, Vec<Entry>)>, ParsingError> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::Map(pairs) => pairs
            .into_iter()
            .map(|(key, entries)| {
                Ok((
                    String::from_redis_value(key)?,
                    Vec::from_redis_value(entries)?,
                ))
            })
            .collect(),
        other => FromRedisValue::from_redis_value(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_followed_without_a_gap() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        assert_eq!(id("7-1").following(), Some(id("7-2")));
        assert_eq!(id("7-18446744073709551615").following(), Some(id("8-0")));
        assert_eq!(EntryId::LAST.following(), None);
    }

    #[test]
    fn ids_order_as_numbers() {
        let ids: Vec<EntryId> = ["9-1", "10-0", "10-11", "10-9"]
            .map(|t| t.parse().unwrap())
            .into();
        assert!(ids[0] < ids[1] && ids[3] < ids[2]);
        assert_eq!(ids[2].to_string(), "10-11");
        for bad in ["", "-", "a-1", "1-b", "1-2-3", "-1-0"] {
            assert!(bad.parse::<EntryId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn decodes_a_reply_in_order_and_survives_odd_fields() {
        let bulk = |t: &str| Value::BulkString(t.as_bytes().to_vec());
        let entry = Value::Array(vec![
            bulk("5-1"),
            Value::Array(vec![bulk("b"), bulk("1"), bulk("a"), bulk("\u{1}")]),
        ]);
        let reply = Value::Array(vec![Value::Array(vec![
            bulk("s"),
            Value::Array(vec![entry]),
        ])]);
        let streams = read_streams(reply).unwrap();
        assert_eq!(streams[0].0, "s");
        assert_eq!(streams[0].1[0].fields.text("b"), Some("1"));
        assert_eq!(streams[0].1[0].fields.0[1].0, b"a");
        assert!(read_streams(Value::Nil).unwrap().is_empty());
        assert!(read_streams(Value::Array(vec![Value::Int(3)])).is_err());
    }
}
