//! Canaries: secrets that are given to processes, and payloads that pass through them, are looked for
//! wherever somebody could see them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use crate::support::cli::{run, streamfleet};
use crate::support::fleet::{Process, ROUTING, typed};
use crate::support::{Fleet, Server, event, eventually};

const REDIS: &str = "canary-of-redis-1789";
const SMTP: &str = "canary-of-smtp-2790";
const GATEWAY: &str = "canary-of-gateway-3791";
const PAYLOAD: &str = "canary-of-payload-4792";

/// A gateway that says whether it was shown the token, and that it is out of order.
fn gateway() -> (String, mpsc::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let reader = BufReader::new(stream.try_clone().unwrap());
            let lines = reader.lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let bearer = format!("authorization: Bearer {GATEWAY}");
            let shown = head.iter().any(|line| line.eq_ignore_ascii_case(&bearer));
            let _ = tell.send(shown);
            let body = format!("you said {head:?}");
            let length = body.len();
            drop(write!(
                stream,
                "HTTP/1.1 500 Oops\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            ));
        }
    });
    (address, told)
}

/// Everything in Redis, as text.
fn everything(fleet: &Fleet) -> String {
    let dump = fleet.snapshot();
    let texts = dump
        .iter()
        .map(|(key, bytes)| format!("{key} {}", String::from_utf8_lossy(bytes)));
    texts.collect()
}

fn arguments(process: &Process) -> String {
    let mut bytes = Vec::new();
    let file = format!("/proc/{}/cmdline", process.child.id());
    std::fs::File::open(file)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_secret_is_seen_anywhere() {
    let server = Server::start();
    let fleet = crate::shop::brisk_shop_on(server, |text| text);
    let _: () = fleet.cli(&format!("ACL SETUSER fleet on >{REDIS} ~* &* +@all"));
    let put = |name: &str, text: &str| {
        let path = fleet.dir.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path
    };
    let files = BTreeMap::from([
        ("STREAMFLEET_REDIS_PASSWORD_FILE", put("redis", REDIS)),
        ("STREAMFLEET_SMTP_PASSWORD_FILE", put("smtp", SMTP)),
        ("STREAMFLEET_GATEWAY_TOKEN_FILE", put("token", GATEWAY)),
    ]);
    let (gateway, shown) = gateway();
    let equip = |command: &mut Command| {
        command.envs(&files);
        command.env("STREAMFLEET_REDIS_USERNAME", "fleet");
        command.env("STREAMFLEET_GATEWAY", &gateway);
        // Nobody listens there.
        command.env("STREAMFLEET_SMTP", "smtp://shop@127.0.0.1:9");
        command.env("RUST_LOG", "trace");
    };
    let start = |program: &str, name: &str, started: &str| {
        let mut command = Command::new(program);
        command.args(["--name", name]);
        equip(&mut command);
        let url = fleet.url();
        // Told twice, because the tests' own level would win.
        command.args(["--redis-url", &url]);
        let mut shell = Command::new("env");
        shell.arg("STREAMFLEET_LOG=trace").arg(program);
        shell.args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(n, v)| Some((n, v?))));
        fleet.launch(shell, name, started)
    };
    let processes = [
        start(
            env!("CARGO_BIN_EXE_streamfleet-router"),
            "r",
            "router started",
        ),
        start(env!("CARGO_BIN_EXE_payment-worker"), "p", "worker started"),
        start(
            env!("CARGO_BIN_EXE_notification-worker"),
            "n",
            "worker started",
        ),
    ];
    let mut order: serde_json::Value =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/day.ndjson"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|event| event["event_type"] == "Order.Created")
            .unwrap();
    order["correlation_id"] = json!(uuid::Uuid::new_v4());
    fleet.publish(&[order, typed("Nobody.Knows", json!({}))]);
    assert!(
        shown.recv_timeout(Duration::from_secs(30)).unwrap(),
        "the gateway is shown the token"
    );
    processes[1].wait_for_log("a delivery failed");
    processes[2].wait_for_log("a delivery failed");

    let mut seen = vec![("Redis".to_owned(), everything(&fleet))];
    for args in [
        &["status", "--output", "json"][..],
        &["dead", "list", "--output", "json"],
        &["group", "list"],
        &["check"],
    ] {
        let mut command = streamfleet(args);
        command.env("STREAMFLEET_CONFIG", fleet.config());
        command.env("STREAMFLEET_REDIS_URL", fleet.url());
        command.env("STREAMFLEET_LOG", "trace");
        equip(&mut command);
        let ran = run(command, b"");
        seen.push((format!("{args:?}"), ran.out.clone() + &ran.err));
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    // Refused everywhere, they say so without it.
    let _: () = fleet.cli("ACL SETUSER fleet resetpass >another");
    let _: u64 = fleet.cli("CLIENT KILL USER fleet");
    for process in &processes {
        process.wait_for_log("is not accepted");
        seen.push((process.log.display().to_string(), process.log_text()));
        seen.push(("arguments".to_owned(), arguments(process)));
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.child.id()));
        let limits = limits.unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size"));
        assert_eq!(
            core.unwrap().split_whitespace().nth(4),
            Some("0"),
            "{limits}"
        );
    }
    for (place, text) in seen {
        for secret in [REDIS, SMTP, GATEWAY] {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
    }
}

/// Payloads are in no log, at the level that is usual: of a handler's own words, only what
/// they repeat.
#[test]
fn no_payload_is_logged() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace(
        "version: 1",
        "version: 1\naudit: { maxlen: 1000 }\ntrace: { ttl: 1h }",
    ));
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let text = |what: &str| event(json!({"do": what, "text": PAYLOAD}));
    let mut odd = text("x");
    odd["event_id"] = json!("no uuid");
    fleet.publish(&[
        text("x"),
        text("fail twice"),
        text("fail"),
        text("reject"),
        text("panic"),
        text("unavailable once"),
        odd,
        typed("Nobody.Knows", json!({"text": PAYLOAD})),
    ]);
    eventually("they have ended", || {
        (fleet.dead("probe-service").len() == 3 && fleet.dead("router").len() == 2).then_some(())
    });
    for process in [&router, &worker] {
        let log = process.log_text();
        assert!(!log.contains(PAYLOAD), "{log}");
    }
    assert!(worker.log_text().contains("panicked"));
    for args in [&["audit"][..], &["status"], &["dead", "list"]] {
        let ran = fleet.ask(args);
        assert!(!(ran.out + &ran.err).contains(PAYLOAD), "{args:?}");
    }
}

/// What a handler says cannot forge a line of the log, in either form.
#[test]
fn no_line_of_a_log_is_forged() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let forged = "bad\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{202e}\u{e0041}";
    for form in ["human", "json"] {
        let mut command = fleet.worker_command("probe-service", form, &fleet.url());
        command.env("STREAMFLEET_LOG_FORMAT", form);
        let worker = fleet.launch(command, form, "worker started");
        fleet.publish(&[event(json!({"do": "say", "text": forged}))]);
        worker.wait_for_log("a delivery was given up");
        let log = worker.log_text();
        assert!(log.contains("forged"), "{log}");
        assert!(
            !log.lines().any(|line| line.starts_with("2026-01-01")),
            "{log}"
        );
        assert!(
            !log.contains(['\r', '\u{1b}', '\u{202e}', '\u{e0041}']),
            "{log:?}"
        );
    }
}
