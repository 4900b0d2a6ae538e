//! `streamfleet check`.

use crate::support::Fleet;
use crate::support::cli::items;
use crate::support::fleet::ROUTING;

#[test]
fn a_good_file_passes_and_says_what_is_in_it() {
    let fleet = Fleet::new();
    let answer = fleet.ask(&["check"]).ok();
    assert!(
        answer.ends_with(
            "routing.yaml: ok: 2 streams, 4 event types, 4 with subscribers, 2 subscribers\n"
        ),
        "{answer}"
    );
    let json = fleet.ask(&["check", "--output", "json"]).json();
    assert_eq!(json["usable"], true);
    assert_eq!(json["problems"], serde_json::json!([]));
}

#[test]
fn every_problem_is_reported_at_once_and_where_it_is() {
    let fleet = Fleet::new();
    let broken = ROUTING
        .replace("routes:", "routs:\n  A.B: [a]\nroutes:")
        .replace(
            "Test.Looped: [probe-service]",
            "Nobody.Knows: [probe-service]",
        )
        .replace("concurrency: 8", "concurrency: 0");
    fleet.configure(&broken);

    let ran = fleet.ask(&["check"]);
    assert_eq!(ran.code, Some(78));
    let line = |text: &str| 1 + broken.lines().position(|l| l.contains(text)).unwrap();
    for (place, message) in [
        (format!("routing.yaml:{}:", line("routs:")), "routs"),
        (
            format!("routing.yaml:{}:", line("Nobody.Knows")),
            "Nobody.Knows",
        ),
        (
            format!("routing.yaml:{}:", line("concurrency")),
            "concurrency",
        ),
    ] {
        let mut lines = ran.out.lines().skip_while(|l| !l.contains(&place));
        let (first, fix) = (lines.next().unwrap_or(&ran.out), lines.next().unwrap_or(""));
        assert!(
            first.contains(" error: ") && first.contains(message),
            "{place} {first}"
        );
        assert!(fix.starts_with("  fix: "), "{fix}");
    }
    assert!(
        ran.out.lines().last().unwrap().contains("3 errors"),
        "{}",
        ran.out
    );

    let ran = fleet.ask(&["check", "--output", "json"]);
    assert_eq!(ran.code, Some(78));
    let json = items(&ran.out).remove(0);
    assert_eq!(json["usable"], false);
    let problems = json["problems"].as_array().unwrap();
    let errors = problems.iter().filter(|p| p["severity"] == "error");
    assert_eq!(errors.count(), 3, "{json:#}");
    let unknown = |p: &&serde_json::Value| p["message"].as_str().unwrap().contains("routs");
    let unknown = problems.iter().find(unknown).unwrap();
    assert_eq!(unknown["line"], line("routs:"));
    assert_eq!(unknown["fix"], "did you mean `routes`?");
}

#[test]
fn a_broken_schema_is_a_problem_of_its_file() {
    let fleet = Fleet::new();
    std::fs::write(fleet.dir.path().join("schemas/Test.Broken.v1.json"), "{").unwrap();
    let ran = fleet.ask(&["check"]);
    let place = "schemas/Test.Broken.v1.json:1:1: error: not valid JSON";
    assert!(ran.out.contains(place), "{ran:?}");
    ran.failed(78);
}

#[test]
fn every_command_and_every_process_refuses_a_bad_file_with_78() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace("streams:", "streems:"));
    for args in [
        &["status"][..],
        &["dead", "list"],
        &["group", "list"],
        &["publish", "-"],
    ] {
        let said = fleet.ask(args).failed(78);
        assert!(said.contains("did you mean"), "{args:?}: {said}");
    }
    let dir = fleet.dir.path().join("dev").display().to_string();
    fleet.ask(&["dev", "--dir", &dir]).failed(78);
    let mut router = std::process::Command::new(env!("CARGO_BIN_EXE_streamfleet-router"));
    router.env("STREAMFLEET_CONFIG", fleet.config());
    router.env("STREAMFLEET_REDIS_URL", fleet.url());
    crate::support::cli::run(router, b"").failed(78);
}

#[test]
fn the_schema_of_the_file_is_for_editors() {
    let schema = Fleet::new().ask(&["check", "--schema"]).ok();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(schema["properties"]["routes"].is_object());
}
