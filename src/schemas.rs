//! The JSON Schemas of all event types: `schemas/<EventType>.v<N>.json`, compiled once.
//!
//! Draft-07, formats asserted, patterns matched in linear time. Only references within a file are
//! followed: nothing is ever fetched, neither from the network nor from another file.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::event_type::EventType;
use crate::routing::{Problem, read_bounded};

const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_FILES: usize = 4096;
/// Bounds the memory that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;
const MAX_VIOLATIONS: usize = 16;
const MAX_MESSAGE_BYTES: usize = 300;
const MAX_POINTER_BYTES: usize = 300;
/// Values longer than this are not quoted in messages.
const MAX_QUOTED_BYTES: usize = 40;

/// All schemas of a folder, compiled.
#[derive(Debug)]
pub struct SchemaSet {
    /// Versions of each type, ascending.
    by_type: HashMap<EventType, Vec<(u32, Validator)>>,
    sorted: Vec<EventType>,
    content_hash: u64,
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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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
        let mut by_type: HashMap<EventType, Vec<(u32, Validator)>> = HashMap::new();
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
                Ok((event_type, version, validator)) => {
                    by_type
                        .entry(event_type)
                        .or_default()
                        .push((version, validator));
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
            versions.sort_by_key(|(version, _)| *version);
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
            .map(|(version, _)| *version)
    }

    /// Holds an event against the schema of its type and version.
    ///
    /// # Errors
    /// Why it is refused, with at most 16 violations.
    pub fn validate(
        &self,
        event_type: &str,
        version: u32,
        event: &Value,
    ) -> Result<(), SchemaRefusal> {
        let versions = self
            .by_type
            .get(event_type)
            .ok_or(SchemaRefusal::UnknownType)?;
        let Some((_, validator)) = versions.iter().find(|(known, _)| *known == version) else {
            let known = versions.iter().map(|(known, _)| *known).collect();
            return Err(SchemaRefusal::UnknownVersion { known });
        };
        // The common case does not collect anything.
        if validator.is_valid(event) {
            return Ok(());
        }
        let violations = validator
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

/// Cuts a text at a character boundary, with `…` to say so.
fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// The `.json` files of the folder, sorted.
fn file_names(dir: &Path) -> Result<Vec<String>, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::error(
            dir,
            format!("cannot read the schema folder: {error}"),
            "point `schemas:` to the folder of <EventType>.v<N>.json files",
        )
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        // A name that is not UTF-8 is no event type either: the check of names says so.
        let name = name.to_string_lossy();
        if name.ends_with(".json") && !name.starts_with('.') {
            names.push(name.into_owned());
        }
        if names.len() > MAX_FILES {
            return Err(Problem::error(
                dir,
                format!("the folder holds more than {MAX_FILES} schemas"),
                "remove the schemas of versions that nobody sends any more",
            ));
        }
    }
    names.sort();
    Ok(names)
}

fn load_file(
    path: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(EventType, u32, Validator), Vec<Problem>> {
    let named = parse_file_name(path, name);
    let schema: Value = match serde_json::from_slice(bytes) {
        Ok(schema) => schema,
        Err(error) => {
            // The position is ours to print: cut it from serde_json's text.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            let (line, column) = (error.line() as u64, error.column() as u64);
            let problem = Problem::error(
                path,
                format!("not valid JSON: {text}"),
                "correct the JSON here",
            )
            .at(line, column);
            return Err(named.err().into_iter().chain([problem]).collect());
        }
    };
    let mut problems = Vec::new();
    check_draft(path, &schema, &mut problems);
    check_references(path, &schema, &mut String::new(), &mut problems);
    if let Ok((event_type, version)) = &named {
        check_constants(path, &schema, event_type, *version, &mut problems);
    }
    problems.extend(
        jsonschema::draft7::meta::validator()
            .iter_errors(&schema)
            .map(|error| {
                let Violation { pointer, message } = violation(error);
                in_schema(path, &pointer, message, "write the schema as draft-07 asks")
            }),
    );
    let validator = if problems.is_empty() {
        compile(path, &schema)
    } else {
        Err(None)
    };
    match (named, validator, problems.is_empty()) {
        (Ok((event_type, version)), Ok(validator), true) => Ok((event_type, version, validator)),
        (named, validator, _) => {
            problems.extend(validator.err().flatten());
            Err(named.err().into_iter().chain(problems).collect())
        }
    }
}

fn in_schema(path: &Path, pointer: &str, message: impl fmt::Display, fix: &str) -> Problem {
    let pointer = if pointer.is_empty() { "/" } else { pointer };
    Problem::error(path, format!("at {pointer}: {message}"), fix)
}

fn compile(path: &Path, schema: &Value) -> Result<Validator, Option<Problem>> {
    let patterns = PatternOptions::regex()
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES);
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .offline()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        // A misspelt format would check nothing.
        .should_ignore_unknown_formats(false)
        // Draft-07 itself does not know this one.
        .with_format("uuid", is_uuid)
        .build(schema)
        .map_err(|error| {
            let Violation { pointer, message } = violation(error);
            let fix = if pointer.ends_with("/pattern") || pointer.contains("/patternProperties") {
                "patterns are matched in linear time: no look-around, no back-references, and \
                 repetitions that stay small"
            } else {
                "correct the schema here"
            };
            Some(in_schema(path, &pointer, message, fix))
        })
}

