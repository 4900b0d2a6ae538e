//! The pure parts of the shop: what its services decide, and how a retail file becomes events.
//! (The shop at work, on Redis, is tested in `shop`.)

#[path = "../../examples/import_retail/data.rs"]
mod data;
#[path = "../../workers/inventory/decide.rs"]
mod decide;
#[path = "../../examples/import_retail/events.rs"]
pub mod events;
#[path = "../../workers/notification/mail.rs"]
mod mail;
#[path = "../../workers/analytics/measure.rs"]
mod measure;
#[path = "../../workers/notification/outbox.rs"]
mod outbox;
#[path = "../../examples/import_retail/rows.rs"]
pub mod rows;

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

pub const SMALL: &[u8] = include_bytes!("../retail/small.csv");
/// `expected.py --stock 15 small.csv`
const EXPECTED: &str = include_str!("../retail/small.stock15.json");

fn imported() -> Vec<events::Published> {
    events::events(&rows::read(SMALL).unwrap(), 15).unwrap()
}

fn schema_of(event_type: &str) -> jsonschema::Validator {
    let file = format!(
        "{}/schemas/{event_type}.v1.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let schema: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    jsonschema::draft7::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

fn counted<'a>(types: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, u64> {
    types.fold(BTreeMap::new(), |mut counts, event_type| {
        *counts.entry(event_type).or_default() += 1;
        counts
    })
}

#[test]
fn an_import_publishes_what_the_file_holds() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let events = imported();
    let published = counted(events.iter().map(|event| event.event_type));
    assert_eq!(
        serde_json::to_value(published).unwrap(),
        expected["published"]
    );
}

#[test]
fn the_schemas_refuse_what_no_order_can_hold_and_nothing_else() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let events = imported();
    let refused = counted(
        events
            .iter()
            .map(|event| event.event_type)
            .zip(&events)
            .filter_map(|(event_type, event)| {
                let event: Value = serde_json::from_slice(&event.json).unwrap();
                (!schema_of(event_type).is_valid(&event)).then_some(event_type)
            }),
    );
    let expected: BTreeMap<&str, u64> = expected["refused"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(event_type, names)| (event_type.as_str(), names.as_array().unwrap().len() as u64))
        .collect();
    assert_eq!(refused, expected);
}

#[test]
fn importing_twice_publishes_the_same_events() {
    let (once, again) = (imported(), imported());
    assert!(
        once.iter()
            .map(|event| &event.json)
            .eq(again.iter().map(|event| &event.json))
    );
    let ids: HashSet<String> = once
        .iter()
        .map(|event| serde_json::from_slice::<Value>(&event.json).unwrap()["event_id"].to_string())
        .collect();
    assert_eq!(ids.len(), once.len(), "every event has an ID of its own");
}

#[test]
fn amounts_are_written_exactly() {
    let order = |number: &str| {
        let number = format!("\"order_number\":\"{number}\"");
        let json = imported()
            .into_iter()
            .map(|event| String::from_utf8(event.json).unwrap());
        json.filter(|json| json.contains("Order.Created"))
            .find(|json| json.contains(&number))
            .unwrap()
    };
    assert!(order("900001").contains("\"total_amount\":48.25,"));
    assert!(order("900006").contains("\"unit_price\":0.005,\"subtotal\":0.015}"));
    assert!(
        order("900005").contains("\"total_amount\":0,"),
        "there is no negative zero"
    );
    assert!(
        order("900001").contains("CAF\u{C9} TRAY \u{A3}5 RANGE\""),
        "Latin-1 is understood"
    );
}

#[test]
fn every_schema_is_complete() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let schema: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let event_type = name.strip_suffix(".v1").unwrap();
        assert_eq!(
            schema["$schema"], "http://json-schema.org/draft-07/schema#",
            "{name}"
        );
        assert_eq!(schema["title"], name);
        assert_eq!(schema["x-revision"], 1, "{name}");
        assert_eq!(schema["properties"]["event_type"]["const"], event_type);
        let data = &schema["properties"]["data"];
        for field in data["required"].as_array().unwrap() {
            assert!(
                data["properties"][field.as_str().unwrap()].is_object(),
                "{name}: {field}"
            );
        }
    }
}
