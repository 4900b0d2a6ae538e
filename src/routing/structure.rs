//! Structural problems: the file held against the JSON schema of the model.
//!
//! What is broken is taken out of the tree, so that the rest can still be read and checked.

use std::collections::HashSet;
use std::path::Path;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, ValidationError};
use serde_json::Value;

use super::model::json_schema;
use super::problem::{Problem, did_you_mean};
use super::yaml::{Node, Place, Yaml};

/// Features that the design names and that do not exist yet.
const LATER: [&str; 3] = ["deliver", "partitions", "tests"];

/// What the structural check found.
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Paths of everything that is missing or was taken out.
    pub(super) broken: Vec<Vec<String>>,
}

/// Reports every structural problem and takes what is broken out of the tree.
pub(super) fn check(file: &Path, tree: &mut Node) -> Findings {
    let mut found = Findings {
        problems: Vec::new(),
        broken: Vec::new(),
    };
    for (key, first, again) in tree.take_duplicates() {
        let message = format!("duplicate key `{key}`, first on line {}", first.line);
        let fix = "merge the two, or remove one";
        found
            .problems
            .push(Problem::error(file, message, fix).at(again.line, again.column));
    }
    let schema = json_schema();
    let json = tree.to_json();
    let validator = match jsonschema::options()
        .with_draft(Draft::Draft7)
        .offline()
        .build(&schema)
    {
        Ok(validator) => validator,
        Err(error) => {
            let message = format!("the schema of routing.yaml itself is broken: {error}");
            found
                .problems
                .push(Problem::error(file, message, "report this as a bug"));
            return found;
        }
    };
    let mut seen = HashSet::new();
    for error in validator.iter_errors(&json) {
        let path = segments(error.instance_path().as_str());
        for finding in describe(tree, &schema, &path, &error) {
            // A text can break the pattern and the length of a duration: one report is enough.
            if seen.insert(finding.subject.clone()) {
                let Place { line, column } = finding.place;
                found
                    .problems
                    .push(Problem::error(file, finding.message, finding.fix).at(line, column));
                found.broken.push(finding.subject);
            }
        }
    }
    for path in &found.broken {
        tree.refuse(&borrowed(path));
    }
    tree.sweep();
    found
}

struct Finding {
    subject: Vec<String>,
    place: Place,
    message: String,
    fix: String,
}

fn describe(
    tree: &Node,
    schema: &Value,
    path: &[String],
    error: &ValidationError<'_>,
) -> Vec<Finding> {
    let here = borrowed(path);
    let name = display_name(tree, &here);
    let part = part_of(schema, &here);
    let instance = error.instance();
    let (message, fix) = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unexpected
                .iter()
                .map(|key| unknown_field(tree, part, path, key))
                .collect();
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let mut subject = path.to_vec();
            subject.push(key.to_owned());
            let whole = if here.is_empty() {
                String::new()
            } else {
                format!(" in {name}")
            };
            return vec![Finding {
                subject,
                place: tree.key_place_of(&here),
                message: format!("missing field `{key}`{whole}"),
                fix: format!(
                    "add it: {}",
                    advice(part.and_then(|p| p.get("properties")?.get(key)), key)
                ),
            }];
        }
        ValidationErrorKind::Type { .. } if instance.is_null() => (
            format!("{name} has no value"),
            format!(
                "give it one, or remove the line; {}",
                advice_at(part, &here)
            ),
        ),
        ValidationErrorKind::Type { kind } => (
            format!(
                "{name} must be {}, found {}",
                expected(part, kind),
                shown(instance)
            ),
            advice_at(part, &here),
        ),
        ValidationErrorKind::Pattern { .. } | ValidationErrorKind::MaxLength { .. } => (
            format!("{name} must be a duration, found {}", shown(instance)),
            format!(
                "write a whole number and ms, s, m, h or d, without spaces; {}",
                advice_at(part, &here)
            ),
        ),
        ValidationErrorKind::Minimum { limit } => (
            format!("{name} must be at least {limit}, found {}", shown(instance)),
            advice_at(part, &here),
        ),
        ValidationErrorKind::Maximum { limit } => (
            format!("{name} must be at most {limit}, found {}", shown(instance)),
            advice_at(part, &here),
        ),
        ValidationErrorKind::MinItems { .. } => {
            (format!("{name} is empty"), advice_at(part, &here))
        }
        _ => (
            format!("{name}: {}", error.masked()),
            advice_at(part, &here),
        ),
    };
    vec![Finding {
        subject: path.to_vec(),
        place: tree.place_of(&here),
        message,
        fix,
    }]
}

