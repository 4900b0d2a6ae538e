//! Hostile routing.yaml files and schemas, given to the real commands and processes.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::fleet::ROUTING;
use crate::support::{Fleet, event, eventually};

/// Far beyond what any of it takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// What `streamfleet check` says of a file, which must be that it cannot be used.
fn refused(fleet: &Fleet, file: &[u8]) -> String {
    std::fs::write(fleet.config(), file).unwrap();
    let start = Instant::now();
    let ran = fleet.ask(&["check"]);
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    assert_eq!(ran.code, Some(78), "{ran:?}");
    let said = ran.out + &ran.err;
    let harmful = said.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(harmful, None, "{said}");
    said
}

#[test]
fn a_hostile_routing_file_is_refused_at_once_and_says_why() {
    let fleet = Fleet::new();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{inner}]\n");
    }
    let crowd = |line: fn(usize) -> String| (0..30_000).map(line).collect::<String>();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("unfolds to more", bomb.into()),
        ("routing.yaml:1", "[".repeat(500_000).into()),
        ("routing.yaml:1", "{a: ".repeat(250_000).into()),
        ("routing.yaml:1", "- ".repeat(500_000).into()),
        ("larger than 1024 KiB", vec![b'#'; 2 << 20]),
        (
            "at most 25000 keys and values",
            crowd(|n| format!("k{n}: 1\n")).into(),
        ),
        (
            "at most 25000 keys and values",
            "a: 1\n".repeat(30_000).into(),
        ),
        ("not valid YAML", "version:\t1\n\tstreams: {}\n".into()),
        (
            "duplicate key `routes`",
            format!("{ROUTING}\nroutes: {{}}\n").into(),
        ),
        (
            "duplicate key `version`",
            format!("version: 1\n{ROUTING}").into(),
        ),
        (
            "routing.yaml:4: error: the file is not UTF-8",
            b"version: 1\n# \n# \n# \xff\n".into(),
        ),
        ("not UTF-8", [&b"\xff\xfe"[..], ROUTING.as_bytes()].concat()),
        ("not valid YAML", "a: &a [*a]\n".into()),
        ("not valid YAML", "a: *b\n".into()),
        (
            "`{}` cannot be the name of a stream",
            ROUTING.replace("more-events", "\"{}\"").into(),
        ),
        (
            "`a\\r\\nb` cannot be the name of a stream",
            ROUTING.replace("more-events", "\"a\\r\\nb\"").into(),
        ),
        (
            "cannot be the name of a subscriber",
            ROUTING.replace("other-service", "\"\\e[2J\"").into(),
        ),
        (
            "cannot be the name of a subscriber",
            ROUTING.replace("other-service", "\u{202e}x").into(),
        ),
        (
            "cannot be the name of a namespace",
            format!("namespace: \"{{shop}}\"\n{ROUTING}").into(),
        ),
        (
            "is not an event type or pattern",
            ROUTING
                .replace("Test.Happened:", "\"{Test}.\\r\\n\":")
                .into(),
        ),
        (
            "unknown field",
            format!("\"\\e]0;x\\a\": 1\n{ROUTING}").into(),
        ),
        ("the file is empty", b"".into()),
        ("", b"\0".into()),
    ];
    for (says, file) in rows {
        let said = refused(&fleet, &file);
        let start = String::from_utf8_lossy(&file[..file.len().min(60)]).into_owned();
        assert!(said.contains(says), "{start:?}: {said:.600}");
        assert!(said.len() < 20_000, "{start:?}: {} bytes", said.len());
    }
    let with_bom = format!("\u{feff}{ROUTING}");
    std::fs::write(fleet.config(), with_bom).unwrap();
    fleet.ask(&["check"]).ok();
}

/// A name of a file is shown as well.
#[test]
fn the_name_of_a_schema_file_cannot_move_the_cursor() {
    let fleet = Fleet::new();
    let name = "schemas/\u{1b}[2J\u{202e}.v1.json";
    std::fs::write(fleet.dir.path().join(name), "{}").unwrap();
    assert!(refused(&fleet, ROUTING.as_bytes()).contains("\\u{1b}[2J"));
    let mut router = fleet.start_router("r");
    assert_eq!(router.exit_code(), Some(78));
    assert!(!router.log_text().contains('\u{1b}'));
}