/// The hyphenated form only: the parser alone would also take braces and `urn:uuid:`.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

fn parse_file_name(path: &Path, name: &str) -> Result<(EventType, u32), Problem> {
    let wrong = |why: String| {
        Problem::error(
            path,
            format!("the file name is not <EventType>.v<N>.json: {why}"),
            "rename it like `Order.Created.v1.json`, or move it out of the folder",
        )
    };
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let (event_type, version) = stem
        .rsplit_once(".v")
        .ok_or_else(|| wrong("it lacks the version".to_owned()))?;
    let number = version
        .parse::<u32>()
        .ok()
        .filter(|number| *number > 0 && number.to_string() == version)
        .ok_or_else(|| wrong("the version must be a whole number from 1".to_owned()))?;
    let event_type =
        EventType::parse(event_type).map_err(|error| wrong(format!("`{event_type}`: {error}")))?;
    Ok((event_type, number))
}

fn check_draft(path: &Path, schema: &Value, problems: &mut Vec<Problem>) {
    if let Some(draft) = schema.get("$schema").and_then(Value::as_str)
        && !draft.contains("json-schema.org/draft-07/schema")
    {
        let draft = bounded(draft.to_owned(), MAX_MESSAGE_BYTES);
        problems.push(in_schema(
            path,
            "/$schema",
            format_args!("the schema is written for `{draft}`, but is read as draft-07"),
            "write \"$schema\": \"http://json-schema.org/draft-07/schema#\"",
        ));
    }
}

/// The name of the file decides which events the schema is for; a schema that says otherwise
/// would refuse all of them.
fn check_constants(
    path: &Path,
    schema: &Value,
    event_type: &EventType,
    version: u32,
    problems: &mut Vec<Problem>,
) {
    let expected = [
        ("event_type", event_type.as_str().to_owned()),
        ("version", version.to_string()),
    ];
    for (field, expected) in expected {
        let pointer = format!("/properties/{field}/const");
        let Some(constant) = schema.pointer(&pointer) else {
            continue;
        };
        if constant.as_str() != Some(&expected) {
            let constant = bounded(constant.to_string(), MAX_MESSAGE_BYTES);
            problems.push(in_schema(
                path,
                &pointer,
                format_args!("it says {constant}, the file name says \"{expected}\""),
                "make the two agree; both are written as text, the version too",
            ));
        }
    }
}

