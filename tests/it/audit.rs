//! The audit: a record of everything that came to the door, if routing.yaml asks for it.

use std::collections::BTreeMap;

use redis::Commands;
use serde_json::{Value, json};

use crate::scheduled::later;
use crate::support::fleet::{ROUTING, id, typed};
use crate::support::{Fleet, event, eventually};

fn audited() -> Fleet {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("version: 1", "version: 1\naudit: { maxlen: 100000 }"));
    fleet
}

/// The records, oldest first.
fn records(fleet: &Fleet, key: &str) -> Vec<BTreeMap<String, String>> {
    let entries: Vec<(String, BTreeMap<String, String>)> = fleet
        .connection()
        .xrange_all::<_, redis::Value>(key)
        .map(|v| redis::from_redis_value(v).unwrap())
        .unwrap();
    entries.into_iter().map(|(_, fields)| fields).collect()
}

fn outcomes(fleet: &Fleet, event: &Value) -> Vec<String> {
    let of = |record: &BTreeMap<String, String>| record.get("id") == Some(&id(event));
    let records = records(fleet, "audit").into_iter().filter(of);
    records.map(|record| record["outcome"].clone()).collect()
}

#[test]
fn every_outcome_is_recorded() {
    let fleet = audited();
    let _router = fleet.router("r");
    let mut sent = event(json!({"n": 1}));
    sent["source"] = json!("web-shop");
    let mut other = sent.clone();
    other["data"]["n"] = json!(2);
    let unknown = typed("Nobody.Knows", json!({}));
    let mut invalid = event(json!({"amount": -1}));
    invalid["source"] = json!("erp");
    let soon = later(event(json!({})), 700);
    let mut expires = later(event(json!({})), 800);
    expires["expires_at"] = later(json!({}), 801)["deliver_at"].clone();
    let all = [&sent, &sent, &other, &unknown, &invalid, &soon, &expires];
    fleet.publish(&all.map(Clone::clone));
    let _: String = fleet.cli("XADD inbox * event no-json");
    eventually("all are recorded, the scheduled ones twice", || {
        (records(&fleet, "audit").len() == 10).then_some(())
    });
    let expected = [
        (
            &sent,
            vec!["routed", "duplicate", "refused:event_id_conflict"],
        ),
        (&unknown, vec!["refused:unknown_type"]),
        (&invalid, vec!["refused:schema_violation"]),
        (&soon, vec!["scheduled", "routed"]),
    ];
    for (event, expected) in expected {
        assert_eq!(outcomes(&fleet, event), expected);
    }
    let last = outcomes(&fleet, &expires);
    assert_eq!(last[0], "scheduled");
    assert!(
        ["routed", "refused:expired"].contains(&&*last[1]),
        "{last:?}"
    );
    let all = records(&fleet, "audit");
    let find = |outcome: &str| all.iter().find(|r| r["outcome"] == outcome).unwrap();
    let routed = find("routed");
    assert_eq!(
        [&routed["type"], &routed["source"], &routed["stream"]],
        ["Test.Happened", "web-shop", "test-events"]
    );
    assert!(routed["at"].parse::<jiff::Timestamp>().is_ok());
    assert_eq!(find("refused:schema_violation")["source"], "erp");
    let no_event = find("refused:invalid_json");
    assert_eq!((no_event.get("id"), no_event.get("source")), (None, None));
    assert_eq!(find("scheduled")["stream"], "scheduled");

    let lines = |args: &[&str]| {
        let args = [&["audit", "--output", "json"], args].concat();
        fleet.ask(&args).items()
    };
    let of_one = lines(&["--event", &id(&sent)]);
    let shown: Vec<_> = of_one.iter().map(|r| r["outcome"].clone()).collect();
    assert_eq!(
        shown,
        ["refused:event_id_conflict", "duplicate", "routed"],
        "the newest first"
    );
    assert_eq!(lines(&["--source", "erp"]).len(), 1);
    assert_eq!(lines(&["--limit", "4"]).len(), 4);
    let text = fleet.ask(&["audit"]).ok();
    assert_eq!(text.lines().count(), 11, "{text}");
    let row = text.lines().find(|line| line.contains("  erp  ")).unwrap();
    assert!(row.contains("refused:schema_violation") && row.ends_with(&id(&invalid)));
}

/// Also where a backlog would be routed by a transaction.
#[test]
fn a_backlog_is_recorded_and_trimmed_and_nothing_is_when_it_is_off() {
    const EVENTS: usize = 600;
    let fleet = Fleet::new();
    let backlog = || -> Vec<_> { (0..EVENTS).map(|_| event(json!({}))).collect() };
    fleet.publish(&backlog());
    let router = fleet.router("r");
    let routed = |events: usize| {
        eventually("all are routed", || {
            (fleet.cli::<usize>("XLEN test-events") == events).then_some(())
        });
    };
    routed(EVENTS);
    assert!(!fleet.cli::<bool>("EXISTS audit"));
    let said = fleet.ask(&["audit"]);
    assert!(said.err.contains("the audit is off"), "{said:?}");
    assert_eq!(said.ok(), "no records\n");

    fleet.configure(&ROUTING.replace("version: 1", "version: 1\naudit: { maxlen: 100000 }"));
    router.wait_for_log("is in force");
    fleet.publish(&backlog());
    routed(2 * EVENTS);
    let recorded = records(&fleet, "audit");
    assert_eq!(recorded.len(), EVENTS);
    assert!(recorded.iter().all(|record| record["outcome"] == "routed"));

    fleet.configure(&ROUTING.replace(
        "version: 1",
        "version: 1\naudit: { maxlen: 10, retention: 7d }",
    ));
    eventually("it is trimmed", || {
        (fleet.cli::<usize>("XLEN audit") == 10).then_some(())
    });
}

#[test]
fn the_namespace_comes_first_and_an_audit_without_a_limit_is_refused() {
    let fleet = Fleet::new();
    let head = "version: 1\nnamespace: shop\naudit: { retention: 7d }";
    fleet.configure(&ROUTING.replace("version: 1", head));
    let _router = fleet.router("r");
    let sent = event(json!({}));
    let _: String = fleet
        .connection()
        .xadd("shop:inbox", "*", &[("event", sent.to_string())])
        .unwrap();
    let recorded = eventually("it is recorded", || records(&fleet, "shop:audit").pop());
    assert_eq!(recorded["stream"], "shop:test-events");
    let keys: Vec<String> = fleet.cli("KEYS *");
    assert!(keys.iter().all(|key| key.starts_with("shop:")), "{keys:?}");

    fleet.configure(&ROUTING.replace("version: 1", "version: 1\naudit: {}"));
    let said = fleet.ask(&["check"]);
    let said = format!("{}{}", said.out, said.err);
    assert!(said.contains("`audit` has no limit"), "{said}");
}
