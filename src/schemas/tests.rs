//! What loads, what is refused, and what is said about events.

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

/// Judged as it would be if it had been sent.
fn validate(set: &SchemaSet, event_type: &str, event: &Value) -> Result<(), SchemaRefusal> {
    let text = event.to_string();
    let event = crate::json::parse(text.as_bytes(), 127).unwrap();
    set.validate(event_type, 1, &event)
}

fn violations(set: &SchemaSet, event: &Value) -> Vec<Violation> {
    match validate(set, "Order.Created", event) {
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
    assert_eq!(validate(&set, "Order.Created", &event), Ok(()));
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
        validate(&set, "Order.Paid", &json!({})),
        Err(SchemaRefusal::UnknownType)
    );
    assert_eq!(
        validate(&set, "Order.Created", &json!({})),
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
fn a_crowd_of_violations_is_refused_without_collecting_it() {
    const CROWD: usize = 60_000;
    let either = json!({ "anyOf": [{ "type": "string" }, { "type": "object" }] });
    let set = load_one(json!({ "properties": { "data": { "items": either } } })).unwrap();
    let found = violations(&set, &json!({ "data": vec![1; CROWD] }));
    assert_eq!((found.len(), found[0].pointer.as_str()), (1, ""));
    assert!(found[0].message.contains("too many values"), "{found:?}");
    let crowd = vec![json!("a"); CROWD];
    assert_eq!(violations(&set, &json!({ "data": crowd })), []);
    let found = violations(&set, &json!({ "data": ["a", 1], "other": vec![0; 1_000] }));
    assert_eq!(found[0].pointer, "/data/1");
}

/// One of two kinds, each made of either: every level would be explained twice over.
#[test]
fn a_schema_that_refers_to_itself_explains_what_is_not_nested_too_deep() {
    let either = json!({ "oneOf": [{ "$ref": "#/definitions/a" }, { "$ref": "#/definitions/b" }] });
    let kind = |name: &str| json!({ "required": ["kind"], "properties": { "below": either, "kind": { "const": name } } });
    let set = load_one(json!({
        "properties": { "data": either },
        "definitions": { "a": kind("a"), "b": kind("b") }
    }))
    .unwrap();
    let tree = |depth, leaf: &str| {
        let leaf = json!({ "kind": leaf });
        (0..depth).fold(leaf, |below, _| json!({ "kind": "b", "below": below }))
    };
    let start = Instant::now();
    assert_eq!(violations(&set, &json!({ "data": tree(60, "a") })), []);
    let found = violations(&set, &json!({ "data": tree(60, "x") }));
    assert!(found[0].message.contains("nested too deep"), "{found:?}");
    let found = violations(&set, &json!({ "data": tree(3, "x") }));
    assert_eq!(found[0].pointer, "/data");
    assert!(start.elapsed() < Duration::from_secs(5));
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
        let _ = validate(
            &set,
            "Order.Created",
            &json!({ "data": { "data": [1, { "data": 2 }] } }),
        );
    }
    let tree =
        load_one(json!({ "required": ["v"], "properties": { "data": { "$ref": "#" } } })).unwrap();
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
