//! `streamfleet doctor`: what it finds, and that each proof can be typed as it stands.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::cli::{items, run, streamfleet};
use crate::support::fleet::{ROUTING, typed};
use crate::support::{Fleet, event, eventually};

/// A file of which nothing is to be said.
fn sound() -> String {
    ROUTING
        .replace("[\"Test.**\"] }", "[\"Test.**\"], retention: 7d }")
        .replace("[\"More.**\"] }", "[\"More.**\"], maxlen: 1000000 }")
        .replace("lease: 1s", "lease: 10s")
}

fn examine(fleet: &Fleet, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let ran = fleet.ask(&[&["doctor", "--output", "json"], args].concat());
    (ran.code, items(&ran.out))
}

/// Types the proof of each finding; answers what was printed.
fn prove(found: &[Value]) -> Vec<String> {
    let proofs = found.iter().map(|finding| {
        let line = finding["proof"].as_str().unwrap();
        let mut shell = Command::new("bash");
        shell
            .args(["--noprofile", "--norc", "-c", line])
            .stdin(Stdio::null());
        let ran = run(shell, b"");
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (Some(0), ""),
            "{line}: {ran:?}"
        );
        for refused in ["ERR", "NOGROUP", "WRONGTYPE", "NOPERM", "Could not connect"] {
            assert!(!ran.out.contains(refused), "{line}: {}", ran.out);
        }
        ran.out
    });
    proofs.collect()
}

#[test]
fn a_sound_fleet_has_no_finding_of_weight() {
    let fleet = Fleet::new();
    fleet.configure(&sound());
    let _processes = [
        fleet.router("r"),
        fleet.worker("probe-service", "p"),
        fleet.worker("other-service", "o"),
    ];
    fleet.publish(&[event(json!({})), typed("More.Happened", json!({}))]);
    fleet.drained();
    let (code, found) = examine(&fleet, &[]);
    assert!(found.iter().all(|f| f["severity"] == "note"), "{found:#?}");
    assert_eq!(code, Some(0));
    prove(&found);
    let text = fleet.ask(&["doctor"]).ok();
    assert!(text.lines().last().unwrap().contains("note"), "{text}");
}

