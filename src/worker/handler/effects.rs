//! Effects: the closed set of writes that a handler can ask for, collected while it runs and
//! applied by the commit script in one step with the acknowledgement, or not at all.
//!
//! What can be refused is refused here, before Redis sees anything: a key whose effects
//! disagree about its type, numbers that are not finite, too much of it.

use std::collections::{BTreeMap, HashMap};

use crate::store::Asked;
use crate::text::bounded;

/// Effects, conditions and follow-ups of one delivery, together.
const MAX_EFFECTS: usize = 10_000;
/// Bytes of all their arguments.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The longest key.
const MAX_KEY: usize = 1024;
/// Of a longer name, errors quote the beginning, so that what they say about it is kept as well.
const MAX_QUOTED: usize = 128;

pub(super) fn quoted(name: &str) -> String {
    bounded(name.to_owned(), MAX_QUOTED)
}

/// An effect that cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EffectError {
    /// Two effects of one delivery treat one key as two types.
    #[error("key {key} is used as a {before} and as a {now} by one handler")]
    TypeConflict {
        /// The key.
        key: String,
        /// Type that an earlier effect gave it.
        before: &'static str,
        /// Type that this effect gives it.
        now: &'static str,
    },
    /// More than a commit may carry.
    #[error(
        "a handler may ask for {MAX_EFFECTS} effects of {MAX_BYTES} bytes in all; split the work into follow-up events"
    )]
    TooMuch,
    /// A key that names nothing, is too long or has control characters.
    #[error("key {0:?} must have 1 to {MAX_KEY} bytes and no control characters")]
    BadKey(String),
    /// A name of an entity or its id that would break the key apart.
    #[error("entity {0:?} must be made of letters, digits, `_`, `-` and `.`")]
    BadEntity(String),
    /// A score that is not a finite number.
    #[error("score {0} is not a finite number")]
    BadScore(String),
    /// An increment beyond 2^53, which clients would read wrongly.
    #[error("{0} is beyond ±2^53")]
    BadInteger(i64),
    /// An expiry of no time or of more than a hundred years.
    #[error("an expiry must be between 1 ms and 100 years")]
    BadExpiry,
    /// Two appends to one entity that do not follow each other.
    #[error(
        "appends to {entity} expect versions {first} and {second}; the second must expect {follows}"
    )]
    VersionGap {
        /// The entity.
        entity: String,
        /// Version that the first append expects.
        first: u64,
        /// Version that the second expects.
        second: u64,
        /// Version that the second should expect.
        follows: u64,
    },
    /// An append of nothing.
    #[error("an append needs at least one field, or one event")]
    Empty,
    /// A follow-up event that the router would refuse.
    #[error("follow-up {event_type}: {reason}")]
    FollowUp {
        /// Its type.
        event_type: String,
        /// Why it would be refused.
        reason: String,
    },
    /// An append to the event store while history is run again.
    #[error(
        "a rebuild may not append to the event store, where these events are already: a handler \
         that appends is no read model (Handler::READ_MODEL)"
    )]
    InRebuild,
    /// Something that does not turn into JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(String),
}

/// Everything one delivery asks for.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    types: HashMap<String, &'static str>,
    conditions: Vec<(String, Vec<Vec<u8>>)>,
    effects: Vec<(String, Vec<Vec<u8>>)>,
    follow_ups: Vec<Vec<u8>>,
    appended: HashMap<String, (u64, u64)>,
    /// Few append: boxed, it costs the others little.
    stored: Option<Box<Counted>>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Counted {
    /// Where it is counted.
    sizes: String,
    /// By kind of entity: one of the histories, and what is appended in all.
    entities: BTreeMap<String, (String, Stored)>,
}

/// What is appended to the event store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stored {
    /// Histories that begin.
    pub(crate) entities: u64,
    pub(crate) events: u64,
    /// Of types and data.
    pub(crate) bytes: u64,
}

