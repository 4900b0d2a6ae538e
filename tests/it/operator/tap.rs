//! `streamfleet tap`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::support::cli::{items, streamfleet};
use crate::support::fleet::{id, typed};
use crate::support::{Fleet, event, eventually};

fn tap(fleet: &Fleet, args: &[&str]) -> Child {
    let mut command = streamfleet(&[&["tap"], args].concat());
    command.env("STREAMFLEET_CONFIG", fleet.config());
    command.env("STREAMFLEET_REDIS_URL", fleet.url());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until it follows: it blocks in XREAD.
fn follows(fleet: &Fleet, taps: usize) {
    eventually("it follows", || {
        let clients: String = fleet.cli("CLIENT LIST");
        (clients.matches("cmd=xread ").count() == taps).then_some(())
    });
}

#[test]
fn what_was_appended_is_told_in_a_line_each() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let mut first = event(json!({"text": "secret\u{1b}[2J\u{202e}"}));
    first["source"] = json!("web-1");
    let second = typed("More.Happened", json!({}));
    fleet.publish(&[first.clone(), second.clone()]);
    eventually("both are routed", || {
        let length = |stream: &str| fleet.cli::<u64>(&format!("XLEN {stream}"));
        (length("test-events") + length("more-events") == 2).then_some(())
    });
    let text = fleet.ask(&["tap", "--since", "1h", "--count", "2"]).ok();
    let line = text
        .lines()
        .find(|line| line.contains("Test.Happened"))
        .unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    let at: jiff::Timestamp = words[0].parse().unwrap();
    assert!(at <= jiff::Timestamp::now());
    let correlation = first["correlation_id"].as_str().unwrap();
    assert_eq!(
        words[1..],
        [
            "Test.Happened",
            &id(&first),
            "web-1",
            "test-events",
            correlation
        ]
    );
    assert_eq!(text.lines().count(), 2);

    let only = [
        "tap", "More.**", "--since", "1h", "--count", "1", "--output", "json",
    ];
    let only = fleet.ask(&only).json();
    assert_eq!(
        (&only["event_id"], &only["source"]),
        (&second["event_id"], &Value::Null)
    );
    assert!(
        only.get("data").is_none(),
        "not unless it is asked for: {only}"
    );
    let data = fleet
        .ask(&["tap", "--since", "1h", "--count", "2", "--data"])
        .ok();
    assert!(
        data.contains("secret") && !data.contains(['\u{1b}', '\u{202e}']),
        "{data:?}"
    );
    let ran = fleet.ask(&[
        "tap",
        "Test.Happend",
        "--since",
        "1h",
        "--count",
        "1",
        "--output",
        "wrong",
    ]);
    ran.failed(2);
}

#[test]
fn it_follows_until_it_is_told_to_stop_and_leaves_no_trace() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let whole = tap(&fleet, &["--output", "json"]);
    let mut lines = tap(&fleet, &["Test.**", "--output", "jsonl"]);
    follows(&fleet, 2);
    let sent = event(json!({}));
    fleet.publish(&[typed("More.Happened", json!({})), sent.clone()]);
    let mut read = BufReader::new(lines.stdout.take().unwrap());
    let mut line = String::new();
    read.read_line(&mut line).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["kind"], &line["item"]["event_id"]),
        (&json!("events"), &sent["event_id"])
    );
    // Those of the two subscribers, and no other.
    let groups: redis::Value = fleet.cli("XINFO GROUPS test-events");
    assert_eq!(
        format!("{groups:?}").matches("last-delivered-id").count(),
        2,
        "{groups:?}"
    );

    // The reader goes away: it notices though nothing comes.
    drop(read);
    let status = eventually("it ends with its reader", || lines.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let pid = rustix::process::Pid::from_child(&whole);
    eventually("both came by", || {
        (fleet.cli::<u64>("XLEN test-events") == 1).then_some(())
    });
    follows(&fleet, 1);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = whole.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let found = items(std::str::from_utf8(&ended.stdout).unwrap());
    assert!(
        found.iter().any(|one| one["event_id"] == sent["event_id"]),
        "{found:?}"
    );
}
