//! `redact` in routing.yaml: what is hidden is in no log, no letter's reason, no trace and no command's
//! answer; the event itself stays whole, and a redrive brings it back whole.

use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id};
use crate::support::{Fleet, event, eventually};

const HIDDEN: &str = "canary-4711-5501";

fn fleet(rules: &str) -> Fleet {
    let fleet = Fleet::new();
    let top = format!("version: 1\ntrace: {{ ttl: 1h }}\nredact: {rules}");
    fleet.configure(&ROUTING.replace("version: 1", &top));
    fleet
}

#[test]
fn what_is_hidden_is_seen_nowhere_and_is_redriven_whole() {
    let fleet = fleet(r#"{ "Test.**": [/data/text, /data/amount, /card] }"#);
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    // The handler's own words repeat it; what a schema finds wrong would quote it.
    let mut said = event(json!({"do": "say", "text": format!("no card {HIDDEN} here")}));
    said["card"] = json!(HIDDEN);
    let mut wrong = event(json!({"do": "x", "amount": HIDDEN}));
    wrong["card"] = json!(HIDDEN);
    fleet.publish(&[said.clone(), wrong.clone()]);
    eventually("both are dead", || {
        (fleet.dead("probe-service").len() + fleet.dead("router").len() == 2).then_some(())
    });
    router.wait_for_log("refused events");
    worker.wait_for_log("was given up");
    for process in [&router, &worker] {
        let log = process.log_text();
        assert!(!log.contains(HIDDEN), "{log}");
    }
    for (owner, sent) in [("probe-service", &said), ("router", &wrong)] {
        let letters = fleet.dead(owner);
        let mut letter = letters[0].clone();
        let kept: Value = serde_json::from_str(&letter.remove("event").unwrap()).unwrap();
        assert_eq!(&kept, sent, "the event is whole");
        assert!(!format!("{letter:?}").contains(HIDDEN), "{letter:?}");
        assert!(letter["error"].contains("***"), "{letter:?}");
    }
    let flow = said["correlation_id"].as_str().unwrap();
    eventually("it is traced", || {
        let traced = fleet.ask(&["trace", flow]);
        (traced.code == Some(0) && traced.out.contains("***")).then_some(())
    });

    let first: Vec<(String, Vec<String>)> = fleet.cli("XRANGE dead:probe-service - + COUNT 1");
    let letter = first[0].0.as_str();
    for args in [
        &["dead", "list"][..],
        &["dead", "list", "--output", "json"],
        &["dead", "show", "probe-service", letter],
        &["dead", "show", "probe-service", letter, "--output", "json"],
        &["trace", flow],
        &["trace", flow, "--output", "json"],
    ] {
        let shown = fleet.ask(args).ok();
        assert!(!shown.contains(HIDDEN), "{args:?}: {shown}");
        assert!(shown.contains("***"), "{args:?}: {shown}");
    }
    for args in [
        &["dead", "show", "probe-service", letter, "--unredacted"][..],
        &["dead", "list", "--output", "json", "--unredacted"],
    ] {
        let shown = fleet.ask(args).ok();
        assert!(shown.contains(HIDDEN), "{args:?}: {shown}");
    }

    fleet
        .ask(&["dead", "redrive", "--subscriber", "probe-service", letter])
        .ok();
    eventually("it dies again", || {
        let letters = fleet.dead("probe-service");
        let letter = letters.first()?;
        (letter["redrives"] == "1" && letter["event"].contains(HIDDEN)).then_some(())
    });
    assert_eq!(fleet.starts(&said), Some(2), "{}", id(&said));

    // A letter from before the rule is found by the fingerprint that it is shown under.
    let mut old = fleet.dead("probe-service")[0].clone();
    old.insert("error".into(), format!("from before: {HIDDEN}"));
    let mut write = redis::cmd("XADD");
    write.arg("dead:probe-service").arg("*");
    for (name, value) in &old {
        write.arg(name).arg(value);
    }
    let _: String = write.query(&mut fleet.connection()).unwrap();
    let groups = fleet.ask(&["dead", "list", "--group", "--output", "json"]);
    assert!(!groups.out.contains(HIDDEN), "{groups:?}");
    let groups = groups.items();
    let before = |group: &&Value| group["error"].as_str().unwrap().contains("from before");
    let mark = groups.iter().find(before).unwrap()["fingerprint"].clone();
    let mark = mark.as_str().unwrap();
    let moved = fleet.ask(&["dead", "redrive", "--fingerprint", mark, "--dry-run"]);
    assert!(moved.ok().contains("would redrive 1 letter"));
}

#[test]
fn what_is_followed_is_shown_without_it() {
    let fleet = fleet(r#"{ "**": [/source] }"#);
    let _router = fleet.router("r");
    let mut said = event(json!({}));
    said["source"] = json!(HIDDEN);
    fleet.publish(&[said]);
    let tap = ["tap", "--since", "1h", "--count", "1"];
    for more in [&[][..], &["--data"], &["--output", "json"]] {
        let shown = fleet.ask(&[&tap[..], more].concat()).ok();
        assert!(shown.contains("***") && !shown.contains(HIDDEN), "{shown}");
    }
    let shown = fleet.ask(&[&tap[..], &["--unredacted"]].concat()).ok();
    assert!(shown.contains(HIDDEN), "{shown}");
}

#[test]
fn scheduled_events_are_shown_without_it() {
    let fleet = fleet(r#"{ "**": [/data] }"#);
    let _router = fleet.router("r");
    let mut later = event(json!({"text": HIDDEN}));
    later["deliver_at"] = json!("2030-01-01T00:00:00Z");
    fleet.publish(&[later]);
    let list = ["scheduled", "list", "--output", "json"];
    let shown = eventually("it is scheduled", || {
        let shown = fleet.ask(&list).ok();
        (!shown.is_empty()).then_some(shown)
    });
    assert!(
        shown.contains(r#""data":"***""#) && !shown.contains(HIDDEN),
        "{shown}"
    );
    let shown = fleet.ask(&[&list[..], &["--unredacted"]].concat()).ok();
    assert!(shown.contains(HIDDEN), "{shown}");
}

#[test]
fn a_pointer_that_cannot_be_is_refused_with_its_place() {
    let fleet = fleet(
        "\n  \"Test.**\": [/data/x, data/email]\n  Test.Happened: [/event_id]\n  \"a b\": [/data]",
    );
    let ran = fleet.ask(&["check"]);
    let said = format!("{}{}", ran.out, ran.err);
    ran.failed(78);
    for told in [
        ":5:24: error: `data/email` cannot be hidden: it does not begin with `/`",
        ":6:19: error: `/event_id` cannot be hidden: events are found and told apart by this field",
        ":7:3: error: `a b` is not an event type or pattern",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn histories_of_entities_are_shown_without_it() {
    let fleet =
        fleet(r#"{ "**": [/data/other], entity:User: [/data/card], "entity:*": [/data/pin] }"#);
    let data = json!({"card": HIDDEN, "pin": HIDDEN, "other": "shown"});
    for entity in ["User", "Order"] {
        let line =
            format!("XADD es:{entity}:1 1-0 type Made data {data} at 2026-01-05T10:00:00Z event x");
        let _: String = fleet.cli(&line);
    }
    let show = |entity: &str, more: &[&str]| {
        let args = [&["entity", "show", entity, "1"], more].concat();
        fleet.ask(&args).ok()
    };
    for more in [&[][..], &["--output", "json"]] {
        let shown = show("User", more);
        assert!(
            !shown.contains(HIDDEN) && shown.contains("shown"),
            "{shown}"
        );
        let shown = show("Order", more);
        assert!(
            shown.contains(HIDDEN) && shown.contains(r#""pin":"***""#),
            "{shown}"
        );
    }
    let whole = show("User", &["--unredacted"]);
    assert_eq!(whole.matches(HIDDEN).count(), 2, "{whole}");
    let saga = fleet.ask(&["saga", "show", "User", "1"]).ok();
    assert!(!saga.contains(HIDDEN), "{saga}");
}

#[test]
fn a_rule_for_no_entity_is_refused_with_its_place() {
    let fleet = fleet("\n  entity:User: [/source]\n  \"entity:\": [/data]\n  entity:a:b: [/data]");
    let ran = fleet.ask(&["check"]);
    let said = format!("{}{}", ran.out, ran.err);
    ran.failed(78);
    for told in [
        ":5:17: error: `/source` cannot be hidden: the history of an entity has nothing there",
        ":6:3: error: `entity:` is no kind of entity",
        ":7:3: error: `entity:a:b` is no kind of entity",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
}