fn unknown_field(tree: &Node, part: Option<&Value>, path: &[String], key: &str) -> Finding {
    let mut subject = path.to_vec();
    subject.push(key.to_owned());
    let known: Vec<&str> = part
        .and_then(|part| part.get("properties")?.as_object())
        .map(|fields| fields.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let (message, fix) = if LATER.contains(&key) {
        (
            format!("`{key}` does not exist yet"),
            "remove it until a release supports it".to_owned(),
        )
    } else {
        let fix = match did_you_mean(key, known.iter().copied()) {
            Some(guess) => format!("did you mean `{guess}`?"),
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        (format!("unknown field `{}`", cut(key)), fix)
    };
    Finding {
        place: tree.key_place_of(&borrowed(&subject)),
        subject,
        message,
        fix,
    }
}

/// The part of the schema that a path is held against.
fn part_of<'a>(schema: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |part, segment| {
        part.get("properties")
            .and_then(|fields| fields.get(segment))
            .or_else(|| {
                part.get("additionalProperties")
                    .filter(|more| more.is_object())
            })
            .or_else(|| part.get("items"))
    })
}

fn expected(part: Option<&Value>, kind: &TypeKind) -> &'static str {
    if part.is_some_and(|part| part.get("pattern").is_some()) {
        return "a duration";
    }
    let TypeKind::Single(kind) = kind else {
        return "another kind of value";
    };
    match kind.to_string().as_str() {
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "array" => "a list",
        "object" => "a map of fields",
        "boolean" => "true or false",
        _ => "another kind of value",
    }
}

fn advice_at(part: Option<&Value>, path: &[&str]) -> String {
    advice(part, path.last().copied().unwrap_or_default())
}

/// What the model says about a field, with its example.
fn advice(part: Option<&Value>, key: &str) -> String {
    let text = |field| part.and_then(|part| part.get(field)?.as_str());
    let about = text("description").unwrap_or("see the documentation of routing.yaml");
    let example = part
        .and_then(|part| part.get("examples")?.get(0))
        .map(|example| match example {
            Value::String(plain) if !plain.contains('*') => plain.clone(),
            other => other.to_string(),
        });
    let about = about.trim_end_matches('.');
    match example {
        // A position in a list is no key.
        Some(example) if key.is_empty() || key.parse::<usize>().is_ok() => {
            format!("{about}, for example `{example}`")
        }
        Some(example) => format!("{about}, for example `{key}: {example}`"),
        None => about.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map of fields".to_owned(),
        Value::String(text) => format!("the text `{}`", cut(text)),
        other => format!("`{other}`"),
    }
}

/// The first characters of a text that may be long.
pub(super) fn cut(text: &str) -> String {
    const MAX: usize = 60;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

fn display_name(tree: &Node, path: &[&str]) -> String {
    let Some((last, parents)) = path.split_last() else {
        return "the file".to_owned();
    };
    if tree
        .get(parents)
        .is_some_and(|parent| matches!(parent.value, Yaml::List(_)))
    {
        let number = last.parse::<usize>().unwrap_or_default() + 1;
        return format!("item {number} of {}", display_name(tree, parents));
    }
    format!("`{}`", cut(last))
}

/// The keys and positions of a JSON pointer.
fn segments(pointer: &str) -> Vec<String> {
    pointer
        .split('/')
        .skip(1)
        .map(|s| s.replace("~1", "/").replace("~0", "~"))
        .collect()
}

pub(super) fn borrowed(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
