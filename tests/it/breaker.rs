//! The circuit breaker: what a handler depends on goes away and comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Commands;
use serde_json::{Value, json};

use crate::support::fleet::{Process, ROUTING};
use crate::support::{Fleet, event, eventually};

const CONTROL: &str = "control:probe-service";
/// Long enough for whoever would read or try again to have done so several times.
const WHILE: Duration = Duration::from_millis(1_500);

/// A fleet whose breakers have these settings.
fn fleet(breaker: &str) -> Fleet {
    let fleet = Fleet::new();
    fleet.configure(&format!("{ROUTING}  breaker: {breaker}\n"));
    fleet
}

/// An event that needs `what`.
fn need(what: &str) -> Value {
    event(json!({"do": "need", "text": what}))
}

fn needs(what: &str, events: usize) -> Vec<Value> {
    (0..events).map(|_| need(what)).collect()
}

impl Fleet {
    fn takes_down(&self, what: &str) {
        let _: u64 = self.cli(&format!("SADD probe-service:down {what}"));
    }

    fn repairs(&self, what: &str) {
        let _: u64 = self.cli(&format!("SREM probe-service:down {what}"));
    }

    fn control(&self) -> BTreeMap<String, String> {
        self.connection().hgetall(CONTROL).unwrap()
    }

    fn breaker(&self) -> String {
        let state = self.control().remove("breaker");
        state.unwrap_or_else(|| "closed".to_owned())
    }

    fn counted(&self, name: &str) -> u64 {
        let counted: Option<u64> = self.cli(&format!("HGET stats:probe-service {name}"));
        counted.unwrap_or(0)
    }

    /// How often handlers were called.
    fn runs(&self) -> u64 {
        let runs: Vec<u64> = self.connection().hvals("probe-service:started").unwrap();
        runs.iter().sum()
    }

    /// So many handler calls, and no more while one looks.
    fn stands_still(&self) -> u64 {
        let runs = self.runs();
        std::thread::sleep(WHILE);
        assert_eq!(self.runs(), runs, "nothing is read or tried again");
        runs
    }
}

fn workers(fleet: &Fleet) -> [Process; 2] {
    ["a", "b"].map(|name| fleet.worker("probe-service", name))
}

#[test]
fn a_row_of_failures_stops_all_workers_and_charges_nobody() {
    let fleet = fleet("{ consecutive: 3, open: 10m, max_open: 10m }");
    let _router = fleet.router("r");
    let workers = workers(&fleet);
    fleet.takes_down("bank");
    fleet.publish(&needs("bank", 60));
    for worker in &workers {
        worker.wait_for_log("the circuit breaker is open: reading nothing");
    }
    let more = needs("bank", 60);
    fleet.publish(&more);
    eventually("all are routed", || {
        (fleet.cli::<u64>("XLEN test-events") == 120).then_some(())
    });
    std::thread::sleep(WHILE); // what was under way ends
    fleet.stands_still();
    let unread = more.iter().filter(|event| fleet.starts(event).is_none());
    assert_eq!(unread.count(), more.len(), "the events stay where they are");
    let pending: Vec<redis::Value> = fleet.cli("XPENDING test-events probe-service - + 1000");
    assert!(pending.len() < 60, "not all were read");
    let control = fleet.control();
    assert_eq!(control["breaker"], "open");
    assert_eq!(
        (control["opened"].as_str(), control["why"].as_str()),
        ("1", "bank is down")
    );
    assert_eq!((fleet.counted("opened"), fleet.counted("closed")), (1, 0));
    let opened = |worker: &&Process| worker.log_text().contains("the circuit breaker opened");
    assert_eq!(
        workers.iter().filter(opened).count(),
        1,
        "one opened it for all"
    );
    assert!(fleet.dead("probe-service").is_empty());
    assert!(
        fleet.dead("router").is_empty(),
        "no event without a schema for it"
    );
    for worker in &workers {
        assert!(!worker.log_text().contains("\"charged\":true"));
    }

    let status = fleet.ask(&["status"]).ok();
    let line = status.lines().find(|line| line.contains("circuit breaker"));
    let line = line.unwrap_or_else(|| panic!("{status}"));
    assert!(
        line.starts_with("probe-service has its circuit breaker open until "),
        "{line}"
    );
    assert!(
        line.ends_with("opened 1 time in a row: bank is down"),
        "{line}"
    );
    let status = fleet.ask(&["status", "--output", "json"]).json();
    let subscribers = status["subscribers"].as_array().unwrap();
    let of = |name: &str| subscribers.iter().find(|s| s["name"] == name).unwrap();
    let probe = of("probe-service");
    assert_eq!(
        (&probe["breaker"]["state"], &probe["opened"]),
        (&json!("open"), &json!(1))
    );
    assert_eq!(of("other-service")["breaker"]["state"], "closed");
    assert_eq!(probe["paused"], Value::Null);
}

