//! The JSON Schemas of all event types: `schemas/<EventType>.v<N>.json`, compiled once.
//!
//! Draft-07, formats asserted, patterns matched in linear time. Only references within a file are
//! followed: nothing is ever fetched, neither from the network nor from another file.

mod effort;
mod instance;
mod load;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use jsonschema::{ValidationError, Validator};
use serde_json::Value;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use self::instance::Instance;
use self::load::{file_names, load_file};
use crate::event_type::EventType;
use crate::json::Node;
use crate::routing::{Problem, read_bounded};
use crate::text::bounded;

const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_VIOLATIONS: usize = 16;
const MAX_MESSAGE_BYTES: usize = 300;
const MAX_POINTER_BYTES: usize = 300;
/// Values longer than this are not quoted in messages.
const MAX_QUOTED_BYTES: usize = 40;

/// All schemas of a folder, compiled.
#[derive(Debug)]
pub struct SchemaSet {
    /// Versions of each type, ascending.
    by_type: HashMap<EventType, Vec<Compiled>>,
    sorted: Vec<EventType>,
    content_hash: u64,
}

/// One version of an event type.
#[derive(Debug)]
struct Compiled {
    version: u32,
    /// Of the bytes of its file.
    hash: u64,
    /// Looks at events as they were parsed.
    judge: Validator<Instance>,
    /// Says what is wrong with those that are refused. What it collects refers to values of the
    /// event, which in the other representation would each be a copy.
    explain: Validator,
    /// How many of its references lead back to themselves.
    recursion: usize,
}

/// Why an event was not accepted by the schemas.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaRefusal {
    /// There is no schema for this event type in any version.
    #[error("no schema is known for this event type; add `<EventType>.v<N>.json`")]
    UnknownType,
    /// The type is known, but not in this version.
    #[error(
        "no schema is known for this version of the event type; known: {}",
        Listed(known)
    )]
    UnknownVersion {
        /// The versions that have a schema, ascending.
        known: Vec<u32>,
    },
    /// The event breaks its schema.
    #[error("the event breaks its schema: {}", Listed(.0))]
    Violations(Vec<Violation>),
}

/// One place where an event breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Violation {
    /// JSON pointer into the event; empty for the event as a whole.
    pub pointer: String,
    /// What is wrong there, at most 300 bytes; long values are not quoted.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pointer = if self.pointer.is_empty() {
            "/"
        } else {
            &self.pointer
        };
        write!(f, "{pointer}: {}", self.message)
    }
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl SchemaSet {
    /// Loads every `<EventType>.v<N>.json` of the folder. Hidden files and files that do not end
    /// in `.json` are ignored.
    ///
    /// # Errors
    /// Every problem of every file, in the order of file names.
    pub fn load(dir: &Path) -> Result<SchemaSet, Vec<Problem>> {
        let names = file_names(dir).map_err(|problem| vec![problem])?;
        let mut problems = Vec::new();
        let mut by_type: HashMap<EventType, Vec<Compiled>> = HashMap::new();
        let mut hash = Xxh3::new();
        for name in names {
            let path = dir.join(&name);
            let bytes = match read_bounded(&path, MAX_FILE_BYTES) {
                Ok(bytes) => bytes,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            for part in [name.as_bytes(), &bytes] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            match load_file(&path, &name, &bytes) {
                Ok((event_type, compiled)) => {
                    by_type.entry(event_type).or_default().push(compiled);
                }
                Err(more) => problems.extend(more),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if by_type.is_empty() {
            return Err(vec![Problem::error(
                dir,
                "the folder holds no schema",
                "add one file per event type, named like `Order.Created.v1.json`",
            )]);
        }
        for versions in by_type.values_mut() {
            versions.sort_by_key(|compiled| compiled.version);
        }
        let mut sorted: Vec<EventType> = by_type.keys().cloned().collect();
        sorted.sort();
        Ok(SchemaSet {
            by_type,
            sorted,
            content_hash: hash.digest(),
        })
    }

    /// Every event type that has a schema, once, sorted.
    pub fn event_types(&self) -> impl Iterator<Item = &EventType> {
        self.sorted.iter()
    }

    /// The versions of an event type that have a schema, ascending.
    pub fn versions(&self, event_type: &EventType) -> impl Iterator<Item = u32> {
        self.by_type
            .get(event_type)
            .into_iter()
            .flatten()
            .map(|compiled| compiled.version)
    }

    /// The files that it was read from, without `.json`, each with a hash of its bytes; sorted.
    pub fn files(&self) -> impl Iterator<Item = (String, u64)> {
        self.sorted.iter().flat_map(|event_type| {
            let versions = self.by_type.get(event_type).into_iter().flatten();
            versions.map(move |c| (format!("{event_type}.v{}", c.version), c.hash))
        })
    }

    /// Holds an event against the schema of its type and version.
    ///
    /// # Errors
    /// Why it is refused, with at most 16 violations.
    pub fn validate(
        &self,
        event_type: &str,
        version: u32,
        event: &Node<'_>,
    ) -> Result<(), SchemaRefusal> {
        let versions = self
            .by_type
            .get(event_type)
            .ok_or(SchemaRefusal::UnknownType)?;
        let Some(compiled) = versions.iter().find(|known| known.version == version) else {
            let known = versions.iter().map(|known| known.version).collect();
            return Err(SchemaRefusal::UnknownVersion { known });
        };
        // The common case does not collect anything.
        if compiled.judge.is_valid(event) {
            return Ok(());
        }
        let event = &event.to_value();
        if !effort::is_affordable(event, compiled.recursion) {
            return Err(SchemaRefusal::Violations(vec![Violation {
                pointer: String::new(),
                message:
                    "breaks its schema; where is not said, because it has too many values, or \
                          is nested too deep for a schema that refers to itself"
                        .to_owned(),
            }]));
        }
        let violations = compiled
            .explain
            .iter_errors(event)
            .take(MAX_VIOLATIONS)
            .map(violation)
            .collect();
        Err(SchemaRefusal::Violations(violations))
    }

    /// A stable hash of the names and bytes of all schema files.
    pub fn content_hash(&self) -> u64 {
        self.content_hash
    }
}

fn violation(error: ValidationError<'_>) -> Violation {
    let shown = match error.instance().as_ref() {
        Value::Array(_) => "the array".to_owned(),
        Value::Object(_) => "the object".to_owned(),
        scalar => {
            let text = scalar.to_string();
            if text.len() <= MAX_QUOTED_BYTES {
                text
            } else {
                "the value".to_owned()
            }
        }
    };
    Violation {
        pointer: bounded(error.instance_path().to_string(), MAX_POINTER_BYTES),
        message: bounded(error.masked_with(shown).to_string(), MAX_MESSAGE_BYTES),
    }
}
