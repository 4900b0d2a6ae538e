//! What every command has in common: exit codes, and text that fits where it goes.

use std::process::{Command, Stdio};

use crate::support::cli::{run, streamfleet};
use crate::support::fleet::ROUTING;
use crate::support::{Fleet, eventually};

const COMMANDS: [&[&str]; 4] = [
    &["status"],
    &["dead", "list"],
    &["group", "list"],
    &["publish", "Test.Happened", "--data", "{}"],
];

#[test]
fn an_unreachable_redis_is_69_and_a_url_that_cannot_be_one_is_78() {
    let fleet = Fleet::new();
    let nowhere = fleet.dir.path().join("nowhere.sock");
    let nowhere = format!("unix://{}", nowhere.display());
    // Port 9 of the loopback: nobody is there.
    let secret = "redis://user:hunter2@127.0.0.1:9";
    for args in COMMANDS {
        for (url, code) in [
            (nowhere.as_str(), 69),
            (secret, 69),
            ("http://localhost", 78),
        ] {
            let mut command = streamfleet(args);
            command.env("STREAMFLEET_CONFIG", fleet.config());
            command.env("STREAMFLEET_REDIS_URL", url);
            let said = run(command, b"").failed(code);
            assert!(said.starts_with("streamfleet: "), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn wrong_usage_is_2() {
    let fleet = Fleet::new();
    let cases: [&[&str]; 13] = [
        &[],
        &["nonsense"],
        &["status", "--nonsense"],
        &["status", "--interval", "2s"],
        &["status", "--output", "yaml"],
        &["publish", "Test.Happened"],
        &["publish", "-", "--data", "{}"],
        &["publish", "-", "--schema-version", "2"],
        &["publish", "--file", "-", "--data", "{}"],
        &["publish", "not a type", "--data", "{}"],
        &["dead", "list", "--since", "yesterday"],
        &["dead", "redrive", "not-an-id"],
        &["dead", "redrive", "1-1", "--all"],
    ];
    for args in cases {
        let ran = fleet.ask(args);
        assert_eq!(ran.out, "", "{args:?}");
        assert!(!ran.failed(2).is_empty(), "{args:?}");
    }
    assert!(fleet.ask(&["--version"]).ok().starts_with("streamfleet "));
    assert!(
        fleet
            .ask(&["dead", "redrive", "--help"])
            .ok()
            .contains("--dry-run")
    );
}

/// Runs it on a terminal of its own; what it wrote there.
fn on_a_terminal(fleet: &Fleet, args: &[&str], no_color: bool) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", "import pty, sys; pty.spawn(sys.argv[1:])"]);
    command.arg(env!("CARGO_BIN_EXE_streamfleet")).args(args);
    command.env("STREAMFLEET_CONFIG", fleet.config());
    command.env("STREAMFLEET_REDIS_URL", fleet.url());
    command.env_remove("NO_COLOR").env("TERM", "xterm");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    run(command, b"").ok()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _: u64 = fleet.cli("XGROUP DESTROY test-events probe-service");
    for args in [&["status"][..], &["group", "list"]] {
        let ran = fleet.ask(args);
        assert!(
            !ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'),
            "{ran:?}"
        );
        let coloured = on_a_terminal(&fleet, args, false);
        assert!(coloured.contains("\u{1b}[31m"), "{coloured:?}");
        let plain = on_a_terminal(&fleet, args, true);
        assert!(
            plain.contains("test-events") && !plain.contains('\u{1b}'),
            "{plain:?}"
        );
    }
}

#[test]
fn a_namespace_comes_before_every_key() {
    let fleet = Fleet::new();
    fleet.configure(&format!("namespace: shop\n{ROUTING}"));
    let _processes = [fleet.router("r"), fleet.worker("probe-service", "p")];
    for data in ["{}", r#"{"do": "reject"}"#] {
        fleet
            .ask(&["publish", "Test.Happened", "--data", data])
            .ok();
    }
    let refused = ["publish", "Nobody.Knows", "--data", "{}", "--no-validate"];
    fleet.ask(&refused).ok();
    let dead = || fleet.ask(&["dead", "list", "--output", "json"]).items();
    eventually("both are dead", || (dead().len() == 2).then_some(()));
    fleet.ask(&["dead", "redrive", "--all"]).ok();
    eventually("both have died again", || {
        let dead = dead();
        (dead.len() == 2 && dead.iter().all(|letter| letter["redrives"] == 1)).then_some(())
    });
    let status = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(status["router"]["routed"], 2);
    assert_eq!(fleet.cli::<u64>("HLEN shop:probe-service:handled"), 1);
    let groups = fleet.ask(&["group", "list", "--output", "json"]).list();
    let groups = groups.as_array().unwrap();
    assert!(groups.iter().all(|g| g["condition"] == "ok"), "{groups:#?}");
    // The probe itself notes its starts outside of it.
    let ours = |key: &String| key != "probe-service:started";
    let keys: Vec<String> = fleet.snapshot().into_iter().map(|(key, _)| key).collect();
    assert!(
        keys.iter()
            .filter(|key| ours(key))
            .all(|key| key.starts_with("shop:")),
        "{keys:?}"
    );
}

/// `streamfleet dead list | head -1`.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let fleet = Fleet::new();
    let mut command = streamfleet(&["status"]);
    command.env("STREAMFLEET_CONFIG", fleet.config());
    command.env("STREAMFLEET_REDIS_URL", fleet.url());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.is_empty());
}
