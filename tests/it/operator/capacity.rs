//! `streamfleet capacity`.

use serde_json::{Value, json};

use crate::support::cli::items;
use crate::support::fleet::typed;
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
    let slip = fleet
        .ask(&["capacity", "probe-servic", "--for", "100ms"])
        .failed(1);
    assert!(slip.contains("did you mean probe-service?"), "{slip}");
}
