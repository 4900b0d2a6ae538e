//! The shop at work: the shipped routing.yaml and schemas, the router, and all services,
//! on an import of `tests/retail/small.csv`. What must come of it is computed by
//! `tests/retail/expected.py`, which shares no code with the shop.

use std::path::Path;
use std::process::Command;

use redis::Commands;

use crate::services::gateway::Gateway;
use crate::shop_pure::{SMALL, events, rows};
use crate::support::cli::{run, streamfleet};
use crate::support::fleet::Process;
use crate::support::{Fleet, Server, eventually};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Everyone whom routing.yaml names.
const SERVICES: [&str; 9] = [
    "inventory",
    "payment",
    "order",
    "notification",
    "analytics",
    "search",
    "cache",
    "recommendation",
    "user",
];

/// A fleet with the shipped routing.yaml (changed by `edit`) and schemas.
pub fn shop(edit: impl Fn(String) -> String) -> Fleet {
    shop_on(Server::start(), edit)
}

/// The same on this Redis.
pub fn shop_on(server: Server, edit: impl Fn(String) -> String) -> Fleet {
    let fleet = Fleet { server };
    let routing = std::fs::read_to_string(Path::new(HERE).join("routing.yaml")).unwrap();
    std::os::unix::fs::symlink(
        Path::new(HERE).join("schemas"),
        fleet.dir.path().join("schemas"),
    )
    .unwrap();
    fleet.configure(&edit(routing));
    fleet
}

/// The same where nothing waits for long: retries, and what a circuit breaker holds up.
pub fn brisk_shop(edit: impl Fn(String) -> String) -> Fleet {
    brisk_shop_on(Server::start(), edit)
}

/// The same on this Redis.
pub fn brisk_shop_on(server: Server, edit: impl Fn(String) -> String) -> Fleet {
    shop_on(server, |text| {
        let brisk = [
            (
                "initial: 1s, multiplier: 2, max: 30s, jitter: 0.5",
                "initial: 50ms, max: 200ms, jitter: 0",
            ),
            ("open: 5s, max_open: 1m", "open: 200ms, max_open: 200ms"),
        ];
        edit(brisk.iter().fold(text, |text, (shipped, brisk)| {
            assert!(text.contains(shipped), "{shipped}");
            text.replace(shipped, brisk)
        }))
    })
}

fn service(fleet: &Fleet, gateway: &Gateway, name: &str) -> Process {
    let one = Path::new(env!("CARGO_BIN_EXE_analytics-worker"));
    let mut command = Command::new(one.with_file_name(format!("{name}-worker")));
    command.args(["--name", name]);
    command.env("STREAMFLEET_OUTBOX", fleet.dir.path().join("outbox"));
    command.env("STREAMFLEET_GATEWAY", gateway.url());
    // An order that cannot be charged is cancelled then: long after all others have ended.
    command.env("STREAMFLEET_ORDER_PATIENCE", "15s");
    fleet.launch(command, name, "worker started")
}

/// Publishes what the importer makes of the file, unchecked, as the importer does.
fn import(fleet: &Fleet, stock: u32) {
    let events = events::events(&rows::read(SMALL).unwrap(), stock).unwrap();
    let mut lines = Vec::new();
    for event in events {
        lines.extend(event.json);
        lines.push(b'\n');
    }
    let answer = fleet.ask_with(&["publish", "--no-validate"], &lines).ok();
    assert!(answer.ends_with("refused 0\n"), "{answer}");
}

/// Waits until every order has ended and nothing is owed, then compares everything.
#[track_caller]
fn compare(fleet: &Fleet, gateway: &Gateway, stock: u32) {
    eventually("every order has ended", || {
        (fleet.is_drained() && fleet.cli::<u64>("HLEN sagas:Order") == 0).then_some(())
    });
    fleet.drained();
    let status = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(status["drained"], true, "{status:#}");
    let retail = Path::new(HERE).join("tests/retail");
    let mut command = Command::new("python3");
    command
        .arg(retail.join("compare.py"))
        .arg(retail.join("small.csv"));
    command.args(["--stock", &stock.to_string()]);
    command.arg("--socket").arg(fleet.socket());
    command.arg("--outbox").arg(fleet.dir.path().join("outbox"));
    command.args(["--gateway", &gateway.url()]);
    let ran = run(command, b"");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
}

/// With one order after the other, even who comes too late is known beforehand.
#[test]
fn a_shortage_turns_away_exactly_who_comes_too_late() {
    let one_at_a_time = |text: String| text.replace("concurrency: 4", "concurrency: 1");
    let fleet = shop(one_at_a_time);
    let _router = fleet.router("r");
    let gateway = Gateway::start(fleet.dir.path());
    let _services = SERVICES.map(|s| service(&fleet, &gateway, s));
    import(&fleet, 15);
    compare(&fleet, &gateway, 15);
}

/// Nothing is lost or counted twice when a service is killed, nor when everything is published
/// a second time.
#[test]
fn a_killed_service_and_a_repeated_import_change_no_number() {
    let fleet = shop(|text| text);
    let _router = fleet.router("r");
    let gateway = Gateway::start(fleet.dir.path());
    let mut inventory = service(&fleet, &gateway, SERVICES[0]);
    let others = SERVICES[1..].iter();
    let _others: Vec<_> = others.map(|s| service(&fleet, &gateway, s)).collect();
    inventory.signal("STOP");
    import(&fleet, 1_000_000);
    eventually("everything is routed", || {
        (fleet.cli::<u64>("XLEN inbox") == 0).then_some(())
    });
    inventory.signal("CONT");
    let mut connection = fleet.connection();
    let start = std::time::Instant::now();
    // Without a pause in between: it is done within milliseconds.
    let works = |connection: &mut redis::Connection| {
        let pending: redis::streams::StreamPendingReply = connection
            .xpending("order-events", "inventory-service")
            .unwrap();
        pending.count() > 0
    };
    while !works(&mut connection) {
        assert!(start.elapsed().as_secs() < 30, "inventory takes nothing");
    }
    inventory.child.kill().unwrap();
    inventory.child.wait().unwrap();
    let status = fleet.ask(&["status", "--output", "json"]).json();
    assert_eq!(status["drained"], false, "it was killed in the middle");
    let _inventory = service(&fleet, &gateway, SERVICES[0]);
    compare(&fleet, &gateway, 1_000_000);

    import(&fleet, 1_000_000);
    fleet.drained();
    // 49 events: 45 are dropped, and 4 refused again.
    let discard = [
        "dead",
        "discard",
        "--subscriber",
        "router",
        "--limit",
        "4",
        "--yes",
    ];
    fleet.ask(&discard).ok();
    compare(&fleet, &gateway, 1_000_000);
    assert_eq!(fleet.cli::<u64>("HGET stats:router duplicates"), 45);
}

#[test]
fn the_shipped_configuration_is_right_and_the_expectation_is_up_to_date() {
    let check = streamfleet(&["check", "--config", &format!("{HERE}/routing.yaml")]);
    run(check, b"").ok();
    let mut command = Command::new("python3");
    command.arg(format!("{HERE}/tests/retail/expected.py"));
    command.args(["--stock", "15", &format!("{HERE}/tests/retail/small.csv")]);
    let stored = include_str!("../retail/small.stock15.json");
    assert_eq!(run(command, b"").ok(), stored);
}
