//! How much work it would be to say where an event breaks its schema.
//!
//! Whether it does is found in a time that grows with the event. But to say where, the validator
//! collects every violation on every path through the schema before it hands out the first, and
//! below a schema that refers to itself in several places the paths multiply with each level of
//! the event: some hundred bytes could cost gigabytes.

use std::collections::HashSet;

use serde_json::Value;

/// Most paths to values of one event that are looked at; each may cost some kilobytes.
const MAX_PATHS: usize = 50_000;
/// Of more references than these it is not looked into which are recursive: all count.
const MAX_REFERENCES: usize = 300;

/// Whether saying where this event breaks its schema is affordable. `recursion` is that of the
/// schema.
pub(super) fn is_affordable(event: &Value, recursion: usize) -> bool {
    let per_level = recursion.max(1);
    let mut left = MAX_PATHS;
    is_within(event, 1, per_level, &mut left)
}

/// Takes the paths to a value and to all below it off what is left; false if it does not suffice.
fn is_within(value: &Value, paths: usize, per_level: usize, left: &mut usize) -> bool {
    match left.checked_sub(paths) {
        Some(fewer) => *left = fewer,
        None => return false,
    }
    let below = paths.saturating_mul(per_level);
    match value {
        Value::Array(items) => items.iter().all(|v| is_within(v, below, per_level, left)),
        Value::Object(fields) => fields
            .values()
            .all(|v| is_within(v, below, per_level, left)),
        _ => true,
    }
}

/// How many references of a schema lead back to themselves.
pub(super) fn recursion(schema: &Value) -> usize {
    let mut references = Vec::new();
    collect(schema, schema, &mut String::new(), &mut references);
    if references.len() > MAX_REFERENCES {
        return references.len();
    }
    let all = 0..references.len();
    all.filter(|start| leads_back(*start, &references)).count()
}

/// A reference: where it stands, and what it names, as JSON pointers.
struct Reference {
    at: String,
    target: String,
}

/// Whether following a reference, and those below what it names, comes to it again.
fn leads_back(start: usize, references: &[Reference]) -> bool {
    let mut seen = HashSet::new();
    let mut next = vec![start];
    while let Some(from) = next.pop() {
        let Some(Reference { target, .. }) = references.get(from) else {
            continue;
        };
        for (index, reference) in references.iter().enumerate() {
            let below = reference.at.strip_prefix(target.as_str());
            if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && seen.insert(index)
            {
                next.push(index);
            }
        }
    }
    seen.contains(&start)
}

fn collect(root: &Value, schema: &Value, at: &mut String, found: &mut Vec<Reference>) {
    let length = at.len();
    let mut descend = |key: &str, part: &Value| {
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        collect(root, part, at, found);
        at.truncate(length);
    };
    // Values that are data are looked into as well: whether they are cannot be told by their names.
    match schema {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, part)| descend(&index.to_string(), part)),
        Value::Object(fields) => fields.iter().for_each(|(key, part)| descend(key, part)),
        _ => {}
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        // What is named in another way than by a pointer could be anything: all of it.
        let target = target.strip_prefix('#').unwrap_or_default();
        let target = root.pointer(target).map_or("", |_| target);
        found.push(Reference {
            at: at.clone(),
            target: target.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_that_lead_back_are_counted() {
        let reference = |to: &str| json!({ "$ref": to });
        let cases = [
            (json!({}), 0),
            (
                json!({"properties": {"a": reference("#/definitions/a")}, "definitions": {"a": {}}}),
                0,
            ),
            (json!({"properties": {"a": reference("#")}}), 1),
            (
                json!({"properties": {"a": reference("#"), "default": reference("#")}}),
                2,
            ),
            (json!({"properties": {"a": {"default": reference("#")}}}), 1),
            (json!({"properties": {"a": reference("#name")}}), 1),
            (
                json!({"items": reference("#/definitions/a"), "definitions": {
                    "a": {"items": reference("#/definitions/b")},
                    "ab": {"items": reference("#/definitions/a")},
                    "b": {"anyOf": [reference("#/definitions/a"), reference("#/definitions/c")]},
                    "c": {"type": "string"}}}),
                2,
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(recursion(&schema), expected, "{schema}");
        }
        let many = vec![reference("#/definitions/a"); MAX_REFERENCES + 1];
        let many = json!({"allOf": many, "definitions": {"a": {}}});
        assert_eq!(recursion(&many), MAX_REFERENCES + 1);
    }

    #[test]
    fn paths_multiply_with_each_level() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(is_affordable(&nested(60), 0));
        assert!(is_affordable(&nested(60), 1));
        assert!(is_affordable(&nested(14), 2));
        assert!(!is_affordable(&nested(16), 2));
        assert!(!is_affordable(&nested(60), usize::MAX));
        assert!(is_affordable(&json!(vec![1; MAX_PATHS - 1]), 1));
        assert!(!is_affordable(&json!(vec![1; MAX_PATHS]), 1));
    }
}
