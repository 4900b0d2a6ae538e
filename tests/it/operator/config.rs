//! `streamfleet config explain`.

use serde_json::json;

use crate::support::Fleet;
use crate::support::fleet::ROUTING;

#[test]
fn a_type_is_explained_with_the_line_that_says_so() {
    let fleet = Fleet::new();
    let routing = ROUTING.replace(
        "  Test.Looped: [probe-service]\n",
        "  Test.Looped: [probe-service]\n  \"Test.*\": [other-service, probe-service]\n",
    ) + "subscribers:\n  probe-service: { max_attempts: 7 }\n";
    fleet.configure(&routing);
    let place = |line: &str, word: &str| {
        let (n, text) = routing
            .lines()
            .enumerate()
            .find(|(_, l)| l.contains(line))
            .unwrap();
        format!("routing.yaml:{}:{}", n + 1, text.find(word).unwrap() + 1)
    };
    let text = fleet.ask(&["config", "explain", "Test.Happened"]).ok();
    let has = |start: &str, parts: &[&str]| {
        let mut lines = text.lines();
        let fits =
            |line: &str| line.starts_with(start) && parts.iter().all(|part| line.contains(part));
        assert!(lines.any(fits), "{start} {parts:?}:\n{text}");
    };
    has("schema", &["schemas/Test.Happened.v1.json"]);
    has(
        "stream",
        &[
            "test-events",
            &place("test-events:", "\"Test.**\""),
            "\"Test.**\"",
        ],
    );
    has(
        "subscriber  probe-service",
        &[
            &place("Test.Happened: ", "probe-service"),
            "\"Test.Happened\"",
        ],
    );
    has(
        "subscriber    and",
        &[&place("\"Test.*\":", "probe-service"), "\"Test.*\""],
    );
    has(
        "subscriber  other-service",
        &[&place("\"Test.*\":", "other-service")],
    );
    has(
        "max_attempts",
        &[
            "7",
            "subscribers.probe-service",
            &place("max_attempts", "max_attempts"),
        ],
    );
    has("max_attempts", &["3", "our default"]);
    has("lease", &["1s", "defaults", &place("lease: 1s", "lease")]);
    has("backoff.initial", &["50ms", "defaults"]);
    let shown = fleet
        .ask(&["config", "explain", "Test.Happened", "--output", "json"])
        .json();
    assert_eq!(shown["receivers"][0]["name"], "probe-service");
    assert_eq!(shown["values"][0]["max_attempts"], 7);
    assert_eq!(
        (&shown["missing"], &shown["stream"][0]),
        (&json!(null), &json!("test-events"))
    );
}

#[test]
fn a_type_that_goes_nowhere_says_why() {
    let fleet = Fleet::new();
    let why = |event_type: &str| {
        let ran = fleet.ask(&["config", "explain", event_type]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.out
    };
    let slip = why("Test.Happend");
    assert!(
        slip.contains("no schema knows it") && slip.contains("did you mean Test.Happened?"),
        "{slip}"
    );
    let unknown = why("Far.Away");
    assert!(
        unknown.contains("add ") && unknown.contains("schemas/Far.Away.v1.json"),
        "{unknown}"
    );
    fleet.write_schema("Far.Away");
    assert!(why("Far.Away").contains("no stream takes it"));
    fleet.configure(&ROUTING.replace("[\"More.**\"]", "[\"More.**\", \"Far.**\"]"));
    let nobody = why("Far.Away");
    assert!(
        nobody.contains("nobody receives it") && nobody.contains("more-events"),
        "{nobody}"
    );
    let said = fleet.ask(&["config", "explain", "far away"]).failed(2);
    assert!(said.contains("far away"), "{said}");
}
