//! `streamfleet group`.

use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id, typed};
use crate::support::{Fleet, event, eventually};

/// The condition of a group; nothing if it is not listed.
fn condition(fleet: &Fleet, stream: &str, subscriber: &str) -> Option<String> {
    let groups = fleet.ask(&["group", "list", "--output", "json"]).list();
    let mut groups = groups.as_array().unwrap().iter();
    let group = groups.find(|g| g["stream"] == stream && g["subscriber"] == subscriber)?;
    Some(group["condition"].as_str().unwrap().to_owned())
}

#[test]
fn groups_are_listed_with_their_condition() {
    let fleet = Fleet::new();
    let of = |stream, subscriber| condition(&fleet, stream, subscriber);
    assert_eq!(of("inbox", "router").as_deref(), Some("absent"));
    assert_eq!(
        of("test-events", "probe-service").as_deref(),
        Some("absent")
    );
    drop(fleet.router("r"));
    assert_eq!(of("inbox", "router").as_deref(), Some("ok"));
    assert_eq!(
        of("redrive:probe-service", "probe-service").as_deref(),
        Some("ok")
    );
    let _: String = fleet.cli("XGROUP CREATE test-events stranger 0");
    let _: u64 = fleet.cli("XGROUP DESTROY more-events other-service");
    fleet.configure(&ROUTING.replace(
        "Test.Followed: [other-service]",
        "Test.Followed: [probe-service]",
    ));
    assert_eq!(of("test-events", "stranger").as_deref(), Some("foreign"));
    assert_eq!(of("more-events", "other-service").as_deref(), Some("lost"));
    assert_eq!(
        of("test-events", "other-service").as_deref(),
        Some("unrouted")
    );
    let text = fleet.ask(&["group", "list"]).ok();
    let lost = text.lines().find(|l| l.starts_with("more-events")).unwrap();
    assert_eq!(
        lost.split_whitespace().collect::<Vec<_>>(),
        ["more-events", "other-service", "lost", "-"]
    );
}

/// A group that was lost is read again from where the operator says, by the worker that runs.
#[test]
fn a_lost_group_goes_on_where_the_operator_says() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "p");
    let settled = [event(json!({})), event(json!({}))];
    fleet.publish(&settled);
    eventually("both are handled", || {
        (fleet.handled("probe-service").len() == 2).then_some(())
    });
    fleet.drained();
    let recreate = [
        "group",
        "recreate",
        "probe-service",
        "test-events",
        "--from",
    ];
    let from = |id: &str| fleet.ask(&[&recreate[..], &[id]].concat());
    let before = fleet.cli::<String>("HGET fleet group:test-events:probe-service");
    assert!(
        from("beginning")
            .failed(1)
            .contains("there is nothing to recreate")
    );

    let last: redis::streams::StreamRangeReply = fleet.cli("XREVRANGE test-events + - COUNT 1");
    let _: u64 = fleet.cli("XGROUP DESTROY test-events probe-service");
    let missed = event(json!({}));
    fleet.publish(&[missed.clone()]);
    worker.wait_for_log("was lost");
    assert_eq!(
        condition(&fleet, "test-events", "probe-service").as_deref(),
        Some("lost")
    );
    let answer = from(&last.ids[0].id).ok();
    assert!(
        answer.starts_with("recreated the group probe-service on test-events"),
        "{answer}"
    );
    eventually("what was missed is handled", || {
        fleet.handled("probe-service").get(&id(&missed)).copied()
    });
    fleet.drained();
    assert_eq!(
        fleet.handled("probe-service").values().sum::<u64>(),
        3,
        "nothing is repeated"
    );
    let after = fleet.cli::<String>("HGET fleet group:test-events:probe-service");
    assert_eq!(after, before, "it joined when it joined");
}

