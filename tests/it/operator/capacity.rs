//! `streamfleet capacity`.

use serde_json::{Value, json};

use crate::support::cli::items;
use crate::support::fleet::{ROUTING, typed};
use crate::support::{Fleet, event};

#[test]
fn what_arrives_is_held_against_what_can_be_settled() {
    let fleet = Fleet::new();
    let _processes = [fleet.router("r"), fleet.worker("probe-service", "p")];
    let events: Vec<_> = (0..40)
        .map(|_| event(json!({"do": "sleep", "ms": 100})))
        .collect();
    let ran = std::thread::scope(|scope| {
        let asked = scope.spawn(|| fleet.ask(&["capacity", "--for", "3s", "--output", "json"]));
        for some in events.chunks(4) {
            fleet.publish(some);
            fleet.publish(&[typed("More.Happened", json!({}))]);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        asked.join().unwrap()
    });
    let found = items(&ran.out);
    let of = |name: &str| found.iter().find(|one| one["subscriber"] == name).unwrap();
    let probe = of("probe-service");
    assert_eq!((&probe["workers"], &probe["slots"]), (&json!(1), &json!(8)));
    let number = |one: &Value, field: &str| {
        one[field]
            .as_f64()
            .unwrap_or_else(|| panic!("{field}: {one}"))
    };
    assert!(
        number(probe, "arrivals") > 0.0 && number(probe, "settled") > 0.0,
        "{probe}"
    );
    // ρ = λ/(cμ), and L = λW of the slots: what is told fits together.
    let (service, rate) = (number(probe, "service"), number(probe, "rate"));
    assert!((service * rate - 1.0).abs() < 1e-9, "{probe}");
    let used = number(probe, "arrivals") / (8.0 * rate);
    assert!(
        (number(probe, "utilisation") - used).abs() < 1e-9,
        "{probe}"
    );
    assert!(
        (number(probe, "settled") * service - number(probe, "in_flight")).abs() < 1e-9,
        "{probe}"
    );
    assert!(probe["workers_needed"].as_u64().unwrap() >= 1, "{probe}");
    // Nobody serves the other one, and something comes for it.
    let other = of("other-service");
    assert_eq!(
        (&other["workers"], &other["utilisation"]),
        (&json!(0), &Value::Null)
    );
    assert!(number(other, "arrivals") > 0.0, "{other}");
    assert_eq!(ran.code, Some(1));

    let text = fleet
        .ask(&["capacity", "probe-service", "--for", "100ms"])
        .ok();
    assert!(
        text.starts_with("SUBSCRIBER") && text.contains("probe-service"),
        "{text}"
    );
    assert_eq!(probe["standing"], "routed");
    let slip = fleet
        .ask(&["capacity", "probe-servic", "--for", "100ms"])
        .failed(1);
    assert!(slip.contains("did you mean probe-service?"), "{slip}");
}

/// After deletions Redis has no lag to tell: that is not a lag of nothing.
#[test]
fn what_redis_cannot_tell_is_unknown() {
    let fleet = Fleet::new();
    drop(fleet.router("r"));
    drop(fleet.worker("other-service", "o"));
    let add = |n: u64| -> String { fleet.cli(&format!("XADD more-events {n}-0 id x")) };
    (1..=3).for_each(|n| drop(add(n)));
    let _: String = fleet.cli("XGROUP SETID more-events other-service 2-0");
    let asked = ["capacity", "other-service", "--for", "100ms"];
    let found = fleet.ask(&[&asked[..], &["--output", "json"]].concat());
    let found = found.json();
    for unknown in ["waiting", "settled", "service", "observed_wait"] {
        assert_eq!(found[unknown], Value::Null, "{unknown}: {found}");
    }
    let text = fleet.ask(&asked).ok();
    let row = text.lines().nth(1).unwrap();
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        row,
        "other-service 1 8 0.0 ? ? ? ? 0.0 ? ? ? ?"
            .split(' ')
            .collect::<Vec<_>>()
    );
    assert!(text.contains("?: Redis cannot tell what waits"), "{text}");
    // What was read to the end waits for nothing, whatever was deleted.
    let _: String = fleet.cli("XGROUP SETID more-events other-service 3-0");
    let found = fleet.ask(&[&asked[..], &["--output", "json"]].concat());
    assert_eq!(found.json()["waiting"], 0.0);
}

#[test]
fn who_is_routed_to_no_more_is_shown_while_it_has_groups() {
    let fleet = Fleet::new();
    drop(fleet.router("r"));
    for (stream, name) in [
        ("test-events", "old-service"),
        ("more-events", "gone-service"),
    ] {
        let record = format!("HSET fleet group:{stream}:{name} 1000:0-0");
        let _: u64 = fleet.cli(&record);
        let made = format!("XGROUP CREATE {stream} {name} 0 MKSTREAM");
        let _: String = fleet.cli(&made);
    }
    fleet.configure(&format!("{ROUTING}retired: [old-service]\n"));
    let _: String = fleet.cli("XADD test-events 1-0 id x");
    let asked = |more: &[&str]| {
        let args = [&["capacity", "--for", "100ms", "--output", "json"], more].concat();
        let ran = fleet.ask(&args);
        let of = |one: &Value| {
            [
                one["subscriber"].clone(),
                one["standing"].clone(),
                one["waiting"].clone(),
            ]
        };
        assert_eq!(ran.code, Some(0), "nothing comes for them: {ran:?}");
        items(&ran.out).iter().map(of).collect::<Vec<_>>()
    };
    let row =
        |name: &str, standing: &str, waiting: f64| [json!(name), json!(standing), json!(waiting)];
    let old = row("old-service", "retired", 1.0);
    let gone = row("gone-service", "unrouted", 0.0);
    assert_eq!(asked(&["old-service"]), [old.clone()]);
    assert_eq!(asked(&["gone-service"]), [gone.clone()]);
    let all = asked(&[]);
    assert!(all.contains(&old) && all.contains(&gone), "{all:?}");
    assert_eq!(all.len(), 4, "{all:?}");
    let text = fleet
        .ask(&["capacity", "gone-service", "--for", "100ms"])
        .ok();
    assert!(text.contains("gone-service: it is in no route"), "{text}");
    for (name, meant) in [
        ("gone-servic", "did you mean gone-service?"),
        ("router", "there is no subscriber router"),
    ] {
        let said = fleet.ask(&["capacity", name, "--for", "100ms"]).failed(1);
        assert!(said.contains(meant), "{said}");
    }
}
