//! `streamfleet scheduled`, and what `status` and `publish` say of scheduled events.

use serde_json::json;

use crate::scheduled::later;
use crate::support::fleet::{id, typed};
use crate::support::{Fleet, event, eventually};

fn scheduled(fleet: &Fleet) -> u64 {
    fleet.cli("ZCARD scheduled")
}

#[test]
fn scheduled_events_are_listed_counted_and_cancelled() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    assert_eq!(
        fleet.ask(&["scheduled", "list"]).ok(),
        "no scheduled events\n"
    );
    let events = [
        later(event(json!({"text": "a\u{202e}b"})), 7_200_000),
        later(typed("More.Happened", json!({})), 3_600_000),
        later(event(json!({})), 10_800_000),
    ];
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    let published = fleet.ask_with(&["publish", "--file", "-"], lines.join("\n").as_bytes());
    assert!(published.ok().contains("published 3, refused 0"));
    eventually("they are scheduled", || {
        (scheduled(&fleet) == 3).then_some(())
    });

    let listed = fleet.ask(&["scheduled", "list", "--output", "json"]);
    let listed = listed.items();
    let order: Vec<_> = listed.iter().map(|e| e["event_id"].clone()).collect();
    assert_eq!(order, [1, 0, 2].map(|n: usize| json!(id(&events[n]))));
    assert_eq!(listed[0]["event_type"], "More.Happened");
    assert_eq!(listed[1]["event"], events[0]);
    let two = fleet.ask(&["scheduled", "list", "--limit", "2", "--output", "json"]);
    assert!(two.err.contains("there are more"), "{two:?}");
    assert_eq!(two.items().len(), 2);
    let text = fleet.ask(&["scheduled", "list"]).ok();
    let row = text.lines().nth(1).unwrap();
    assert!(
        row.contains("  59m")
            && row.contains("  More.Happened  ")
            && row.ends_with(&id(&events[1])),
        "{text}"
    );

    let status = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(
        (&status["router"]["scheduled"], &status["drained"]),
        (&json!(3), &json!(true))
    );
    let text = fleet.ask(&["status"]).ok();
    assert!(text.contains("duplicates 0, scheduled 3;"), "{text}");

    let cancel = ["scheduled", "cancel", &id(&events[1]), &id(&events[2])];
    let said = fleet.ask(&cancel).failed(1);
    assert!(
        said.contains("2 scheduled events will never be delivered. This cannot be undone"),
        "{said}"
    );
    assert_eq!(scheduled(&fleet), 3, "nobody said yes");
    let cancelled = fleet.ask(&[&cancel[..], &["--yes"]].concat());
    assert_eq!(cancelled.ok(), "cancelled 2 scheduled events\n");
    assert_eq!(scheduled(&fleet), 1);
    let cancelled = fleet.ask(&[
        "scheduled",
        "cancel",
        "--yes",
        &id(&events[0]),
        &id(&events[1]),
    ]);
    assert_eq!(cancelled.out, "cancelled 1 scheduled event\n");
    let said = cancelled.failed(1);
    assert!(
        said.contains(&format!("no event {} is scheduled", id(&events[1]))),
        "{said}"
    );
    fleet.ask(&["scheduled", "cancel", "not-an-id"]).failed(2);
    assert_eq!(fleet.cli::<u64>("HLEN scheduled:events"), 0);
    assert_eq!(fleet.cli::<u64>("XLEN test-events"), 0);
}

#[test]
fn what_is_too_far_ahead_or_expired_is_not_published() {
    let fleet = Fleet::new();
    let mut far = event(json!({}));
    far["deliver_at"] = json!("9000-01-01T00:00:00Z");
    let mut expired = event(json!({}));
    expired["expires_at"] = json!("2020-01-01T00:00:00Z");
    let lines = format!("{far}\n{expired}\n");
    let said = fleet
        .ask_with(&["publish", "--file", "-"], lines.as_bytes())
        .failed(1);
    assert!(
        said.contains("/deliver_at is more than 10 years ahead"),
        "{said}"
    );
    assert!(said.contains("/expires_at has passed"), "{said}");
}
