//! Reading one schema file: its name, its references, its constants, its compilation.

use std::fmt;
use std::path::Path;

use jsonschema::json::Json;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{Compiled, MAX_MESSAGE_BYTES, Violation, effort, violation};
use crate::event_type::EventType;
use crate::routing::Problem;
use crate::text::bounded;

const MAX_FILES: usize = 4096;
/// Bounds the memory that one compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;

/// The `.json` files of the folder, sorted.
pub(super) fn file_names(dir: &Path) -> Result<Vec<String>, Problem> {
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

/// Checks and compiles one file; every problem that it has.
pub(super) fn load_file(
    path: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(EventType, Compiled), Vec<Problem>> {
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
    let validators = if problems.is_empty() {
        compile(path, &schema).and_then(|judge| Ok((judge, compile(path, &schema)?)))
    } else {
        Err(None)
    };
    match (named, validators, problems.is_empty()) {
        (Ok((event_type, version)), Ok((judge, explain)), true) => {
            let compiled = Compiled {
                version,
                hash: xxh3_64(bytes),
                judge,
                explain,
                recursion: effort::recursion(&schema),
            };
            Ok((event_type, compiled))
        }
        (named, validators, _) => {
            problems.extend(validators.err().flatten());
            Err(named.err().into_iter().chain(problems).collect())
        }
    }
}

fn in_schema(path: &Path, pointer: &str, message: impl fmt::Display, fix: &str) -> Problem {
    let pointer = if pointer.is_empty() { "/" } else { pointer };
    Problem::error(path, format!("at {pointer}: {message}"), fix)
}

fn compile<F: Json>(path: &Path, schema: &Value) -> Result<Validator<F>, Option<Problem>> {
    let patterns = PatternOptions::regex()
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES);
    jsonschema::options_for::<F>()
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
