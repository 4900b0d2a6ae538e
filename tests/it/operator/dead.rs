//! `streamfleet dead list`, `show` and `discard`.

use redis::Commands;
use serde_json::{Value, json};

use crate::support::fleet::{Process, typed};
use crate::support::{Fleet, event, eventually};

/// A fleet with five letters: two of the router, two of probe-service, one of other-service.
fn five_letters() -> (Fleet, [Process; 3]) {
    let fleet = Fleet::new();
    let processes = [
        fleet.router("r"),
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    let _: String = fleet.cli("XADD inbox * event {oops comment kept");
    fleet.publish(&[
        event(json!({"amount": -1.50})),
        event(json!({"do": "reject"})),
        event(json!({"do": "fail"})),
        typed("More.Happened", json!({"do": "reject"})),
    ]);
    eventually("five letters", || {
        let count = |owner: &str| fleet.dead(owner).len();
        let counts = ["router", "probe-service", "other-service"].map(count);
        (counts == [2, 2, 1]).then_some(())
    });
    (fleet, processes)
}

fn listed(fleet: &Fleet, filter: &[&str]) -> Vec<Value> {
    let args = [&["dead", "list", "--output", "json"], filter].concat();
    fleet.ask(&args).items()
}

#[test]
fn letters_are_listed_by_whatever_tells_them_apart() {
    let (fleet, _processes) = five_letters();
    let an_hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let an_hour_ago = an_hour_ago.to_string();
    let cases: [(&[&str], usize); 15] = [
        (&[], 5),
        (&["--subscriber", "probe-service"], 2),
        (&["--subscriber", "router"], 2),
        (&["--subscriber", "nobody"], 0),
        (&["--type", "Test.Happened"], 3),
        (&["--type", "More.**"], 1),
        (&["--reason", "rejected"], 2),
        (
            &["--reason", "rejected", "--subscriber", "probe-service"],
            1,
        ),
        (&["--error", "told to"], 3),
        (&["--error", "told to fail"], 1),
        (&["--since", "1h"], 5),
        (&["--until", "1h"], 0),
        (&["--since", &an_hour_ago, "--until", "0s"], 5),
        (&["--until", &an_hour_ago], 0),
        (&["--limit", "5"], 5),
    ];
    for (filter, count) in cases {
        assert_eq!(listed(&fleet, filter).len(), count, "{filter:?}");
    }
    let ran = fleet.ask(&["dead", "list", "--limit", "2"]);
    assert!(ran.err.contains("there are more"), "{ran:?}");
    assert_eq!(ran.ok().lines().count(), 3, "a header and two letters");
    let none = fleet.ask(&["dead", "list", "--subscriber", "nobody"]).ok();
    assert_eq!(none, "no dead letters\n");
}

#[test]
fn a_letter_says_everything() {
    let (fleet, _processes) = five_letters();
    let letter = listed(&fleet, &["--reason", "exhausted"]).remove(0);
    let id = letter["id"].as_str().unwrap();
    let show = ["dead", "show", "probe-service", id];
    let shown = fleet
        .ask(&[&show[..], &["--output", "json"]].concat())
        .json();
    assert_eq!(shown, letter, "both commands say the same");
    assert_eq!(
        (
            shown["stream"].as_str(),
            shown["error"].as_str(),
            shown["redrives"].as_u64()
        ),
        (Some("test-events"), Some("told to fail"), Some(0))
    );
    assert_eq!(shown["event"]["data"], json!({"do": "fail"}));
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 3);
    let text = fleet.ask(&show).ok();
    for part in [
        "subscriber  probe-service\n",
        "reason      exhausted\n",
        "redrives    0\n",
        "ATTEMPTS\n",
        "\"do\": \"fail\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let refused = listed(&fleet, &["--reason", "schema_violation"]).remove(0);
    assert_eq!(refused["errors"][0]["pointer"], "/data/amount");
    let odd = listed(&fleet, &["--reason", "invalid_json"]).remove(0);
    assert_eq!(
        (&odd["event"], &odd["event_text"]),
        (&Value::Null, &json!("{oops"))
    );
    let text = fleet
        .ask(&["dead", "show", "router", odd["id"].as_str().unwrap()])
        .ok();
    assert!(
        text.contains("comment: kept\n") && text.contains("{oops\n"),
        "{text}"
    );

    let said = fleet.ask(&["dead", "show", "router", "1-1"]).failed(1);
    assert!(
        said.contains("there is no dead letter 1-1 of router"),
        "{said}"
    );
}

#[test]
fn letters_are_thrown_away_only_as_told() {
    let (fleet, _processes) = five_letters();
    fleet.drained();
    let before = fleet.snapshot();
    let rejected = ["dead", "discard", "--reason", "rejected"];
    let would = fleet.ask(&[&rejected[..], &["--dry-run"]].concat()).ok();
    assert_eq!(would.lines().count(), 3, "{would}");
    assert!(
        would.contains("Test.Happened rejected\n") && would.contains("More.Happened rejected\n")
    );
    assert!(would.ends_with("would discard 2 letters\n"), "{would}");
    let streams = |all: Vec<(String, Vec<u8>)>| -> Vec<_> {
        all.into_iter()
            .filter(|(key, _)| key.starts_with("dead:"))
            .collect()
    };
    assert_eq!(
        streams(fleet.snapshot()),
        streams(before),
        "a dry run changes nothing"
    );

    let said = fleet.ask(&rejected).failed(1);
    assert!(said.contains("add --yes if it is meant"), "{said}");
    assert_eq!(listed(&fleet, &[]).len(), 5, "nobody said yes");
    let meant = [&rejected[..], &["--yes"]].concat();
    assert_eq!(fleet.ask(&meant).ok(), "discarded 2 letters\n");
    assert_eq!(listed(&fleet, &[]).len(), 3);
    let id = listed(&fleet, &["--reason", "exhausted"])[0]["id"].to_string();
    let id = id.trim_matches('"');
    let ran = fleet.ask(&["dead", "discard", id, "1-1", "--yes"]);
    assert_eq!(ran.out, "discarded 1 letter\n");
    assert!(ran.failed(1).contains("1-1: there is no such dead letter"));
    let one = ["dead", "discard", "--all", "--limit", "1", "--yes"];
    assert_eq!(fleet.ask(&one).ok(), "discarded 1 letter\n");
    assert_eq!(
        fleet.ask(&["dead", "discard", "--all", "--yes"]).ok(),
        "discarded 1 letter\n"
    );
    assert!(listed(&fleet, &[]).is_empty());
    let said = fleet.ask(&["dead", "discard"]).failed(2);
    assert!(said.contains("Give IDs, a filter, or --all"), "{said}");
}

#[test]
fn letters_of_the_same_failure_are_one_group() {
    let fleet = Fleet::new();
    let _processes = [fleet.router("r"), fleet.worker("probe-service", "p")];
    let say = |text: String| event(json!({"do": "say", "text": text}));
    let lost = (1..=4).map(|n| say(format!("order {n}00 of 2026-01-0{n}T10:00:00Z is lost")));
    let events: Vec<_> = lost.chain([say("something else".into())]).collect();
    fleet.publish(&events);
    eventually("five letters", || {
        (fleet.dead("probe-service").len() == 5).then_some(())
    });
    let groups = fleet
        .ask(&["dead", "list", "--group", "--output", "json"])
        .items();
    let told: Vec<_> = groups
        .iter()
        .map(|g| g["count"].as_u64().unwrap())
        .collect();
    assert_eq!(told, [4, 1], "{groups:?}");
    let lost = &groups[0];
    assert_eq!(
        (&lost["subscriber"], &lost["reason"]),
        (&json!("probe-service"), &json!("rejected"))
    );
    let time = |field: &str| -> jiff::Timestamp { lost[field].as_str().unwrap().parse().unwrap() };
    assert!(time("first") <= time("last"));
    // Its example is one of them, and its fingerprint finds all of them.
    let mark = lost["fingerprint"].as_str().unwrap();
    let letters = listed(&fleet, &["--fingerprint", mark]);
    assert_eq!(letters.len(), 4);
    assert!(
        letters.iter().any(|letter| letter["id"] == lost["example"]),
        "{lost}"
    );
    let text = fleet.ask(&["dead", "list", "--group", "--limit", "1"]);
    assert!(text.err.contains("there are 1 more group"), "{text:?}");
    assert!(
        text.out.lines().nth(1).unwrap().starts_with(mark),
        "{text:?}"
    );
    let discard = ["dead", "discard", "--fingerprint", mark, "--yes"];
    assert_eq!(fleet.ask(&discard).ok(), "discarded 4 letters\n");
}

#[test]
fn a_slip_in_a_name_is_told_and_a_line_per_letter_has_its_envelope() {
    let (fleet, _processes) = five_letters();
    let slip = fleet.ask(&["dead", "list", "--subscriber", "prob-service"]);
    assert!(slip.err.contains("did you mean probe-service?"), "{slip:?}");
    slip.ok();
    let said = fleet.ask(&["dead", "show", "routr", "1-1"]).failed(1);
    assert!(said.contains("did you mean router?"), "{said}");
    let lines = fleet.ask(&["dead", "list", "--output", "jsonl"]).ok();
    assert_eq!(lines.lines().count(), 5);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["version"], &line["kind"]),
            (&json!(1), &json!("dead-letters"))
        );
        assert!(line["item"]["id"].is_string(), "{line}");
    }
}

