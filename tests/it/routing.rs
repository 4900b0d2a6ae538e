//! The door and the routes.

use redis::Commands;
use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id, typed};
use crate::support::{Fleet, event, eventually};

#[test]
fn what_is_refused_keeps_its_bytes_and_says_why() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let without = |field: &str| {
        let mut event = event(json!({}));
        event.as_object_mut().unwrap().remove(field);
        event.to_string().into_bytes()
    };
    let with = |field: &str, value: Value| {
        let mut event = event(json!({}));
        event[field] = value;
        event.to_string().into_bytes()
    };
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("invalid_json", b"{\"event_id\": ".to_vec()),
        ("invalid_json", br#"{"data": {"amount": 1e400}}"#.to_vec()),
        ("invalid_utf8", b"{\"a\": \"\xff\xfe\"}".to_vec()),
        ("too_large", with("note", json!("x".repeat(1024 * 1024)))),
        ("too_deep", deep.into_bytes()),
        (
            "duplicate_key",
            br#"{"event_id": 1, "event_id": 2}"#.to_vec(),
        ),
        ("bad_envelope", without("correlation_id")),
        ("bad_envelope", with("timestamp", json!("yesterday"))),
        ("bad_envelope", with("version", json!(1))),
        ("bad_envelope", b"[]".to_vec()),
        ("unknown_type", with("event_type", json!("Nobody.Knows"))),
        ("unknown_version", with("version", json!("2"))),
        ("schema_violation", with("data", json!({"amount": -1}))),
        (
            "unsupported",
            with("expires_at", json!("2030-01-01T00:00:00Z")),
        ),
        (
            "unsupported",
            with("deliver_at", json!("2030-01-01T00:00:00Z")),
        ),
    ];
    let mut connection = fleet.connection();
    for (_, bytes) in &cases {
        let _: String = connection.xadd("inbox", "*", &[("event", bytes)]).unwrap();
    }
    let _: String = connection.xadd("inbox", "*", &[("evnt", "typo")]).unwrap();
    let letters = eventually("every one is refused", || {
        let reply: redis::streams::StreamRangeReply =
            fleet.connection().xrange_all("dead:router").unwrap();
        (reply.ids.len() == cases.len() + 1).then_some(reply.ids)
    });
    for ((reason, bytes), letter) in cases.iter().zip(&letters) {
        let text =
            |name: &str| redis::from_redis_value::<String>(letter.map[name].clone()).unwrap();
        assert_eq!(
            &text("reason"),
            reason,
            "{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        );
        assert_eq!(
            &redis::from_redis_value::<Vec<u8>>(letter.map["event"].clone()).unwrap(),
            bytes,
            "as received"
        );
        assert!(!text("error").is_empty());
    }
    let violation = letters
        .iter()
        .find(|l| l.map["reason"] == redis::Value::BulkString(b"schema_violation".into()))
        .unwrap();
    let errors: Value = serde_json::from_slice(
        &redis::from_redis_value::<Vec<u8>>(violation.map["errors"].clone()).unwrap(),
    )
    .unwrap();
    assert_eq!(errors[0]["pointer"], "/data/amount");
    let odd = &letters.last().unwrap().map;
    assert!(
        odd.contains_key("x:evnt"),
        "the fields of an odd entry are kept"
    );
    assert_eq!(fleet.cli::<usize>("XLEN inbox"), 0);
    assert_eq!(fleet.cli::<usize>("XLEN test-events"), 0);
}

#[test]
fn one_id_with_two_contents_is_a_conflict() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let first = event(json!({"n": 1}));
    let mut second = first.clone();
    second["data"]["n"] = json!(2);
    let mut retold = first.clone();
    retold["timestamp"] = json!("2027-01-01T00:00:00Z");
    fleet.publish(&[first.clone(), second, retold]);
    let letter = eventually("a conflict", || fleet.dead("router").pop());
    fleet.drained();
    assert_eq!(
        (letter["reason"].as_str(), letter["id"].clone()),
        ("event_id_conflict", id(&first))
    );
    assert_eq!(fleet.cli::<usize>("XLEN test-events"), 1);
    assert_eq!(
        fleet.cli::<usize>("HGET stats:router duplicates"),
        1,
        "the timestamp is not content"
    );
}

#[test]
fn an_event_goes_to_whom_it_names_and_to_nobody_else() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [probe-service, other-service]",
    ));
    let _router = fleet.router("r");
    let _workers = [
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    let (both, one) = (event(json!({})), typed("Test.Followed", json!({})));
    fleet.publish(&[both.clone(), one.clone()]);
    eventually("both are handled", || {
        (fleet.handled("other-service").len() == 2).then_some(())
    });
    fleet.drained();
    assert_eq!(fleet.handled("probe-service"), [(id(&both), 1)].into());
    let entry: redis::streams::StreamRangeReply = fleet
        .connection()
        .xrange_count("test-events", "-", "+", 1)
        .unwrap();
    let text =
        |name: &str| redis::from_redis_value::<String>(entry.ids[0].map[name].clone()).unwrap();
    assert_eq!(
        (text("to"), text("type")),
        ("probe-service,other-service".into(), "Test.Happened".into())
    );
    assert_eq!(text("event"), both.to_string(), "the JSON exactly as sent");
}

