//! `streamfleet dev`: everything at once, and nothing left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redis::Commands;
use serde_json::Value;
use streamfleet::routing::Config;

use crate::support::cli::{run, streamfleet};
use crate::support::eventually;
use crate::support::fleet::Process;
use crate::support::server::program;

const ROUTING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/routing.yaml");

/// How many services the shop has.
fn services() -> usize {
    let config = Config::load(Path::new(ROUTING)).unwrap();
    config.routing.subscribers().count()
}

/// Starts it on a folder, and waits until it says that everything is started.
fn dev(folder: &Path, more: &[&str]) -> Process {
    dev_with(folder, more, &[])
}

fn dev_with(folder: &Path, more: &[&str], environment: &[(&str, &str)]) -> Process {
    // `dev` starts what lies beside it.
    assert!(Path::new(env!("CARGO_BIN_EXE_analytics-worker")).is_file());
    assert!(Path::new(env!("CARGO_BIN_EXE_sandbox-gateway")).is_file());
    let mut command = streamfleet(&["dev", "--config", ROUTING]);
    command.arg("--dir").arg(folder.join("data")).args(more);
    command.env("STREAMFLEET_OUTBOX", folder.join("outbox"));
    command.env("STREAMFLEET_REDIS_SERVER", program());
    // Not for those that it starts: nobody has this address.
    command.env("STREAMFLEET_METRICS_ADDRESS", "192.0.2.1:1");
    command.envs(environment.iter().copied());
    let log = folder.join("dev.log");
    let file = File::create(&log).unwrap();
    command.stdin(Stdio::null());
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let process = Process {
        child: command.spawn().unwrap(),
        log,
    };
    let services = services();
    process.wait_for_log(&format!(
        "started: Redis, the router and {services} workers"
    ));
    process
}