#[test]
fn every_finding_has_a_proof_that_runs_and_a_fix() {
    let fleet = Fleet::new();
    fleet.configure(&sound().replace("retention: 7d", "").replace(", }", " }"));
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "p");
    drop(fleet.worker("other-service", "o"));
    fleet.publish(&[
        event(json!({"do": "sleep", "ms": 20_000})),
        event(json!({"do": "reject"})),
        typed("More.Happened", json!({})),
        typed("More.Happened", json!({})),
        typed("More.Happened", json!({})),
        typed("Nobody.Knows", json!({})),
    ]);
    eventually("all are where they stay", || {
        let dead = fleet.dead("router").len() + fleet.dead("probe-service").len();
        (dead == 2 && fleet.cli::<u64>("XLEN more-events") == 3).then_some(())
    });
    drop((router, worker));
    for line in [
        "DEL worker:probe-service:p worker:router:r",
        "HSET worker:other-service:old nonce x generation 0",
        "HSET fleet worker:other-service:old x",
        "HSET fleet group:test-events:gone-service 1000:0-0",
        "HSET fleet group:test-events:old-service 1000:0-0",
        "HSET stats:probe-service lost 3",
        "HSET control:other-service paused_until resumed paused_by me paused_why test",
        "HSET control:probe-service breaker open since 1 until 2 opened 1 why down",
    ] {
        let _: i64 = fleet.cli(line);
    }
    for line in [
        "XGROUP CREATE test-events old-service 0",
        "XGROUP CREATE test-events $(odd) 0",
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG SET appendonly no",
        "CONFIG SET maxmemory 3mb",
    ] {
        let _: String = fleet.cli(line);
    }
    // In the middle, where Redis cannot count.
    let ids: Vec<(String, redis::Value)> = fleet.cli("XRANGE more-events - +");
    let _: String = fleet.cli(&format!(
        "XGROUP SETID more-events other-service {}",
        ids[1].0
    ));

    let before = fleet.snapshot();
    let (code, found) = examine(&fleet, &["--patience", "1ms"]);
    assert_eq!(code, Some(1));
    let find = |severity: &str, about: &str, what: &str| {
        let fits = |finding: &&Value| {
            finding["severity"] == severity
                && finding["about"].as_str().unwrap().contains(about)
                && finding["what"].as_str().unwrap().contains(what)
        };
        let mut of = found.iter().filter(fits);
        let one = of.next();
        assert!(one.is_some(), "{severity} {about} {what}: {found:#?}");
        one.unwrap()["proof"].as_str().unwrap().to_owned()
    };
    for (severity, about, what) in [
        ("error", "server", "maxmemory-policy is allkeys-lru"),
        ("warning", "server", "nothing is written to disk"),
        ("error", "group gone-service on test-events", "is gone"),
        ("warning", "group old-service on test-events", "an orphan"),
        ("warning", "group $(odd) on test-events", "did not make it"),
        (
            "warning",
            "group other-service on more-events",
            "has not read is",
        ),
        (
            "note",
            "group other-service on more-events",
            "cannot tell its lag",
        ),
        (
            "warning",
            "group probe-service on test-events",
            "has not settled is",
        ),
        ("note", "subscriber probe-service", "gives no sign of life"),
        ("warning", "router", "no router is alive"),
        (
            "error",
            "subscriber probe-service",
            "none of its workers is alive",
        ),
        ("warning", "other-service old", "an older configuration"),
        (
            "error",
            "subscriber probe-service",
            "3 of its deliveries were deleted",
        ),
        ("note", "subscriber other-service", "it is paused"),
        ("warning", "subscriber probe-service", "circuit breaker"),
        ("note", "dead letters of router", "1 letter"),
        ("note", "dead letters of probe-service", "1 letter"),
        (
            "warning",
            "stream test-events",
            "neither maxlen nor retention",
        ),
    ] {
        find(severity, about, what);
    }
    assert!(found.iter().all(|f| !f["fix"].as_str().unwrap().is_empty()));
    prove(&found);
    let same = |all: Vec<(String, Vec<u8>)>| -> Vec<_> {
        all.into_iter()
            .filter(|(key, _)| !key.starts_with("worker:"))
            .collect()
    };
    assert_eq!(same(fleet.snapshot()), same(before), "nothing was changed");

    // The gravest first, and what is typed shows what was said.
    let first = &found[0];
    assert_eq!(first["severity"], "error");
    let shown = |what: &str| {
        let finding = found
            .iter()
            .find(|f| f["what"].as_str().unwrap().contains(what))
            .unwrap();
        prove(std::slice::from_ref(finding)).remove(0)
    };
    assert!(shown("allkeys-lru").contains("maxmemory_policy:allkeys-lru"));
    assert!(shown("an orphan").contains("old-service"));
    assert!(shown("gives no sign of life").contains("\np."));
    assert_eq!(shown("3 of its deliveries"), "3\n");
    assert_eq!(shown("neither maxlen nor retention").trim(), "2");
}

/// What this user may not ask is said, and what it may is examined all the same.
#[test]
fn rights_that_are_missing_are_a_finding() {
    let fleet = Fleet::new();
    fleet.configure(&sound());
    drop(fleet.router("r"));
    let _: String =
        fleet.cli("ACL SETUSER viewer on >secret ~* +@read +@connection +info +time +scan +config|get +multi +exec -@scripting");
    let url = fleet.url().replace("unix://", "redis+unix://") + "?user=viewer";
    let password = fleet.dir.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let ask = |more: &[&str]| {
        let mut command = streamfleet(&[&["doctor", "--redis-url", &url], more].concat());
        command
            .env("STREAMFLEET_CONFIG", fleet.config())
            .env("STREAMFLEET_REDIS_PASSWORD_FILE", &password);
        run(command, b"")
    };
    let ran = ask(&["--output", "json"]);
    let found = items(&ran.out);
    let rights = found.iter().find(|f| f["about"] == "rights");
    let rights = rights.unwrap_or_else(|| panic!("{found:#?}"));
    assert!(
        rights["what"].as_str().unwrap().contains("eval"),
        "{rights}"
    );
    assert!(
        rights["proof"]
            .as_str()
            .unwrap()
            .ends_with("--user viewer ACL WHOAMI"),
        "{rights}"
    );
    assert!(
        found
            .iter()
            .any(|f| f["about"] == "subscriber probe-service"),
        "{found:#?}"
    );
    assert!(!ran.out.contains("secret"), "{ran:?}");
    assert_eq!(ran.code, Some(1));
    let _: String = fleet.cli("ACL SETUSER viewer -multi");
    let ran = ask(&[]);
    assert!(ran.out.contains("'multi'"), "{ran:?}");
    assert_eq!(ran.code, Some(1));
}
