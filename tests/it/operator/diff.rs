//! `streamfleet diff`.

use serde_json::{Value, json};

use crate::support::cli::items;
use crate::support::fleet::{ROUTING, typed};
use crate::support::{Fleet, event, eventually};

/// Writes a new file beside the one in use, and answers its path.
fn new_file(fleet: &Fleet, routing: &str) -> String {
    let path = fleet.dir.path().join("new.yaml");
    std::fs::write(&path, routing).unwrap();
    path.display().to_string()
}

fn find<'a>(all: &'a Value, field: &str, value: &str) -> &'a Value {
    let mut all = all.as_array().unwrap().iter();
    let found = all.find(|one| one[field] == value);
    found.unwrap_or_else(|| panic!("no {field} {value}"))
}

#[test]
fn what_would_be_left_behind_or_cut_is_told_before_it_is() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let before = fleet.ask(&["diff", &new_file(&fleet, ROUTING)]).ok();
    assert_eq!(before, "the files say the same; nothing would be lost\n");
    let events: Vec<_> = (0..3).map(|_| event(json!({}))).collect();
    fleet.publish(&events);
    fleet.publish(&[typed("Test.Unknown", json!({}))]);
    eventually("all are routed, one is refused", || {
        let routed = fleet.cli::<usize>("XLEN test-events") == 3;
        (routed && fleet.dead("router").len() == 1).then_some(())
    });
    // The one letter must be older than a second to be cut.
    eventually("a second has passed", || {
        let letter: redis::streams::StreamRangeReply = fleet.cli("XRANGE dead:router - +");
        let at: u128 = letter.ids[0].id.split_once('-').unwrap().0.parse().unwrap();
        let (seconds, micros): (u128, u128) = fleet.cli("TIME");
        (seconds * 1_000 + micros / 1_000 > at + 1_100).then_some(())
    });

    let smaller = ROUTING
        .replace(
            "Test.Happened: [probe-service]",
            "Test.Happened: [late-service]",
        )
        .replace(
            "Test.Looped: [probe-service]",
            "Test.Looped: [other-service]",
        )
        .replace("[\"Test.**\"] }", "[\"Test.**\"], maxlen: 1 }")
        .replace("lease: 1s", "lease: 2s")
        .replace("version: 1", "version: 1\ndead_retention: 1s");
    let file = new_file(&fleet, &smaller);
    let snapshot = fleet.snapshot();
    let ran = fleet.ask(&["diff", &file, "--output", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report = &items(&ran.out)[0];
    assert_eq!(report["harmless"], false);
    let change = |name| find(&report["changes"], "name", name);
    assert_eq!(change("Test.Happened")["gains"], json!(["late-service"]));
    assert_eq!(change("Test.Happened")["loses"], json!(["probe-service"]));
    assert_eq!(change("probe-service")["how"], "removed");
    assert_eq!(change("late-service")["how"], "added");
    let lease = json!({"name": "lease", "old": "1s", "new": "2s"});
    assert_eq!(change("other-service")["settings"], json!([lease]));
    let limit = json!({"name": "maxlen", "old": "-", "new": "1"});
    assert_eq!(change("test-events")["settings"], json!([limit]));
    let created = find(&report["created"], "subscriber", "late-service");
    assert_eq!(created["start"], "$");
    let orphaned = find(&report["orphaned"], "stream", "test-events");
    assert_eq!(orphaned["subscriber"], "probe-service");
    assert_eq!(
        (&orphaned["fate"], &orphaned["waiting"]),
        (&json!("left-behind"), &json!(3))
    );
    let redriven = find(&report["orphaned"], "stream", "redrive:probe-service");
    assert_eq!(redriven["fate"], "settled");
    let cut = find(&report["cut"], "stream", "test-events");
    assert_eq!(
        (&cut["entries"], &cut["or_more"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(find(&report["cut"], "stream", "dead:router")["entries"], 1);
    assert_eq!(fleet.snapshot(), snapshot, "it only looks");

    let text = fleet.ask(&["diff", &file]);
    assert_eq!(text.code, Some(1));
    let lines: Vec<_> = text
        .out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for start in [
        "route Test.Happened +late-service, -probe-service",
        "test-events late-service with what is new",
        "test-events probe-service 3 0 0 REFUSED while it owes these",
        "test-events 2 ",
        "dead:router 1 ",
    ] {
        let told = lines.iter().any(|line| line.starts_with(start));
        assert!(told, "{start}: {}", text.out);
    }
    assert_eq!(
        text.out.lines().last().unwrap(),
        "1 group would be left behind with unsettled events, 2 streams would lose history"
    );

    // The same with what it takes to be harmless.
    let harmless = smaller
        .replace("[\"Test.**\"], maxlen: 1 }", "[\"Test.**\"] }")
        .replace("dead_retention: 1s", "retired: [probe-service]");
    let report = fleet
        .ask(&["diff", &new_file(&fleet, &harmless), "--output", "json"])
        .json();
    assert_eq!(report["harmless"], true);
    let orphaned = find(&report["orphaned"], "stream", "test-events");
    assert_eq!(orphaned["fate"], "settles");
    assert_eq!(
        find(&report["changes"], "name", "probe-service")["how"],
        "retired"
    );
    fleet.configure(&harmless);
    router.wait_for_log("the new routing.yaml is in force");
}

#[test]
fn a_file_that_cannot_be_taken_is_not_compared() {
    let fleet = Fleet::new();
    let bad = new_file(&fleet, &ROUTING.replace("routes:", "routs:"));
    assert!(
        fleet
            .ask(&["diff", &bad])
            .failed(78)
            .contains("did you mean `routes`?")
    );
    let other = new_file(
        &fleet,
        &ROUTING.replace("version: 1", "version: 1\nnamespace: shop"),
    );
    let said = fleet.ask(&["diff", &other]).failed(1);
    assert!(said.contains("different namespaces"), "{said}");
}