#[test]
fn a_group_that_nobody_knows_is_not_recreated() {
    let fleet = Fleet::new();
    let recreate = |args: &[&str]| fleet.ask(&[&["group", "recreate"], args].concat());
    let said = recreate(&["nobody", "test-events", "--from", "new"]).failed(1);
    assert!(
        said.contains("neither routing.yaml nor the fleet knows a group nobody"),
        "{said}"
    );
    let said = recreate(&["prob-service", "test-events", "--from", "new"]).failed(1);
    assert!(
        said.contains("did you mean probe-service test-events?"),
        "{said}"
    );
    let said = fleet.ask(&["group", "retire", "prob-service"]).failed(1);
    assert!(said.contains("did you mean probe-service?"), "{said}");
    let said = fleet.ask(&["rebuild", "prob-service"]).failed(1);
    assert!(said.contains("did you mean probe-service?"), "{said}");
    let said = recreate(&["probe-service", "test-events", "--from", "yesterday"]).failed(2);
    assert!(said.contains("beginning, new or an entry ID"), "{said}");
    recreate(&["probe-service", "test-events"]).failed(2);
    assert!(fleet.snapshot().is_empty());
}

#[test]
fn a_group_is_retired_only_when_nobody_needs_it() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("initial: 50ms, max: 200ms", "initial: 1h, max: 1h"));
    let router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "p");
    fleet.publish(&[event(json!({"do": "fail"})), event(json!({"do": "reject"}))]);
    eventually("one waits for its retry, one is dead", || {
        let retrying: Vec<redis::Value> =
            fleet.cli("XPENDING test-events probe-service - + 9 retry");
        (retrying.len() == 1 && fleet.dead("probe-service").len() == 1).then_some(())
    });
    let retire = ["group", "retire", "probe-service"];
    let refused = |args: &[&str], why: &str| {
        let said = fleet.ask(&[&retire[..], args].concat()).failed(1);
        assert!(said.contains(why), "{why}: {said}");
    };
    let said = fleet.ask(&["group", "retire", "router"]).failed(1);
    assert!(said.contains("it is how events get in"), "{said}");
    let said = fleet.ask(&["group", "retire", "nobody"]).failed(1);
    assert!(said.contains("there is no such group of nobody"), "{said}");
    refused(&["more-events"], "there is no such group of probe-service");
    refused(
        &["--yes"],
        "routing.yaml still sends probe-service what is in",
    );

    // Another file than the one that the processes run.
    let without = ROUTING
        .replace("[probe-service]", "[other-service]")
        .replace("version: 1", "version: 1\nretired: [probe-service]")
        .replace("initial: 50ms, max: 200ms", "initial: 1h, max: 1h");
    let new_file = fleet.dir.path().join("new.yaml");
    std::fs::write(&new_file, &without).unwrap();
    let new_file = new_file.display().to_string();
    refused(
        &["--yes", "--config", &new_file],
        "still has live workers (p)",
    );
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
    refused(
        &["--yes", "--config", &new_file],
        "router r do not run this routing.yaml yet",
    );

    fleet.configure(&without);
    router.signal("HUP");
    router.wait_for_log("the new routing.yaml is in force");
    let other = typed("Test.Happened", json!({}));
    fleet.publish(&[other]);
    eventually("it is routed to the other", || {
        (fleet.cli::<u64>("XLEN test-events") == 3).then_some(())
    });
    // The router says which generation it runs with its next sign of life.
    eventually("the router has said so", || {
        let generations = ["worker:router:r", "fleet"]
            .map(|key| fleet.cli::<u64>(&format!("HGET {key} generation")));
        (generations == [2, 2]).then_some(())
    });
    refused(
        &["test-events"],
        "has not settled 2 of its entries on test-events",
    );
    let ran = fleet.ask(&[&retire[..], &["--yes"]].concat());
    assert!(
        ran.err.contains("probe-service has 1 dead letter left"),
        "{ran:?}"
    );
    let answer = ran.ok();
    for stream in ["test-events", "redrive:probe-service"] {
        assert!(
            answer.contains(&format!("retired the group probe-service on {stream}\n")),
            "{answer}"
        );
        assert_eq!(condition(&fleet, stream, "probe-service"), None);
    }
    let groups: Vec<Value> = fleet
        .ask(&["group", "list", "--output", "json"])
        .list()
        .as_array()
        .unwrap()
        .clone();
    assert!(groups.iter().all(|g| g["condition"] == "ok"), "{groups:#?}");
    assert!(!fleet.cli::<bool>("EXISTS attempts:test-events:probe-service"));
    refused(&[], "there is no such group of probe-service");
}
