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
        ("expired", with("expires_at", json!("2020-01-01T00:00:00Z"))),
        ("bad_envelope", with("expires_at", json!("soon"))),
        ("bad_envelope", with("deliver_at", json!(1_900_000_000))),
        (
            "bad_envelope",
            with("deliver_at", json!("9000-01-01T00:00:00Z")),
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

/// The same of a stream to which a right is lacking; and where one is lacking to what all need, nothing moves.
#[test]
fn a_right_that_is_lacking_holds_up_nothing_else() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let both = || [event(json!({})), typed("More.Happened", json!({}))];
    let routed = || {
        (
            fleet.cli::<usize>("XLEN test-events"),
            fleet.cli::<usize>("XLEN more-events"),
        )
    };
    let _: () = fleet.cli("ACL SETUSER default resetkeys ~[^m]* %R~more-events");
    fleet.publish(&both());
    eventually("the other stream has its event", || {
        (routed() == (1, 0)).then_some(())
    });
    router.wait_for_log("HALTED for this stream");
    assert_eq!(
        fleet.cli::<usize>("XLEN inbox"),
        1,
        "it waits where it is owed"
    );
    let _: () = fleet.cli("ACL SETUSER default resetkeys ~[^s]* %R~more-events %R~stats:*");
    fleet.publish(&both());
    router.wait_for_log("cannot route; trying again");
    assert_eq!(routed(), (1, 0));
    let _: () = fleet.cli("ACL SETUSER default allkeys");
    eventually("all are routed", || (routed() == (2, 2)).then_some(()));
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

/// I2: nobody's event is accepted all the same, and kept as history.
#[test]
fn an_event_that_nobody_wants_is_kept_all_the_same() {
    let fleet = Fleet::new();
    fleet.write_schema("Test.Unwanted");
    let _router = fleet.router("r");
    let unwanted = typed("Test.Unwanted", json!({}));
    fleet.publish(&[unwanted.clone(), event(json!({}))]);
    eventually("both have left the inbox", || {
        let routed: Option<u64> = fleet.cli("HGET stats:router routed");
        (routed.is_some() && fleet.cli::<u64>("XLEN inbox") == 0).then_some(())
    });
    let kept: redis::streams::StreamRangeReply =
        fleet.connection().xrange_all("test-events").unwrap();
    let text =
        |name: &str| redis::from_redis_value::<String>(kept.ids[0].map[name].clone()).unwrap();
    assert_eq!((text("id"), text("to")), (id(&unwanted), String::new()));
    assert_eq!(kept.ids.len(), 2);
}

#[test]
fn an_event_arrives_byte_for_byte() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let sent = r#" { "version":"1",  "event_type" : "Test.Happened", "timestamp":"2026-01-01T00:00:00Z",
        "event_id":"0190b0a0-0000-7000-8000-000000000002", "extra": [1.10, 1e2, -0.0],
        "correlation_id":"0190b0a0-0000-7000-8000-000000000003", "data":{"z":"\u00e9é","a":null}}  "#;
    let mut connection = fleet.connection();
    let _: String = connection.xadd("inbox", "*", &[("event", sent)]).unwrap();
    let entry = eventually("it is routed", || {
        let reply: redis::streams::StreamRangeReply = connection.xrange_all("test-events").unwrap();
        reply.ids.into_iter().next()
    });
    let arrived: String = redis::from_redis_value(entry.map["event"].clone()).unwrap();
    assert_eq!(arrived, sent);
}

/// Only the router addresses: what it routed before it knew of a subscriber is not for it.
#[test]
fn a_newer_file_claims_nothing_that_was_routed_to_others() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    fleet.publish(&[typed("Test.Followed", json!({}))]);
    eventually("it is routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 1).then_some(())
    });
    fleet.configure(&ROUTING.replace(
        "Test.Followed: [other-service]",
        "Test.Followed: [other-service, probe-service]",
    ));
    router.wait_for_log("the new routing.yaml is in force");
    let _worker = fleet.worker("probe-service", "w");
    let after = typed("Test.Followed", json!({}));
    fleet.publish(std::slice::from_ref(&after));
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&after)).copied()
    });
    fleet.drained();
    assert_eq!(fleet.handled("probe-service").len(), 1);
}