/// Refuses every reference that leaves the file. Values that are data, not schemas, may say what
/// they like.
fn check_references(path: &Path, schema: &Value, at: &mut String, problems: &mut Vec<Problem>) {
    let length = at.len();
    let mut descend = |key: &str, value: &Value, at: &mut String| {
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        check_references(path, value, at, problems);
        at.truncate(length);
    };
    match schema {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                descend(&index.to_string(), item, at);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                if !matches!(key.as_str(), "const" | "enum" | "default" | "examples") {
                    descend(key, value, at);
                }
            }
            if let Some(target) = fields.get("$ref").and_then(Value::as_str)
                && !target.starts_with('#')
            {
                let target = bounded(target.to_owned(), MAX_MESSAGE_BYTES);
                problems.push(in_schema(
                    path,
                    &format!("{at}/$ref"),
                    format_args!("the reference `{target}` leaves the file; nothing is fetched"),
                    "copy what it names into \"definitions\" of this file and refer to it as \
                     \"#/definitions/…\"",
                ));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, schema) in files {
            std::fs::write(dir.path().join(name), schema.to_string()).unwrap();
        }
        dir
    }

    fn load_one(schema: Value) -> Result<SchemaSet, Vec<Problem>> {
        SchemaSet::load(folder(&[("Order.Created.v1.json", schema)]).path())
    }

    fn refusal(schema: Value) -> String {
        let problems = load_one(schema).unwrap_err();
        problems.iter().map(|p| format!("{p}\n")).collect()
    }

    fn violations(set: &SchemaSet, event: &Value) -> Vec<Violation> {
        match set.validate("Order.Created", 1, event) {
            Ok(()) => Vec::new(),
            Err(SchemaRefusal::Violations(violations)) => violations,
            Err(other) => panic!("{other}"),
        }
    }

    fn order() -> Value {
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "required": ["event_id", "data"],
            "properties": {
                "event_id": { "type": "string", "format": "uuid" },
                "event_type": { "const": "Order.Created" },
                "version": { "const": "1" },
                "timestamp": { "type": "string", "format": "date-time" },
                "data": { "type": "object", "properties": {
                    "email": { "type": "string", "format": "email" },
                    "lines": { "type": "array", "items": { "$ref": "#/definitions/line" } }
                } }
            },
            "definitions": { "line": { "type": "object", "required": ["quantity"],
                "properties": { "quantity": { "type": "integer", "minimum": 1 } } } }
        })
    }

    #[test]
    fn violations_carry_pointers_and_formats_are_asserted() {
        let set = load_one(order()).unwrap();
        let event = json!({
            "event_id": "6e1b9c1e-2b9a-4a44-9f9b-5cbb24f1a1aa", "timestamp": "2024-02-29T12:00:00Z",
            "data": { "email": "a@example.org", "lines": [{ "quantity": 2 }] }
        });
        assert_eq!(set.validate("Order.Created", 1, &event), Ok(()));
        let bad = json!({
            "event_id": "{6e1b9c1e-2b9a-4a44-9f9b-5cbb24f1a1aa}",
            "event_type": "Order.Paid", "timestamp": "2023-02-29T12:00:00Z",
            "data": { "email": "nobody", "lines": [{ "quantity": 0 }, {}] }
        });
        let mut pointers: Vec<_> = violations(&set, &bad)
            .into_iter()
            .map(|v| v.pointer)
            .collect();
        pointers.sort();
        assert_eq!(
            pointers,
            [
                "/data/email",
                "/data/lines/0/quantity",
                "/data/lines/1",
                "/event_id",
                "/event_type",
                "/timestamp"
            ]
        );
    }

    #[test]
    fn unknown_types_and_versions() {
        let dir = folder(&[
            ("Order.Created.v2.json", json!({})),
            ("Order.Created.v10.json", json!({})),
            ("User.Created.v1.json", json!({})),
        ]);
        std::fs::write(dir.path().join("README.md"), "not a schema").unwrap();
        std::fs::write(dir.path().join(".hidden.json"), "not a schema").unwrap();
        let set = SchemaSet::load(dir.path()).unwrap();
        assert_eq!(
            set.validate("Order.Paid", 1, &json!({})),
            Err(SchemaRefusal::UnknownType)
        );
        assert_eq!(
            set.validate("Order.Created", 1, &json!({})),
            Err(SchemaRefusal::UnknownVersion { known: vec![2, 10] })
        );
        let types: Vec<_> = set.event_types().map(EventType::as_str).collect();
        assert_eq!(types, ["Order.Created", "User.Created"]);
        assert_eq!(
            set.content_hash(),
            SchemaSet::load(dir.path()).unwrap().content_hash()
        );
        std::fs::write(dir.path().join("User.Created.v1.json"), "{ }").unwrap();
        assert_ne!(
            set.content_hash(),
            SchemaSet::load(dir.path()).unwrap().content_hash()
        );
    }

    #[test]
    fn messages_are_bounded_and_do_not_quote_long_values() {
        let set = load_one(
            json!({ "properties": { "data": { "items": { "maxLength": 3 } } },
            "additionalProperties": { "type": "integer" } }),
        )
        .unwrap();
        let secret = "secret".repeat(100);
        let found = violations(&set, &json!({ "data": vec![secret.as_str(); 50] }));
        assert_eq!(found.len(), MAX_VIOLATIONS);
        assert!(found.iter().all(|v| v.message.len() <= MAX_MESSAGE_BYTES));
        assert!(
            found.iter().all(|v| !v.message.contains("secret")),
            "{found:?}"
        );
        let found = violations(&set, &json!({ "é".repeat(1000): "x" }));
        assert!(found[0].pointer.len() <= MAX_POINTER_BYTES, "{found:?}");
    }

    #[test]
    fn every_problem_of_every_file() {
        let dir = folder(&[
            ("Order.Created.json", json!({})),
            ("Order.Paid.v01.json", json!({})),
            ("Order.v1.json", json!({})),
            (
                "User.Created.v1.json",
                json!({ "type": "strin", "minLength": -1 }),
            ),
            (
                "User.Updated.v2.json",
                json!({ "properties": { "event_type": { "const": "User.Created" },
                "version": { "const": 2 } } }),
            ),
        ]);
        std::fs::write(dir.path().join("Zoo.Opened.v1.json"), "{\n  \"a\": ,\n}").unwrap();
        let problems = SchemaSet::load(dir.path()).unwrap_err();
        let text: String = problems.iter().map(|p| format!("{p}\n")).collect();
        for part in [
            "Order.Created.json: error: the file name is not",
            "Order.Paid.v01.json: error: the file name is not",
            "Order.v1.json: error: the file name is not",
            "User.Created.v1.json: error: at /type",
            "User.Created.v1.json: error: at /minLength",
            "at /properties/event_type/const: it says \"User.Created\", the file name says \"User.Updated\"",
            "at /properties/version/const: it says 2",
            "Zoo.Opened.v1.json:2:8: error: not valid JSON: expected value",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn references_stay_in_the_file() {
        for target in [
            "http://127.0.0.1:1/x.json",
            "file:///etc/passwd",
            "other.json#/a",
        ] {
            let text = refusal(json!({ "properties": { "data": { "$ref": target } } }));
            assert!(
                text.contains("at /properties/data/$ref: the reference"),
                "{text}"
            );
        }
        // Hidden behind a property that is named like a keyword for data.
        let hidden = json!({ "properties": { "default": { "$ref": "http://127.0.0.1:1/x" } } });
        assert!(load_one(hidden).is_err());
        let based = json!({ "$id": "http://127.0.0.1:1/", "properties": {
            "data": { "$ref": "#/definitions/none" } } });
        assert!(load_one(based).is_err());
    }

    #[test]
    fn reference_loops_end() {
        let set = load_one(json!({
            "allOf": [{ "$ref": "#" }],
            "properties": { "data": { "$ref": "#/definitions/a" } },
            "definitions": { "a": { "$ref": "#/definitions/b" }, "b": { "$ref": "#/definitions/a" } }
        }));
        if let Ok(set) = set {
            let _ = set.validate(
                "Order.Created",
                1,
                &json!({ "data": { "data": [1, { "data": 2 }] } }),
            );
        }
        let tree =
            load_one(json!({ "required": ["v"], "properties": { "data": { "$ref": "#" } } }))
                .unwrap();
        let found = violations(&tree, &json!({ "v": 1, "data": { "v": 1, "data": {} } }));
        assert_eq!(found[0].pointer, "/data/data");
    }

    #[test]
    fn patterns_cannot_blow_up() {
        let start = Instant::now();
        let set = load_one(json!({ "properties": { "data": { "pattern": "^(a+)+$" } } })).unwrap();
        assert_eq!(
            violations(&set, &json!({ "data": format!("{}!", "a".repeat(50_000)) })).len(),
            1
        );
        let text =
            refusal(json!({ "properties": { "data": { "pattern": "((a{1000}){1000}){1000}" } } }));
        assert!(text.contains("at /properties/data/pattern"), "{text}");
        let text = refusal(json!({ "properties": { "data": { "pattern": "^(?=a)b" } } }));
        assert!(text.contains("no look-around"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_would_check_nothing_is_refused() {
        assert!(refusal(json!({ "format": "emial" })).contains("emial"));
        let text = refusal(json!({ "$schema": "https://json-schema.org/draft/2020-12/schema" }));
        assert!(text.contains("draft-07"), "{text}");
        let problems = SchemaSet::load(folder(&[]).path()).unwrap_err();
        assert!(problems[0].message.contains("no schema"));
    }
}
