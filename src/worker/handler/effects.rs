//! Effects: the closed set of writes that a handler can ask for, collected while it runs and
//! applied by the commit script in one step with the acknowledgement, or not at all.
//!
//! What can be refused is refused here, before Redis sees anything: a key whose effects
//! disagree about its type, numbers that are not finite, too much of it.

use std::collections::HashMap;

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
    /// Something that does not turn into JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(String),
}

/// Everything one delivery asks for, encoded as `commit.lua` reads it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    keys: Vec<String>,
    index: HashMap<String, usize>,
    types: Vec<Option<&'static str>>,
    conditions: Vec<Vec<u8>>,
    condition_count: usize,
    effects: Vec<Vec<u8>>,
    effect_count: usize,
    follow_ups: Vec<Vec<u8>>,
    appended: HashMap<String, (u64, u64)>,
    bytes: usize,
}

impl Effects {
    /// Whether there is nothing to commit but the acknowledgement.
    pub(crate) fn is_empty(&self) -> bool {
        self.condition_count + self.effect_count + self.follow_ups.len() == 0
    }

    /// How many follow-ups there are so far: the index of the next one.
    pub(crate) fn follow_up_count(&self) -> usize {
        self.follow_ups.len()
    }

    /// Index of the key in KEYS of the script, after checking that all effects agree on its type.
    fn key(&mut self, key: &str, kind: Option<&'static str>) -> Result<usize, EffectError> {
        if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
            return Err(EffectError::BadKey(quoted(key)));
        }
        let at = match self.index.get(key) {
            Some(&at) => at,
            None => {
                self.keys.push(key.to_owned());
                self.types.push(None);
                self.index.insert(key.to_owned(), self.keys.len() - 1);
                self.keys.len() - 1
            }
        };
        match (self.types[at], kind) {
            (Some(before), Some(now)) if before != now => {
                return Err(EffectError::TypeConflict {
                    key: key.to_owned(),
                    before,
                    now,
                });
            }
            (None, Some(_)) => self.types[at] = kind,
            _ => {}
        }
        Ok(at + FIRST_EFFECT_KEY)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), EffectError> {
        self.bytes += bytes;
        let count = self.condition_count + self.effect_count + self.follow_ups.len();
        if self.bytes > MAX_BYTES || count >= MAX_EFFECTS {
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
        args: Vec<Vec<u8>>,
    ) -> Result<(), EffectError> {
        self.charge(key.len() + args.iter().map(Vec::len).sum::<usize>())?;
        let key = self.key(key, kind)?;
        self.effect_count += 1;
        self.effects
            .extend([command.into(), number(key), number(args.len())]);
        self.effects.extend(args);
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
        let key = self.key(key, Some(kind))?;
        self.condition_count += 1;
        self.conditions.extend([name.into(), number(key)]);
        self.conditions.extend(field.map(Into::into));
        self.conditions.push(if value.is_some() {
            b"1".to_vec()
        } else {
            b"0".to_vec()
        });
        self.conditions.push(value.unwrap_or_default().to_vec());
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
                let at = self.key(key, Some("stream"))?;
                self.condition_count += 1;
                self.conditions.extend([
                    "version".into(),
                    number(at),
                    expected.to_string().into_bytes(),
                ]);
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

    /// The keys of conditions and effects, and the rest of ARGV, for the commit script.
    pub(crate) fn encode(self, hops: u32) -> (Vec<String>, Vec<Vec<u8>>) {
        let mut request = Vec::with_capacity(
            3 + self.conditions.len() + self.effects.len() + self.follow_ups.len() * 2,
        );
        request.push(number(self.condition_count));
        request.extend(self.conditions);
        request.push(number(self.effect_count));
        request.extend(self.effects);
        request.push(number(self.follow_ups.len()));
        for json in self.follow_ups {
            request.push(json);
            request.push(hops.to_string().into_bytes());
        }
        (self.keys, request)
    }
}

/// In KEYS of `commit.lua`: stream, attempts and inbox come first.
const FIRST_EFFECT_KEY: usize = 4;

fn number(n: usize) -> Vec<u8> {
    n.to_string().into_bytes()
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
        let (keys, request) = effects.encode(1);
        assert_eq!(keys, ["es:Stock:1"]);
        let text: Vec<_> = request
            .iter()
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        assert_eq!(text[..4], ["1", "version", "4", "4"]);
        assert!(text.contains(&"7-0".to_owned()));
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
