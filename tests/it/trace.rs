//! `streamfleet trace`: a business flow as a tree.

use serde_json::{Value, json};

use crate::support::fleet::{ROUTING, id};
use crate::support::{Fleet, event, eventually};

const TRACED: &str = "trace: { ttl: 1h }\n";

fn correlation(event: &Value) -> String {
    event["correlation_id"].as_str().unwrap().to_owned()
}

/// The flow, once it has so many hops.
fn flow(fleet: &Fleet, event: &Value, hops: usize) -> Value {
    let flow = correlation(event);
    eventually("all of it is traced", || {
        (fleet.cli::<usize>(&format!("XLEN trace:{flow}")) == hops).then_some(())
    });
    fleet.ask(&["trace", &flow, "--output", "json"]).json()
}

/// What happened to an event, without what differs from run to run.
fn hops(node: &Value) -> Vec<String> {
    let text = |hop: &Value, name: &str| hop[name].as_str().unwrap_or_default().to_owned();
    let hops = node["hops"].as_array().unwrap().iter();
    hops.map(|hop| {
        assert!(hop["at_ms"].is_u64(), "{hop}");
        match hop["what"].as_str().unwrap() {
            "routed" => format!("routed {} {}", text(hop, "stream"), text(hop, "to")),
            "handled" => {
                assert!(hop["took_us"].is_u64(), "{hop}");
                format!("handled {} {}", text(hop, "subscriber"), hop["attempt"])
            }
            "failed" => {
                let error = text(hop, "error");
                format!(
                    "failed {} {} {error}",
                    text(hop, "subscriber"),
                    hop["attempt"]
                )
            }
            what => format!("{what} {}", text(hop, "reason")),
        }
    })
    .collect()
}

#[test]
fn a_flow_is_drawn_with_its_follow_ups_retries_and_dead_letters() {
    let fleet = Fleet::new();
    // The probe is told to follow and, besides, another subscriber gives the same event up.
    let routing = ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [probe-service, other-service]",
    );
    fleet.configure(&format!("{routing}{TRACED}"));
    let _router = fleet.router("r");
    let _probe = fleet.worker("probe-service", "p");
    let _other = fleet.worker("other-service", "o");

    let follow = event(json!({"do": "follow"}));
    fleet.publish(&[follow.clone()]);
    // Both ask for a follow-up, which other-service handles: 1 + 2 handled, and twice routed and handled.
    let tree = flow(&fleet, &follow, 3 + 2 * 2);
    assert_eq!(tree["correlation_id"], correlation(&follow));
    let [root] = tree["events"].as_array().unwrap().as_slice() else {
        panic!("{tree:#}")
    };
    assert_eq!(root["event_id"], id(&follow));
    let mut what = hops(root);
    what[1..].sort();
    assert_eq!(
        what,
        [
            "routed test-events probe-service,other-service",
            "handled other-service 1",
            "handled probe-service 1",
        ]
    );
    let caused = root["caused"].as_array().unwrap();
    assert_eq!(caused.len(), 2, "{tree:#}");
    for follow_up in caused {
        assert_eq!(follow_up["causation_id"], id(&follow));
        assert_eq!(follow_up["event_type"], "Test.Followed");
        assert_eq!(
            hops(follow_up),
            [
                "routed test-events other-service",
                "handled other-service 1"
            ]
        );
    }

    let fails = event(json!({"do": "fail twice"}));
    fleet.publish(&[fails.clone()]);
    let tree = flow(&fleet, &fails, 1 + 2 * 3);
    let mut what = hops(&tree["events"][0]);
    what.retain(|hop| hop.contains("probe-service"));
    assert_eq!(
        what[1..],
        [
            "failed probe-service 1 told to fail twice",
            "failed probe-service 2 told to fail twice",
            "handled probe-service 3",
        ]
    );

    let dies = event(json!({"do": "reject"}));
    fleet.publish(&[dies.clone()]);
    let tree = flow(&fleet, &dies, 3);
    assert_eq!(hops(&tree["events"][0])[1..], ["dead rejected"; 2]);
    let text = fleet.ask(&["trace", &correlation(&dies)]).ok();
    assert!(
        text.contains("probe-service GAVE IT UP (rejected): told to reject"),
        "{text}"
    );

    let mut refused = event(json!({"amount": "x"}));
    refused["event_type"] = json!("Test.Happened");
    fleet.publish(&[refused.clone()]);
    let tree = flow(&fleet, &refused, 1);
    assert_eq!(hops(&tree["events"][0]), ["refused schema_violation"]);

    // Bounded in time, and for people a tree.
    let key = format!("trace:{}", correlation(&follow));
    let ttl: i64 = fleet.cli(&format!("PTTL {key}"));
    assert!((3_000_000..=3_600_000).contains(&ttl), "{ttl}");
    let text = fleet.ask(&["trace", &correlation(&follow)]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].ends_with("ms") && lines[0].contains(": 3 events in "),
        "{text}"
    );
    assert!(lines[2].starts_with("Test.Happened  "), "{text}");
    assert!(
        lines[3].starts_with("│ ")
            && lines[3].contains("routed to test-events for probe-service, other-service"),
        "{text}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("├─ Test.Followed  ")),
        "{text}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("└─ Test.Followed  ")),
        "{text}"
    );
}