/// Nothing from an event reaches a terminal as a control character or turns its text around.
#[test]
fn what_an_event_says_cannot_move_the_cursor() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\r\n\u{85}\u{200b}\u{9b}31m";
    let mut bad = event(json!({ "text": evil }));
    bad["event_type"] = json!(evil);
    fleet.publish(&[bad]);
    let raw = format!("{{{evil}");
    let _: String = fleet
        .connection()
        .xadd("inbox", "*", &[("event", raw.as_str()), (evil, evil)])
        .unwrap();
    eventually("both are refused", || {
        (fleet.dead("router").len() == 2).then_some(())
    });
    let mut answers = vec![
        fleet.ask(&["dead", "list"]).ok(),
        fleet.ask(&["dead", "list", "--output", "json"]).ok(),
        fleet.ask(&["dead", "discard", "--all", "--dry-run"]).ok(),
    ];
    for letter in listed(&fleet, &[]) {
        let id = letter["id"].as_str().unwrap();
        for output in ["table", "json"] {
            let show = ["dead", "show", "router", id, "--output", output];
            answers.push(fleet.ask(&show).ok());
        }
    }
    let typed = listed(&fleet, &[])
        .into_iter()
        .any(|letter| letter["event_type"] == evil);
    assert!(typed, "JSON means the same once it is parsed");
    for answer in answers {
        let harmful = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        assert!(!answer.contains(harmful), "{answer:?}");
    }
}