/// A reference to another place is refused, and nobody connects there.
#[test]
fn a_remote_reference_opens_no_connection() {
    let fleet = Fleet::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = format!("http://{}/x.json", listener.local_addr().unwrap());
    let good: serde_json::Value = json!({"$schema": "http://json-schema.org/draft-07/schema#"});
    let hidden = [
        json!({"$ref": target}),
        json!({"properties": {"data": {"$ref": format!("{target}#/a")}}}),
        json!({"definitions": {"const": {"$ref": target}}, "allOf": [{"$ref": "#/definitions/const"}]}),
        json!({"$id": target, "properties": {"data": {"$ref": "other.json"}}}),
        json!({"$schema": target}),
        json!({"properties": {"default": {"$ref": target}}}),
        json!({"items": [{"if": {"not": {"$ref": target}}}]}),
    ];
    let file = fleet.dir.path().join("schemas/Test.Happened.v1.json");
    for schema in hidden {
        std::fs::write(&file, schema.to_string()).unwrap();
        let said = refused(&fleet, ROUTING.as_bytes());
        assert!(said.contains("Test.Happened.v1.json"), "{schema}: {said}");
        assert_eq!(fleet.start_router("r").exit_code(), Some(78));
    }
    // What only names a place, as data does, is fine; and is not looked up either.
    let mut named = good.clone();
    named["properties"] =
        json!({"data": {"examples": [{"$ref": target}], "default": {"$ref": target}}});
    std::fs::write(&file, named.to_string()).unwrap();
    fleet.ask(&["check"]).ok();
    let _router = fleet.router("r");
    fleet.publish(&[event(json!({"$ref": target}))]);
    eventually("it is routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 1).then_some(())
    });
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// Patterns, references to themselves and crowds of errors cost the router no time to speak of.
#[test]
fn hostile_strings_and_looping_schemas_hold_up_nobody() {
    let fleet = Fleet::new();
    let either = json!({"oneOf": [{"$ref": "#/definitions/a"}, {"$ref": "#/definitions/b"}]});
    let kind = |name: &str| json!({"required": ["kind"], "properties": {"below": either, "kind": {"const": name}}});
    let schema = json!({
        "properties": {"data": {"$ref": "#/definitions/tree"}},
        "definitions": {"tree": {
            "properties": {
                "word": {"pattern": "^(a+)+$", "maxLength": 2_000_000},
                "other": {"pattern": "^(a|a)*(a|aa)+$"},
                "mail": {"format": "email"},
                "at": {"format": "date-time"},
                "list": {"uniqueItems": true, "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
                "below": {"$ref": "#/definitions/tree"},
                "either": either
            }
        }, "a": kind("a"), "b": kind("b")}
    });
    std::fs::write(
        fleet.dir.path().join("schemas/Test.Happened.v1.json"),
        schema.to_string(),
    )
    .unwrap();
    let bad = format!("{}!", "a".repeat(900_000));
    let mut nested = json!({"word": "b"});
    for _ in 0..3 {
        nested = json!({"below": nested});
    }
    let rows = [
        json!({"word": bad}),
        json!({"other": bad}),
        json!({"mail": bad}),
        json!({"at": bad}),
        json!({"list": vec![1; 450_000]}),
        nested,
        // Each level could be explained in two ways, of which each goes on to the next level.
        json!({"either": (0..58).fold(json!({"kind": "x"}), |below, _| json!({"kind": "a", "below": below}))}),
    ];
    let events: Vec<_> = rows.iter().cloned().map(event).collect();
    let router = fleet.router("r");
    let start = Instant::now();
    for hostile in &events {
        fleet.publish(&[hostile.clone(), event(json!({}))]);
    }
    eventually("each is decided about", || {
        (fleet.cli::<usize>("XLEN inbox") == 0).then_some(())
    });
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    assert_eq!(fleet.cli::<usize>("XLEN test-events"), events.len());
    let letters = fleet.dead("router");
    assert_eq!(letters.len(), events.len());
    assert!(
        letters
            .iter()
            .all(|letter| letter["reason"] == "schema_violation")
    );
    assert!(letters[5]["errors"].contains("/below/word\""));
    drop(router);
}
