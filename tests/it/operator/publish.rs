//! `streamfleet publish`.

use redis::Commands;
use serde_json::Value;

use crate::support::Fleet;

/// What is in the inbox, as it was written.
fn inbox(fleet: &Fleet) -> Vec<String> {
    let entries: redis::streams::StreamRangeReply = fleet.connection().xrange_all("inbox").unwrap();
    let text = |entry: redis::streams::StreamId| {
        redis::from_redis_value(entry.map["event"].clone()).unwrap()
    };
    entries.ids.into_iter().map(text).collect()
}

fn parsed(event: &str) -> Value {
    serde_json::from_str(event).unwrap()
}

#[test]
fn one_event_from_arguments() {
    let fleet = Fleet::new();
    let (id, flow) = (
        "0190b0a0-0000-7000-8000-000000000001",
        "0190b0a0-0000-7000-8000-000000000002",
    );
    let args = ["publish", "Test.Happened", "--data", r#"{"amount": 1.10}"#];
    let more = ["--event-id", id, "--correlation-id", flow, "--key", "k\"1"];
    let when = ["--timestamp", "2026-01-05T10:00:00+01:00"];
    let answer = fleet.ask(&[&args[..], &more, &when].concat()).ok();
    assert_eq!(answer, format!("published Test.Happened {id}\n"));
    let data = fleet.dir.path().join("data.json");
    std::fs::write(&data, r#"{"amount": 100000000000000000.10}"#).unwrap();
    let from_file = format!("@{}", data.display());
    fleet
        .ask(&["publish", "Test.Happened", "--data", &from_file])
        .ok();

    let events = inbox(&fleet);
    assert_eq!(events.len(), 2);
    let first = parsed(&events[0]);
    assert_eq!(
        (
            first["event_id"].as_str(),
            first["correlation_id"].as_str(),
            first["key"].as_str()
        ),
        (Some(id), Some(flow), Some("k\"1"))
    );
    assert_eq!(first["timestamp"], "2026-01-05T09:00:00Z");
    assert_eq!(first["version"], "1");
    assert!(
        events[0].ends_with(r#""data":{"amount": 1.10}}"#),
        "{}",
        events[0]
    );
    assert!(events[1].contains("100000000000000000.10"), "{}", events[1]);
}

#[test]
fn what_the_router_would_refuse_is_refused_before_it_is_sent() {
    let fleet = Fleet::new();
    let cases = [
        (
            ["Test.Happened", r#"{"amount": -1}"#],
            "schema_violation: /data/amount",
        ),
        (["Nobody.Knows", "{}"], "unknown_type"),
        (["Test.Happend", "{}"], "did you mean Test.Happened?"),
        (
            ["Test.Happened", r#"{}, "event_id": "x""#],
            "--data is not JSON",
        ),
        (["Test.Happened", r#"{"a": 1, "a": 2}"#], "duplicate_key"),
        (
            ["Test.Happened", "@/nowhere/data.json"],
            "/nowhere/data.json",
        ),
    ];
    for ([event_type, data], said) in cases {
        let ran = fleet.ask(&["publish", event_type, "--data", data]);
        let err = ran.failed(1);
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(inbox(&fleet).is_empty());
}

#[test]
fn a_bad_line_is_reported_and_does_not_stop_the_good_ones() {
    let fleet = Fleet::new();
    let lines = concat!(
        r#"{"event_type":"Test.Happened","version":"1","data":{"amount":0.10}}"#,
        "\n",
        "\n",
        r#"{"event_type":"Test.Happened","version":"1","data":{"amount":-1}}"#,
        "\r\n",
        "{oops\n",
        r#" {"event_id":"0190b0a0-0000-7000-8000-000000000001","event_type":"Test.Happened","version":"1","timestamp":"2026-01-05T10:00:00.5+01:00","correlation_id":"0190b0a0-0000-7000-8000-000000000002","extra":1E2,"data":{ "amount" : 12345678901234567890.10 }}"#,
    );
    let ran = fleet.ask_with(&["publish"], lines.as_bytes());
    assert_eq!(ran.out, "published 2, refused 2\n");
    let said = ran.failed(1);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("stdin:3: schema_violation: /data/amount "),
        "{said:?}"
    );
    assert!(said[1].starts_with("stdin:4: invalid_json: "), "{said:?}");

    let events = inbox(&fleet);
    assert_eq!(events.len(), 2);
    let first = parsed(&events[0]);
    for field in ["event_id", "timestamp", "correlation_id"] {
        assert!(first[field].is_string(), "{field} is filled in");
    }
    assert!(
        events[0]
            .ends_with(r#""event_type":"Test.Happened","version":"1","data":{"amount":0.10}}"#),
        "{}",
        events[0]
    );
    let last = lines.lines().last().unwrap();
    assert_eq!(events[1], last, "what is complete is sent byte for byte");
}

#[test]
fn lines_from_a_file_and_unchecked() {
    let fleet = Fleet::new();
    let file = fleet.dir.path().join("events.ndjson");
    std::fs::write(&file, "{oops\n{\"event_type\":\"Nobody.Knows\"}\n").unwrap();
    let file = file.display().to_string();
    let said = fleet.ask(&["publish", "--file", &file]).failed(1);
    assert!(said.contains(&format!("{file}:1: invalid_json")), "{said}");
    assert!(inbox(&fleet).is_empty());
    let answer = fleet
        .ask(&["publish", "--file", &file, "--no-validate"])
        .ok();
    assert_eq!(answer, "published 2, refused 0\n");
    assert_eq!(inbox(&fleet), ["{oops", r#"{"event_type":"Nobody.Knows"}"#]);
    let said = fleet.ask(&["publish", "--file", "/nowhere"]).failed(1);
    assert!(said.contains("/nowhere"), "{said}");
}

#[test]
fn a_repetition_is_harmless() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let event = r#"{"event_id":"0190b0a0-0000-7000-8000-000000000001","event_type":"Test.Happened","version":"1","data":{}}"#;
    for _ in 0..3 {
        fleet.ask_with(&["publish", "-"], event.as_bytes()).ok();
    }
    fleet.drained();
    assert_eq!(fleet.cli::<u64>("XLEN test-events"), 1);
    assert_eq!(fleet.cli::<u64>("HGET stats:router duplicates"), 2);
    drop(router);
}