#[test]
fn a_trace_is_bounded_however_long_the_flow() {
    let fleet = Fleet::new();
    fleet.configure(&format!("{ROUTING}{TRACED}"));
    let router = fleet.router("r");
    let first = event(json!({}));
    let events: Vec<_> = (0..3_000)
        .map(|_| {
            let mut next = event(json!({}));
            next["correlation_id"] = first["correlation_id"].clone();
            next
        })
        .collect();
    fleet.publish(&events);
    let key = format!("trace:{}", correlation(&first));
    let last = id(&events[2_999]);
    let mut connection = fleet.connection();
    eventually("the last is traced", || {
        let newest: redis::streams::StreamRangeReply = redis::cmd("XREVRANGE")
            .arg(&key)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query(&mut connection)
            .unwrap();
        (newest.ids.first()?.get::<String>("id")? == last).then_some(())
    });
    let kept: usize = fleet.cli(&format!("XLEN {key}"));
    assert!((1_000..1_200).contains(&kept), "{kept}");
    let ran = fleet.ask(&["trace", &correlation(&first)]);
    assert!(ran.err.contains("only the newest 1000 hops"), "{}", ran.err);
    ran.ok();
    drop(router);
}

/// Where routing.yaml does not ask for it, nothing is written; what is reloaded is in force.
#[test]
fn nothing_is_traced_unless_it_is_asked_for() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "p");
    let quiet = event(json!({}));
    fleet.publish(&[quiet.clone()]);
    fleet.handles_each_once("probe-service", 1);
    let said = fleet.ask(&["trace", &correlation(&quiet)]).failed(1);
    assert!(
        said.contains("this routing.yaml traces nothing: add `trace: { ttl: 1d }`"),
        "{said}"
    );

    fleet.configure(&format!("{ROUTING}{TRACED}"));
    for process in [&router, &worker] {
        process.signal("HUP");
        process.wait_for_log("the new routing.yaml is in force");
    }
    let said = fleet.ask(&["trace", &correlation(&quiet)]).failed(1);
    assert!(
        said.contains("nothing was traced under it in the last 1h"),
        "{said}"
    );
    let keys: Vec<String> = fleet.cli("KEYS trace:*");
    assert_eq!(keys, [""; 0]);
    let traced = event(json!({}));
    fleet.publish(&[traced.clone()]);
    assert_eq!(
        flow(&fleet, &traced, 2)["events"][0]["hops"][1]["what"],
        "handled"
    );
    fleet.ask(&["trace", "not-an-id"]).failed(2);
}

/// The last hops are written before a process ends that was told to.
#[test]
fn who_stops_tells_its_last_hops() {
    let fleet = Fleet::new();
    fleet.configure(&format!("{ROUTING}{TRACED}"));
    let _router = fleet.router("r");
    let mut worker = fleet.worker("probe-service", "p");
    let slow = event(json!({"do": "sleep", "ms": 300}));
    fleet.publish(&[slow.clone()]);
    eventually("it is started", || fleet.starts(&slow));
    worker.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0));
    let tree = flow(&fleet, &slow, 2);
    assert_eq!(hops(&tree["events"][0])[1], "handled probe-service 1");
}