#[test]
fn it_closes_when_probes_pass_and_everything_is_handled_once() {
    let fleet = fleet("{ consecutive: 3, open: 500ms, max_open: 1s, probes: 2 }");
    let _router = fleet.router("r");
    let workers = workers(&fleet);
    fleet.takes_down("bank");
    fleet.publish(&needs("bank", 200));
    eventually("it opens again", || {
        (fleet.counted("opened") >= 2).then_some(())
    });
    assert!(fleet.handled("probe-service").is_empty());
    fleet.repairs("bank");
    fleet.handles_each_once("probe-service", 200);
    assert_eq!(
        (fleet.breaker().as_str(), fleet.counted("closed")),
        ("closed", 1)
    );
    assert!(fleet.dead("probe-service").is_empty());
    // The next outage begins anew.
    fleet.takes_down("bank");
    fleet.publish(&needs("bank", 50));
    let opened = fleet.counted("opened");
    eventually("it opens", || {
        (fleet.counted("opened") > opened).then_some(())
    });
    fleet.repairs("bank");
    fleet.handles_each_once("probe-service", 250);
    eventually("it closes", || (fleet.counted("closed") == 2).then_some(()));
    for worker in workers {
        assert!(!worker.log_text().contains("\"charged\":true"));
    }
}

#[test]
fn no_more_probes_run_than_there_are_and_it_opens_again_for_longer() {
    let fleet = fleet("{ consecutive: 3, open: 3s, max_open: 5s, probes: 2 }");
    let _router = fleet.router("r");
    let workers = workers(&fleet);
    fleet.takes_down("bank");
    fleet.publish(&needs("bank", 100));
    for worker in &workers {
        worker.wait_for_log("the circuit breaker is open: reading nothing");
    }
    let first = fleet.control();
    std::thread::sleep(WHILE); // what was under way ends
    let before = fleet.runs();
    let mut lasted = BTreeMap::new();
    let mut note = |control: &BTreeMap<String, String>| {
        let number = |name: &str| control[name].parse::<u64>().unwrap();
        if control["breaker"] == "open" {
            lasted.insert(number("opened"), number("until") - number("since"));
        }
        lasted.len()
    };
    note(&first);
    eventually("it has opened three times", || {
        // Counted first: until now it has opened so often, and been half-open at most that often.
        let runs = fleet.runs();
        let opened = fleet.counted("opened");
        assert!(
            runs - before <= 2 * opened,
            "{runs} - {before} runs, opened {opened} times"
        );
        (note(&fleet.control()) == 3).then_some(())
    });
    assert_eq!(lasted, [(1, 3_000), (2, 5_000), (3, 5_000)].into());
    assert!(fleet.runs() > before, "it was tried");
}

#[test]
fn each_opening_and_each_closing_is_told_once() {
    let fleet = fleet("{ consecutive: 3, open: 500ms, max_open: 1s, probes: 2 }");
    let routing = std::fs::read_to_string(fleet.config()).unwrap();
    let routing = routing.replace(
        "routes:",
        "  system-events: { events: [\"System.**\"] }\nroutes:\n  System.**: [other-service]",
    );
    for name in ["System.Breaker.Opened", "System.Breaker.Closed"] {
        let file = format!("schemas/{name}.v1.json");
        let ours = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(ours, fleet.dir.path().join(file)).unwrap();
    }
    fleet.configure(&routing);
    let _router = fleet.router("r");
    let _workers = workers(&fleet);
    fleet.takes_down("bank");
    fleet.publish(&needs("bank", 100));
    eventually("it opens again", || {
        (fleet.counted("opened") >= 2).then_some(())
    });
    fleet.repairs("bank");
    fleet.handles_each_once("probe-service", 100);
    eventually("it closes", || (fleet.counted("closed") == 1).then_some(()));
    let told = fleet.counted("opened") as usize + 1;
    let events: Vec<Value> = eventually("all is told", || {
        let entries: Vec<(String, BTreeMap<String, String>)> =
            fleet.cli("XRANGE system-events - +");
        let event = |(_, fields): &(String, BTreeMap<String, String>)| {
            serde_json::from_str(&fields["event"]).unwrap()
        };
        (entries.len() == told).then(|| entries.iter().map(event).collect())
    });
    assert!(fleet.dead("router").is_empty());
    let (closed, opened) = events.split_last().unwrap();
    for (n, event) in opened.iter().enumerate() {
        assert_eq!(event["event_type"], "System.Breaker.Opened");
        let data = &event["data"];
        assert_eq!(data["subscriber"], "probe-service");
        assert_eq!(data["why"], "bank is down");
        assert_eq!(data["opened_in_a_row"], n + 1);
        assert_eq!(data["open_for_ms"], if n == 0 { 500 } else { 1_000 });
    }
    assert_eq!(closed["event_type"], "System.Breaker.Closed");
    assert_eq!(closed["data"]["opened_in_a_row"], opened.len());
    let flows = events.iter().map(|event| &event["correlation_id"]);
    assert!(flows.clone().all(|flow| *flow == closed["correlation_id"]));
    assert_eq!(fleet.cli::<u64>("XLEN inbox"), 0);
}

