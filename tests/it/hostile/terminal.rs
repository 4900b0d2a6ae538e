//! What stands in Redis under any name, as somebody else may have written it, is shown by the
//! operator's commands without moving the cursor. (Dead letters: `operator::dead`.)

use std::process::Command;

use serde_json::json;

use crate::support::{Fleet, event, eventually};

const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}\r\n\u{85}\u{9b}31m";

#[test]
fn what_stands_in_redis_cannot_move_the_cursor() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let _worker = fleet.worker("probe-service", "w");
    fleet.publish(&[event(json!({}))]);
    fleet.handles_each_once("probe-service", 1);
    let run = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec(&mut fleet.connection()).unwrap();
    };
    run(&[
        "HSET",
        "fleet",
        &format!("group:test-events:{EVIL}"),
        "1000:0-0",
    ]);
    run(&[
        "HSET",
        "fleet",
        &format!("group:{EVIL}:x-service"),
        "1000:0-0",
    ]);
    run(&["XGROUP", "CREATE", "test-events", EVIL, "0"]);
    run(&[
        "XGROUP",
        "CREATECONSUMER",
        "test-events",
        "probe-service",
        EVIL,
    ]);
    run(&[
        "HSET",
        &format!("worker:probe-service:{EVIL}"),
        "nonce",
        EVIL,
        "host",
        EVIL,
        "version",
        EVIL,
    ]);
    run(&[
        "HSET",
        &format!("worker:{EVIL}:x"),
        "nonce",
        "x",
        "host",
        EVIL,
    ]);
    run(&["HSET", "stats:probe-service", "lost", EVIL]);
    for owner in [EVIL, "probe-service"] {
        let key = format!("dead:{owner}");
        run(&[
            "XADD",
            &key,
            "*",
            "id",
            EVIL,
            "type",
            EVIL,
            "reason",
            EVIL,
            "error",
            EVIL,
            "errors",
            EVIL,
            "attempts",
            EVIL,
            "subscriber",
            EVIL,
            "stream",
            EVIL,
            "entry",
            EVIL,
            "died",
            EVIL,
        ]);
    }
    let questions: [&[&str]; 9] = [
        &["status"],
        &["status", "--output", "json"],
        &["group", "list"],
        &["group", "list", "--output", "json"],
        &[
            "group",
            "retire",
            "--subscriber",
            EVIL,
            "--stream",
            "test-events",
        ],
        &["dead", "list"],
        &["dead", "list", "--subscriber", EVIL],
        &["dead", "redrive", "--all", "--dry-run"],
        &["publish", EVIL, "--data", EVIL],
    ];
    let mut shown = 0;
    for question in questions {
        let ran = fleet.ask(question);
        assert!(
            ran.code.is_some_and(|code| code != 101),
            "{question:?}: {ran:?}"
        );
        let said = ran.out + &ran.err;
        let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(harmful), "{question:?}: {said:?}");
        shown += usize::from(said.contains("owned"));
    }
    assert!(shown > 5, "most of them show it");
}

/// What a handler says of an event is logged; the log is often looked at on a terminal.
#[test]
fn what_a_handler_says_cannot_send_escape_sequences_through_the_log() {
    for format in ["human", "json"] {
        let fleet = Fleet::new();
        let _router = fleet.router("r");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "support::probe::process", "--nocapture"])
            .env("PROBE_SUBSCRIBER", "probe-service")
            .env("PROBE_URL", fleet.url())
            .env("STREAMFLEET_LOG_FORMAT", format);
        let worker = fleet.launch(command, "w", "worker started");
        let text = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{8}";
        fleet.publish(&[event(json!({"do": "say", "text": text}))]);
        eventually("it is given up", || fleet.dead("probe-service").pop());
        worker.wait_for_log("owned");
        let log = worker.log_text();
        let harmful = log.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(harmful, None, "{format}: {log:?}");
        let told = log.lines().filter(|line| line.contains("[2J")).count();
        let begun = log.lines().filter(|line| line.contains("owned")).count();
        assert_eq!(told, begun, "no line is broken in two");
    }
}