impl Effects {
    /// Whether there is nothing to commit but the acknowledgement.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        self.conditions.len() + self.effects.len() + self.follow_ups.len()
    }

    /// How many follow-ups there are so far: the index of the next one.
    pub(crate) fn follow_up_count(&self) -> usize {
        self.follow_ups.len()
    }

    /// Checks a key, and that all who name it agree on its type.
    fn check(&mut self, key: &str, kind: Option<&'static str>) -> Result<(), EffectError> {
        if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
            return Err(EffectError::BadKey(quoted(key)));
        }
        let Some(now) = kind else { return Ok(()) };
        match self.types.get(key) {
            Some(&before) if before != now => Err(EffectError::TypeConflict {
                key: key.to_owned(),
                before,
                now,
            }),
            Some(_) => Ok(()),
            None => {
                self.types.insert(key.to_owned(), now);
                Ok(())
            }
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), EffectError> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES || self.count() >= MAX_EFFECTS {
            Err(EffectError::TooMuch)
        } else {
            Ok(())
        }
    }

    /// One effect: a Redis command on one key of a known type.
    pub(crate) fn effect(
        &mut self,
        command: &'static str,
        key: &str,
        kind: Option<&'static str>,
        mut args: Vec<Vec<u8>>,
    ) -> Result<(), EffectError> {
        self.charge(key.len() + args.iter().map(Vec::len).sum::<usize>())?;
        self.check(key, kind)?;
        args.insert(0, format!("{command} {}", args.len()).into_bytes());
        self.effects.push((key.to_owned(), args));
        Ok(())
    }

    /// A string must still have the value that was read.
    pub(crate) fn require(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), EffectError> {
        self.condition("string", key, "string", None, value)
    }

    /// A field of a hash must still have the value that was read.
    pub(crate) fn require_field(
        &mut self,
        key: &str,
        field: &str,
        value: Option<&[u8]>,
    ) -> Result<(), EffectError> {
        self.condition("field", key, "hash", Some(field), value)
    }

    fn condition(
        &mut self,
        name: &'static str,
        key: &str,
        kind: &'static str,
        field: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<(), EffectError> {
        self.charge(key.len() + value.map_or(0, <[u8]>::len))?;
        self.check(key, Some(kind))?;
        let present = if value.is_some() { "1" } else { "0" };
        let mut values = vec![name.into()];
        values.extend(field.map(Into::into));
        values.extend([present.into(), value.unwrap_or_default().to_vec()]);
        self.conditions.push((key.to_owned(), values));
        Ok(())
    }

    /// Appends events to an entity that must be at `expected`; a second append to the same
    /// entity must follow the first.
    pub(crate) fn append(
        &mut self,
        key: &str,
        expected: u64,
        events: Vec<Vec<Vec<u8>>>,
    ) -> Result<(), EffectError> {
        let count = events.len() as u64;
        match self.appended.get(key).copied() {
            Some((first, follows)) if follows != expected => {
                return Err(EffectError::VersionGap {
                    entity: key.to_owned(),
                    first,
                    second: expected,
                    follows,
                });
            }
            Some((first, _)) => {
                self.appended
                    .insert(key.to_owned(), (first, expected + count));
            }
            None => {
                self.charge(key.len())?;
                self.check(key, Some("stream"))?;
                let values = vec!["version".into(), expected.to_string().into_bytes()];
                self.conditions.push((key.to_owned(), values));
                self.appended
                    .insert(key.to_owned(), (expected, expected + count));
            }
        }
        for (version, mut fields) in (expected + 1..).zip(events) {
            fields.insert(0, format!("{version}-0").into_bytes());
            self.effect("XADD", key, Some("stream"), fields)?;
        }
        Ok(())
    }

    /// A follow-up event, already validated.
    pub(crate) fn follow_up(&mut self, json: Vec<u8>) -> Result<(), EffectError> {
        self.charge(json.len())?;
        self.follow_ups.push(json);
        Ok(())
    }

    /// Keeps count of what the event store takes, in the step that writes it: to look through all histories for
    /// that would take longer the more there are. `sizes` is where it is counted, `key` the history.
    pub(crate) fn count_stored(&mut self, sizes: &str, entity: &str, key: &str, more: Stored) {
        let counted = self.stored.get_or_insert_default();
        counted.sizes = sizes.to_owned();
        let entity = counted.entities.entry(entity.to_owned());
        let (_, stored) = entity.or_insert_with(|| (key.to_owned(), Stored::default()));
        stored.entities += more.entities;
        stored.events += more.events;
        stored.bytes += more.bytes;
    }

    /// For the commit script; `hops` is how far follow-ups are from the event that began the chain.
    pub(crate) fn encode(self, hops: u32) -> Asked {
        let counted = self.stored.map(|counted| *counted).unwrap_or_default();
        let mut asked = Asked {
            conditions: self.conditions.len(),
            effects: self.effects.len() + counted.entities.len(),
            follow_ups: self.follow_ups.len(),
            appends: !self.appended.is_empty(),
            ..Asked::default()
        };
        let Counted { sizes, entities } = counted;
        let counts = entities.into_iter().map(|(entity, (key, more))| {
            let numbers = [more.entities, more.events, more.bytes].map(|n| n.to_string());
            let args = [
                vec!["COUNT 5".into(), sizes.clone(), entity],
                numbers.into(),
            ]
            .concat();
            (key, args.into_iter().map(Vec::from).collect())
        });
        let effects = self.effects.into_iter().chain(counts);
        for (key, values) in self.conditions.into_iter().chain(effects) {
            asked.keys.push(key);
            asked.values.extend(values);
        }
        for json in self.follow_ups {
            asked.values.extend([json, hops.to_string().into_bytes()]);
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_has_one_type() {
        let mut effects = Effects::default();
        effects
            .effect(
                "HSET",
                "a",
                Some("hash"),
                vec![b"f".to_vec(), b"v".to_vec()],
            )
            .unwrap();
        effects.effect("DEL", "a", None, vec![]).unwrap();
        let error = effects
            .effect("SET", "a", Some("string"), vec![b"v".to_vec()])
            .unwrap_err();
        assert_eq!(
            error,
            EffectError::TypeConflict {
                key: "a".into(),
                before: "hash",
                now: "string"
            }
        );
        assert!(matches!(
            effects.effect("DEL", "a\r\nb", None, vec![]),
            Err(EffectError::BadKey(_))
        ));
    }

    #[test]
    fn appends_to_one_entity_merge_or_are_refused() {
        let mut effects = Effects::default();
        let event = || vec![b"type".to_vec(), b"X".to_vec()];
        effects
            .append("es:Stock:1", 4, vec![event(), event()])
            .unwrap();
        effects.append("es:Stock:1", 6, vec![event()]).unwrap();
        let gap = effects.append("es:Stock:1", 6, vec![event()]).unwrap_err();
        assert!(matches!(gap, EffectError::VersionGap { follows: 7, .. }));
        let asked = effects.encode(1);
        assert_eq!((asked.conditions, asked.effects), (1, 3));
        assert_eq!(asked.keys, ["es:Stock:1"; 4]);
        let values = asked.values.iter();
        let values: Vec<_> = values.map(|v| String::from_utf8_lossy(v)).collect();
        assert_eq!(values[..4], ["version", "4", "XADD 3", "5-0"]);
        assert_eq!(values[values.len() - 4..], ["XADD 3", "7-0", "type", "X"]);
    }

    #[test]
    fn a_commit_is_bounded() {
        let mut effects = Effects::default();
        let big = effects.effect("SET", "k", Some("string"), vec![vec![0; MAX_BYTES + 1]]);
        assert_eq!(big, Err(EffectError::TooMuch));
        let mut effects = Effects::default();
        let mut fill = (0..=MAX_EFFECTS).map(|i| effects.require(&format!("k{i}"), None));
        assert_eq!(fill.by_ref().position(|r| r.is_err()), Some(MAX_EFFECTS));
    }
}