/// What was routed before a subscriber joined cannot name it: its own file decides.
#[test]
fn a_late_subscriber_handles_the_history_that_its_routes_ask_for() {
    let fleet = Fleet::new();
    let early = ROUTING.replace("Test.Followed: [other", "Test.Followed: [probe");
    fleet.configure(&early);
    let router = fleet.router("r");
    let mut wanted: Vec<_> = (0..5).map(|_| event(json!({}))).collect();
    fleet.publish(&wanted);
    fleet.publish(&[typed("Test.Followed", json!({}))]);
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN test-events") == 6).then_some(())
    });
    let late = early.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [probe-service, other-service]",
    );
    fleet.configure(&format!(
        "{late}subscribers:\n  other-service: {{ start: beginning }}\n"
    ));
    router.wait_for_log("the new routing.yaml is in force");
    let _worker = fleet.worker("other-service", "o");
    wanted.push(event(json!({})));
    fleet.publish(&wanted[5..]);
    fleet.handles_each_once("other-service", wanted.len());
    let expected = wanted.iter().map(|event| (id(event), 1)).collect();
    assert_eq!(fleet.handled("other-service"), expected);
}

/// A file with one problem is not taken over as far as it is right.
#[test]
fn a_file_with_one_problem_is_refused_whole() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    fleet.configure(&ROUTING.replace(
        "More.Happened: [other-service]",
        "More.Happened: [other-service, probe-service]\n  More.Unknown: [other-service]",
    ));
    eventually("it has read the file", || {
        let log = router.log_text();
        (log.contains("REFUSED") || log.contains("in force")).then_some(())
    });
    fleet.publish(&[typed("More.Happened", json!({}))]);
    let entry = eventually("it is routed", || {
        let reply: redis::streams::StreamRangeReply =
            fleet.connection().xrange_all("more-events").unwrap();
        reply.ids.into_iter().next()
    });
    let to: String = redis::from_redis_value(entry.map["to"].clone()).unwrap();
    assert_eq!(to, "other-service");
}

#[test]
fn another_namespace_is_refused_while_it_runs() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    fleet.configure(&ROUTING.replace("version: 1", "version: 1\nnamespace: shop"));
    for process in [&router, &worker] {
        eventually("it has read the file", || {
            let log = process.log_text();
            (log.contains("REFUSED") || log.contains("in force")).then_some(())
        });
    }
    let fine = event(json!({}));
    fleet.publish(std::slice::from_ref(&fine));
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&fine)).copied()
    });
    assert!(
        router
            .log_text()
            .contains("REFUSED, the running configuration stays: the namespace has changed")
    );
    assert!(fleet.cli::<Vec<String>>("KEYS shop:*").is_empty());
}

/// A backlog is routed by transactions; what is in it twice, in one batch or in two, is dropped,
/// and the order of the inbox stays.
#[test]
fn a_backlog_is_routed_by_transactions_and_each_event_once() {
    let fleet = Fleet::new();
    let events: Vec<_> = (0..600).map(|n| event(json!({ "n": n }))).collect();
    fleet.publish(&events);
    fleet.publish(&events[550..]);
    fleet.publish(&[&events[..50], &events[..50]].concat());
    let _router = fleet.router("r");
    eventually("all are routed", || {
        (fleet.cli::<usize>("XLEN inbox") == 0).then_some(())
    });
    let reply: redis::streams::StreamRangeReply =
        fleet.connection().xrange_all("test-events").unwrap();
    let routed: Vec<String> = reply.ids.iter().filter_map(|e| e.get("id")).collect();
    assert_eq!(routed, events.iter().map(id).collect::<Vec<_>>());
    assert_eq!(fleet.cli::<usize>("HGET stats:router routed"), 600);
    assert_eq!(fleet.cli::<usize>("HGET stats:router duplicates"), 150);
    let stats = fleet.cli::<String>("INFO commandstats");
    let calls = |command: &str| {
        let line = format!("cmdstat_{command}:calls=");
        let calls = stats
            .lines()
            .find_map(|l| l.strip_prefix(&line))
            .unwrap_or("0");
        calls.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    // One DISCARD is of the connection's start; every other follows a doubt.
    assert!(calls("watch") > calls("discard"), "{stats}");
}