/// The processes that a process has started.
fn children(of: u32) -> Vec<u32> {
    let tasks = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
    tasks
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Whether a process runs; one that ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn status(url: &str) -> Value {
    let ask = [
        "status",
        "--output",
        "json",
        "--config",
        ROUTING,
        "--redis-url",
        url,
    ];
    run(streamfleet(&ask), b"").json()
}

fn all_are_alive(url: &str) {
    eventually("the router and every worker are alive", || {
        let status = status(url);
        let router = &status["router"]["workers"];
        let subscribers = status["subscribers"].as_array().unwrap();
        let alive = subscribers
            .iter()
            .filter(|s| s["workers"] == serde_json::json!(["dev-1"]));
        (router[0] == "dev-1" && alive.count() == services()).then_some(())
    });
}

#[test]
fn everything_starts_works_and_stops_with_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = dev(folder.path(), &[]);
    let url = format!("unix://{}", folder.path().join("data/redis.sock").display());
    assert!(
        dev.log_text()
            .contains(&format!("export STREAMFLEET_REDIS_URL={url}"))
    );
    all_are_alive(&url);
    let started = children(dev.child.id());
    assert_eq!(
        started.len(),
        3 + services(),
        "Redis, the router, workers, the gateway"
    );

    let data = r#"{"user_id":1,"username":"Ann","email":"ann@example.org","created_at":"2026-01-05T10:00:00Z","user_type":"customer"}"#;
    let publish = [
        "publish",
        "User.Created",
        "--data",
        data,
        "--config",
        ROUTING,
        "--redis-url",
        &url,
    ];
    run(streamfleet(&publish), b"").ok();
    eventually("the welcome is written", || {
        let mails = std::fs::read_dir(folder.path().join("outbox")).ok()?;
        let whole = |path: PathBuf| path.extension().is_some_and(|e| e == "eml");
        mails
            .map(|mail| mail.unwrap().path())
            .any(whole)
            .then_some(())
    });

    let mut second = streamfleet(&["dev", "--config", ROUTING, "--dir"]);
    second.arg(folder.path().join("data"));
    let said = run(second, b"").failed(1);
    assert!(said.contains("another `streamfleet dev` runs in"), "{said}");
    assert_eq!(children(dev.child.id()), started, "the first goes on");

    dev.signal("INT");
    assert_eq!(dev.exit_code(), Some(0));
    let left: Vec<_> = started.into_iter().filter(|pid| runs(*pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    let log = dev.log_text();
    assert_eq!(
        log.matches("worker stopped").count(),
        services(),
        "each said goodbye"
    );
    assert!(!log.contains("did not stop in time"), "{log}");

    // The data is there at the next start.
    let dev = self::dev(folder.path(), &[]);
    assert_eq!(status(&url)["router"]["routed"], 1);
    drop(dev);
}

#[test]
fn nothing_survives_it_even_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = dev(folder.path(), &["--port", "0"]);
    let log = dev.log_text();
    let url = log.split("STREAMFLEET_REDIS_URL=").nth(1).unwrap();
    let url = url.lines().next().unwrap();
    assert!(
        url.starts_with("redis://127.0.0.1:") && !url.ends_with(":6379"),
        "{url}"
    );
    all_are_alive(url);
    let started = children(dev.child.id());
    assert_eq!(started.len(), 3 + services());
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    eventually("all have ended", || {
        started.iter().all(|pid| !runs(*pid)).then_some(())
    });
}

/// What a worker calls outside is played by a program beside it, which remembers across restarts,
/// unless the environment says where the service is.
#[test]
fn a_service_outside_has_a_stand_in() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("unix://{}", folder.path().join("data/redis.sock").display());
    let order = r#"{"order_id":1,"order_number":"N-1","user_id":0,"total_amount":12.30,"status":"pending","items":[],"shipping_address":{"recipient":"A","phone":"1","address":"1 Road","city":"Lyon","province":"-"},"created_at":"2026-01-05T10:00:00Z"}"#;
    let publish = |event_type: &str, data: &str| {
        let publish = ["publish", event_type, "--data", data, "--config", ROUTING];
        let mut publish = streamfleet(&publish);
        publish.args(["--redis-url", &url]);
        run(publish, b"").ok();
    };
    let is_answered = |event_type: &str| {
        let client = redis::Client::open(url.as_str()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let stream: redis::streams::StreamRangeReply =
            connection.xrange_all("order-events").unwrap();
        let types = stream
            .ids
            .iter()
            .filter_map(|entry| entry.get::<String>("type"));
        (types.filter(|name| name == event_type).count() == 1).then_some(())
    };
    let mut first = dev(folder.path(), &[]);
    first.wait_for_log("STREAMFLEET_GATEWAY=http://127.0.0.1:");
    publish("Order.Created", order);
    eventually("it is paid", || is_answered("Payment.Order.Paid"));
    first.signal("INT");
    assert_eq!(first.exit_code(), Some(0));

    let second = dev(folder.path(), &[]);
    let cancelled =
        r#"{"order_id":1,"user_id":0,"reason":"customer","cancelled_at":"2026-01-05T11:00:00Z"}"#;
    publish("Order.Cancelled", cancelled);
    eventually("it is refunded", || is_answered("Payment.Order.Refunded"));
    let started = children(second.child.id());
    drop(second);
    eventually("all have ended", || {
        started.iter().all(|pid| !runs(*pid)).then_some(())
    });

    let third = dev_with(
        folder.path(),
        &[],
        &[("STREAMFLEET_GATEWAY", "http://127.0.0.1:1")],
    );
    assert!(!third.log_text().contains("sandbox-gateway"));
    all_are_alive(&url);
    assert_eq!(children(third.child.id()).len(), 2 + services());
}

/// A worker that ends leaves the others at work; without Redis there is nothing to do.
#[test]
fn what_ends_by_itself_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = dev(folder.path(), &[]);
    let url = format!("unix://{}", folder.path().join("data/redis.sock").display());
    all_are_alive(&url);
    let started = children(dev.child.id());
    let exe = |pid: u32| {
        let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let file = path.file_name().unwrap_or_default();
        file.to_string_lossy().into_owned()
    };
    let named = |name: &str| {
        *started
            .iter()
            .find(|pid| exe(**pid).starts_with(name))
            .unwrap()
    };
    // Whatever its name: the first that was started.
    let redis = started[0];
    assert!(exe(redis).starts_with("redis") || exe(redis).starts_with("valkey"));
    let kill = |pid: u32| {
        let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(status.unwrap().success());
    };
    kill(named("analytics-worker"));
    dev.wait_for_log("analytics-worker ended by itself");
    assert!(runs(named("inventory-worker")) && runs(redis));
    kill(redis);
    dev.wait_for_log("Redis ended by itself");
    assert_eq!(dev.exit_code(), Some(1));
    assert!(started.iter().all(|pid| !runs(*pid)));
}

#[test]
fn what_it_will_not_do_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let start = ["dev", "--config", ROUTING, "--dir", &data];
    let said = run(
        streamfleet(&[&start[..], &["--port", "6379"]].concat()),
        b"",
    )
    .failed(2);
    assert!(said.contains("a Redis that matters"), "{said}");

    let mut without_redis = streamfleet(&start);
    without_redis.env("PATH", folder.path());
    let said = run(without_redis, b"").failed(1);
    assert!(
        said.contains("Install it: apt-get install redis-server"),
        "{said}"
    );

    let said = run(
        streamfleet(&[&start[..], &["--redis-server", "./none"]].concat()),
        b"",
    )
    .failed(1);
    assert!(said.contains("there is no ./none"), "{said}");

    let routing = std::fs::read_to_string(ROUTING).unwrap();
    let other = folder.path().join("routing.yaml");
    let routing = routing.replace(
        "subscribers:\n",
        "subscribers:\n  notification-service: { worker: missing-worker }\n",
    );
    std::fs::write(&other, routing).unwrap();
    std::os::unix::fs::symlink(
        Path::new(ROUTING).with_file_name("schemas"),
        folder.path().join("schemas"),
    )
    .unwrap();
    let other = other.display().to_string();
    let said = run(
        streamfleet(&["dev", "--config", &other, "--dir", &data]),
        b"",
    )
    .failed(1);
    assert!(
        said.contains("missing-worker") && said.contains("cargo build"),
        "{said}"
    );
}