/// kill -9 of a worker that holds the only probe.
#[test]
fn a_worker_that_dies_with_a_probe_wedges_nothing() {
    let fleet = fleet("{ consecutive: 3, open: 1s, max_open: 2s, probes: 1 }");
    let routing = std::fs::read_to_string(fleet.config()).unwrap();
    fleet.configure(&routing.replace("timeout: 20s", "timeout: 2s"));
    let _router = fleet.router("r");
    let doomed = fleet.worker("probe-service", "doomed");
    fleet.takes_down("bank");
    let slow = || event(json!({"do": "need", "text": "bank", "ms": 1_000}));
    let events: Vec<_> = (0..20).map(|_| slow()).collect();
    fleet.publish(&events);
    let held = eventually("it holds a probe", || {
        let probes = fleet.control().remove("probes")?;
        (!probes.is_empty()).then_some(probes)
    });
    assert!(held.starts_with("doomed."), "{held}");
    drop(doomed);
    assert_eq!(fleet.control()["probes"], held, "it died with it");
    fleet.repairs("bank");
    let _worker = fleet.worker("probe-service", "w");
    fleet.handles_each_once("probe-service", 20);
    eventually("it closes", || (fleet.breaker() == "closed").then_some(()));
}

/// Of several that need different things, the one that alone stays unavailable holds up no other.
#[test]
fn one_event_that_stays_unavailable_keeps_it_open_for_nobody() {
    let fleet = fleet("{ consecutive: 3, open: 300ms, max_open: 600ms, probes: 1 }");
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    fleet.takes_down("bank");
    fleet.takes_down("shop");
    let alone = need("shop");
    fleet.publish(std::slice::from_ref(&alone));
    fleet.publish(&needs("bank", 30));
    eventually("it opens again", || {
        (fleet.counted("opened") >= 2).then_some(())
    });
    fleet.repairs("bank");
    eventually("all others are handled", || {
        (fleet.handled("probe-service").len() == 30).then_some(())
    });
    fleet.repairs("shop");
    fleet.handles_each_once("probe-service", 31);
    assert!(!worker.log_text().contains("\"charged\":true"));
}

#[test]
fn bad_events_do_not_open_it_unless_a_rate_is_set() {
    let bad = || {
        let told = ["fail", "fail", "reject"].map(|told| event(json!({"do": told})));
        (0..10).flat_map(move |_| told.clone()).map(|mut event| {
            event["event_id"] = json!(uuid::Uuid::new_v4());
            event
        })
    };
    let events: Vec<_> = bad().collect();
    let fleet = fleet("{ consecutive: 2 }");
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    fleet.publish(&events);
    eventually("all are set aside", || {
        (fleet.dead("probe-service").len() == events.len()).then_some(())
    });
    fleet.drained();
    assert_eq!(fleet.counted("opened"), 0);

    let rate = "{ failure_rate: 0.5, min_outcomes: 10, window: 5s, open: 10m, max_open: 10m }";
    fleet.configure(&format!("{ROUTING}  breaker: {rate}\n"));
    worker.wait_for_log("the new routing.yaml is in force");
    let good: Vec<_> = (0..100).map(|_| event(json!({}))).collect();
    fleet.publish(&good);
    fleet.handles_each_once("probe-service", 100);
    fleet.publish(&bad().take(15).collect::<Vec<_>>());
    fleet.drained();
    assert_eq!(fleet.counted("opened"), 0, "most were well");
    std::thread::sleep(Duration::from_secs(6)); // the window passes the good ones
    fleet.publish(&bad().take(15).collect::<Vec<_>>());
    eventually("it opens", || (fleet.counted("opened") == 1).then_some(()));
    worker.wait_for_log("the circuit breaker is open: reading nothing");
}

#[test]
fn it_can_be_switched_off_and_settings_take_effect_at_once() {
    let fleet = fleet("{ enabled: false, consecutive: 1 }");
    let _router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    fleet.takes_down("bank");
    let events = needs("bank", 30);
    fleet.publish(&events);
    eventually("all are tried", || (fleet.started() == 30).then_some(()));
    eventually("all are tried again and again", || {
        (fleet.runs() > 90).then_some(())
    });
    assert_eq!(
        (fleet.breaker().as_str(), fleet.counted("opened")),
        ("closed", 0)
    );
    fleet.configure(&format!(
        "{ROUTING}  breaker: {{ consecutive: 3, open: 10m, max_open: 10m }}\n"
    ));
    worker.wait_for_log("the circuit breaker is open: reading nothing");
    std::thread::sleep(WHILE); // what was under way ends
    fleet.stands_still();
    fleet.repairs("bank");
    fleet.configure(&format!("{ROUTING}  breaker: {{ enabled: false }}\n"));
    fleet.handles_each_once("probe-service", 30);
}