/// A subscriber is added by editing one line while everything runs.
#[test]
fn a_subscriber_is_added_without_a_restart() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let workers = [
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    let before = typed("More.Happened", json!({}));
    fleet.publish(std::slice::from_ref(&before));
    eventually("the old route works", || {
        fleet.handled("other-service").get(&id(&before)).copied()
    });

    fleet.configure(&ROUTING.replace(
        "More.Happened: [other-service]",
        "More.Happened: [other-service, probe-service]",
    ));
    router.wait_for_log("the new routing.yaml is in force");
    workers[0].wait_for_log("the new routing.yaml is in force");
    let after = typed("More.Happened", json!({}));
    fleet.publish(std::slice::from_ref(&after));
    eventually("the new subscriber has it", || {
        fleet.handled("probe-service").get(&id(&after)).copied()
    });
    fleet.drained();
    assert_eq!(
        fleet.handled("probe-service").len(),
        1,
        "what came before was not for it"
    );
    assert_eq!(fleet.handled("other-service").len(), 2);
}

/// `start: beginning`: what was routed before the group existed is judged by the worker's file.
#[test]
fn a_late_subscriber_can_start_at_the_beginning() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let history: Vec<_> = (0..5).map(|_| event(json!({}))).collect();
    fleet.publish(&history);
    fleet.publish(&[typed("Test.Followed", json!({}))]);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 6).then_some(())
    });
    let late = ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [probe-service, late-service]",
    );
    fleet.configure(&format!(
        "{late}subscribers:\n  late-service: {{ start: beginning }}\n"
    ));
    router.wait_for_log("the new routing.yaml is in force");
    // The probe's own group is at the beginning too, because it never read.
    let groups: redis::streams::StreamInfoGroupsReply =
        fleet.connection().xinfo_groups("test-events").unwrap();
    let late = groups
        .groups
        .iter()
        .find(|g| g.name == "late-service")
        .unwrap();
    assert_eq!(late.last_delivered_id, "0-0");
    let record: String = fleet.cli("HGET fleet group:test-events:late-service");
    let last: redis::streams::StreamInfoStreamReply =
        fleet.connection().xinfo_stream("test-events").unwrap();
    assert_eq!(record, format!("1000:{}", last.last_generated_id));
}

/// A bad file is refused whole while the running configuration stays.
#[test]
fn a_bad_file_changes_nothing() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    fleet.configure(&ROUTING.replace("routes:", "routs:"));
    router.wait_for_log("REFUSED, the running configuration stays");
    assert!(router.log_text().contains("did you mean"));
    let fine = event(json!({}));
    fleet.publish(std::slice::from_ref(&fine));
    eventually("it is handled all the same", || {
        fleet.handled("probe-service").get(&id(&fine)).copied()
    });
}

/// Another process runs a newer configuration already: this router reads its file again before
/// it refuses, sooner than it would have noticed the change by itself.
#[test]
fn nothing_is_refused_for_an_old_file() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    fleet.write_schema("Test.Added");
    let _: u64 = fleet.cli("HINCRBY fleet generation 1");
    fleet.publish(&[typed("Test.Added", json!({}))]);
    eventually("it is routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 1).then_some(())
    });
    assert!(fleet.dead("router").is_empty());
}

/// A key of the wrong type holds up its own stream only.
#[test]
fn a_stream_that_is_not_a_stream_holds_up_nothing_else() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let _: () = fleet.cli("RENAME test-events aside");
    let _: () = fleet.cli("SET test-events oops");
    fleet.publish(&[event(json!({})), typed("More.Happened", json!({}))]);
    eventually("the other stream has its event", || {
        (fleet.cli::<usize>("XLEN more-events") == 1).then_some(())
    });
    router.wait_for_log("HALTED for this stream");
    assert_eq!(
        fleet.cli::<usize>("XLEN inbox"),
        1,
        "the event waits where it is owed"
    );
}

/// Another dedupe window forgets nothing that was marked under the one before.
#[test]
fn a_changed_dedupe_window_forgets_nothing() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let once = event(json!({}));
    fleet.publish(std::slice::from_ref(&once));
    eventually("it is routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 1).then_some(())
    });
    fleet.configure(&ROUTING.replace("version: 1", "version: 1\ndedupe_window: 1h"));
    router.wait_for_log("the new routing.yaml is in force");
    fleet.publish(&[once]);
    eventually("it is dropped", || {
        fleet.cli::<Option<u64>>("HGET stats:router duplicates")
    });
    assert_eq!(fleet.cli::<usize>("XLEN test-events"), 1);
}

/// Large events are read and routed a few at a time.
#[test]
fn large_events_are_routed_in_small_batches() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("version: 1", "version: 1\nlimits: { event_bytes: 8388608 }"));
    let events: Vec<_> = (0..12)
        .map(|_| event(json!({"do": "nothing", "text": "x".repeat(3_000_000)})))
        .collect();
    fleet.publish(&events);
    let _router = fleet.router("r");
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 12).then_some(())
    });
    assert!(fleet.dead("router").is_empty());
}

/// Events that their stream cannot take hold up neither recovery from a fault nor a stop.
#[test]
fn stuck_events_are_set_aside() {
    let fleet = Fleet::new();
    let mut router = fleet.router("r");
    let _: () = fleet.cli("RENAME test-events aside");
    let _: () = fleet.cli("SET test-events oops");
    let stuck: Vec<_> = (0..300).map(|_| event(json!({}))).collect();
    fleet.publish(&stuck);
    router.wait_for_log("HALTED for this stream");
    let _: i64 = fleet.cli("CLIENT KILL TYPE normal");
    fleet.publish(&[typed("More.Happened", json!({}))]);
    eventually("the other stream has its event", || {
        (fleet.cli::<usize>("XLEN more-events") == 1).then_some(())
    });
    assert_eq!(fleet.cli::<usize>("XLEN inbox"), 300, "nothing is lost");
    router.signal("TERM");
    assert_eq!(router.exit_code(), Some(0));
}
