//! `streamfleet entity` and `streamfleet saga`.

use serde_json::json;

use crate::support::Fleet;

/// Three entities of two kinds; one is a saga that is under way.
fn fleet() -> Fleet {
    let fleet = Fleet::new();
    let happened = |key: &str, version: u64, data: &str| {
        let at = "2026-01-05T10:00:00Z";
        let line = format!("XADD {key} {version}-0 type Order.Placed data {data} at {at} event x");
        let _: String = fleet.cli(&line);
    };
    happened("es:Order:7", 1, r#"{"total":19.90}"#);
    happened("es:Order:7", 2, r#"{"note":"\u001b[31m"}"#);
    happened("es:Order:12", 1, "{}");
    happened("es:Stock:1", 1, "{}");
    let standing = json!({
        "status": "pending", "version": 2, "since": "2026-01-05T10:00:00Z", "deadline": "2026-01-05T10:15:00Z",
    });
    for id in [12, 7] {
        let _: u64 = fleet.cli(&format!("HSET sagas:Order {id} {standing}"));
    }
    fleet
}

#[test]
fn entities_are_counted_by_kind_and_listed() {
    let fleet = fleet();
    let text = fleet.ask(&["entity", "list"]).ok();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["ENTITY", "ENTITIES", "EVENTS", "BYTES"]);
    assert_eq!(rows[1][..3], ["Order", "2", "3"]);
    assert_eq!(rows[2][..3], ["Stock", "1", "1"]);
    let listed = fleet
        .ask(&["entity", "list", "Order", "--output", "json"])
        .list();
    let ids: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["12", "7"]);
    assert_eq!(listed[1]["events"], 2);
    assert!(listed[1]["bytes"].as_u64().unwrap() > 100);
    assert_eq!(
        fleet
            .ask(&["entity", "list", "Ghost", "--output", "json"])
            .list(),
        json!([])
    );
    let none = fleet.ask(&["entity", "list", "Ghost"]).ok();
    assert_eq!(none, "no entities of the kind Ghost\n");
    let none = fleet.ask(&["saga", "list", "Ghost"]).ok();
    assert_eq!(none, "no sagas of the kind Ghost are under way\n");
    let none = Fleet::new().ask(&["entity", "list"]).ok();
    assert_eq!(none, "no entities\n");
}

#[test]
fn a_history_is_shown_with_every_digit_and_nothing_unsafe() {
    let fleet = fleet();
    let text = fleet.ask(&["entity", "show", "Order", "7"]).ok();
    assert!(text.contains(r#"{"total":19.90}"#), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let shown = fleet
        .ask(&["entity", "show", "Order", "7", "--output", "json"])
        .list();
    assert_eq!(shown[1]["version"], 2);
    assert_eq!(shown[1]["type"], "Order.Placed");
    let none = fleet.ask(&["entity", "show", "Order", "8"]).failed(1);
    assert!(
        none.contains("there is no Order 8: see streamfleet entity list Order"),
        "{none}"
    );
}

#[test]
fn sagas_under_way_are_listed_and_shown() {
    let fleet = fleet();
    let open = fleet.ask(&["saga", "list", "--output", "json"]).list();
    let ids: Vec<_> = open
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["7", "12"], "numbers in their order");
    assert_eq!(open[0]["status"], "pending");
    let text = fleet.ask(&["saga", "list", "Order"]).ok();
    assert!(
        text.lines()
            .nth(1)
            .unwrap()
            .contains("2026-01-05T10:15:00Z"),
        "{text}"
    );
    let text = fleet.ask(&["saga", "show", "Order", "7"]).ok();
    assert!(text.starts_with("pending, its deadline passed\n"), "{text}");
    let _: u64 = fleet.cli("HDEL sagas:Order 7");
    let text = fleet.ask(&["saga", "show", "Order", "7"]).ok();
    assert!(text.starts_with("over, after 2 events\n"), "{text}");
}

#[test]
fn what_workers_ask_of_the_event_store_is_shown() {
    let fleet = fleet();
    assert_eq!(
        fleet.ask(&["entity", "use", "--output", "json"]).list(),
        json!([])
    );
    let _: u64 =
        fleet.cli("HSET worker:order-service:w nonce x loads 4 loads_us 6000 loads_max_us 2500");
    let _: u64 = fleet.cli("HSET worker:cache-service:w nonce x");
    let text = fleet.ask(&["entity", "use"]).ok();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 2, "{text}");
    let row = "order-service w 4 1.500 ms 2.500 ms 0 0.000 ms 0.000 ms";
    assert_eq!(rows[1].join(" "), row);
}
