//! On which Redis a process starts, and what it says about it: real servers in each state.

use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use crate::support::fleet::id;
use crate::support::preload::Clock;
use crate::support::server::program;
use crate::support::{Fleet, Server, event, eventually};

/// Of nobody: nothing listens on port 1.
const DEMOTE: &str = "REPLICAOF 127.0.0.1 1";
const PROMOTE: &str = "REPLICAOF NO ONE";

/// How a router ends on this Redis: exit code and log.
fn refused(settings: &[&str]) -> (Option<i32>, String) {
    let fleet = Fleet::on(Server::with(settings));
    let mut router = fleet.start_router("r");
    (router.exit_code(), router.log_text())
}

/// What a router that starts on this Redis says about it.
fn warned(settings: &[&str]) -> String {
    let fleet = Fleet::on(Server::with(settings));
    fleet.router("r").log_text()
}

#[test]
fn a_sound_redis_gives_nothing_to_say() {
    let log = warned(&[]);
    assert!(!log.contains("WARN") && !log.contains("note:"), "{log}");
}

/// A Redis that may throw accepted events away is refused at the start.
#[test]
fn a_redis_that_evicts_is_refused() {
    let (code, log) = refused(&["--maxmemory-policy", "allkeys-lru"]);
    assert_eq!(code, Some(78));
    assert!(log.contains("Set it to noeviction"), "{log}");
}

#[test]
fn a_cluster_is_refused_whatever_the_url_says() {
    let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let bus = bus.unwrap().port().to_string();
    let local = ["--bind", "127.0.0.1", "--cluster-port", &bus];
    let (code, log) = refused(&[&["--cluster-enabled", "yes"], &local[..]].concat());
    assert_eq!(code, Some(78));
    assert!(log.contains("runs in cluster mode"), "{log}");

    let fleet = Fleet::new();
    for scheme in ["redis+cluster", "redis-cluster"] {
        let mut router = Command::new(env!("CARGO_BIN_EXE_streamfleet-router"));
        let url = format!("{scheme}://127.0.0.1:7000");
        router.args(["--redis-url", &url]);
        let mut router = fleet.launch(router, "r", "");
        assert_eq!(router.exit_code(), Some(78), "{scheme}");
        let log = router.log_text();
        assert!(log.contains("Redis Cluster is not supported yet"), "{log}");
    }
}

#[test]
fn a_sentinel_is_refused() {
    let fleet = Fleet::new();
    let dir = fleet.dir.path().join("sentinel");
    std::fs::create_dir(&dir).unwrap();
    let (file, socket) = (dir.join("sentinel.conf"), dir.join("redis.sock"));
    let settings = format!(
        "port 0\nunixsocket {}\ndir {}\n",
        socket.display(),
        dir.display()
    );
    std::fs::write(&file, settings).unwrap();
    let mut sentinel = Command::new(program());
    sentinel.arg(file).arg("--sentinel");
    let _sentinel = fleet.launch(sentinel, "sentinel", "");
    let mut router = Command::new(env!("CARGO_BIN_EXE_streamfleet-router"));
    router.args(["--redis-url", &format!("unix://{}", socket.display())]);
    let mut router = fleet.launch(router, "r", "");
    assert_eq!(router.exit_code(), Some(78));
    assert!(router.log_text().contains("this is a Redis Sentinel"));
}

#[test]
fn a_redis_that_forgets_is_warned_of() {
    let log = warned(&["--appendonly", "no"]);
    assert!(log.contains("nothing is written to disk"), "{log}");
    assert!(log.contains("CONFIG SET appendonly yes"), "{log}");

    let log = warned(&["--appendonly", "no", "--save", "3600 1"]);
    assert!(
        log.contains("only snapshots are written to disk (save 3600 1)"),
        "{log}"
    );
}

#[test]
fn snapshots_that_fail_are_warned_of() {
    let fleet = Fleet::on(Server::with(&["--save", "3600 1"]));
    // It cannot put its snapshot where a folder is.
    std::fs::create_dir(fleet.dir.path().join("dump.rdb")).unwrap();
    let _: () = fleet.cli("BGSAVE");
    eventually("it fails", || {
        let info: String = fleet.cli("INFO persistence");
        info.contains("rdb_last_bgsave_status:err").then_some(())
    });
    let mut router = fleet.start_router("r");
    assert_eq!(router.exit_code(), Some(69), "it could write nothing");
    let log = router.log_text();
    assert!(
        log.contains("Redis refuses writes until one succeeds"),
        "{log}"
    );

    let _: () = fleet.cli("CONFIG SET stop-writes-on-bgsave-error no");
    let log = fleet.router("r").log_text();
    assert!(log.contains("the last snapshot failed"), "{log}");
}

/// No file of this Redis may grow beyond 8 kB.
#[test]
fn a_full_disk_is_waited_for() {
    let fleet = Fleet::new();
    let dir = fleet.dir.path().join("full");
    std::fs::create_dir(&dir).unwrap();
    let url = format!("unix://{}", dir.join("redis.sock").display());
    let mut server = Command::new("bash");
    let limit = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --port 0 --unixsocket redis.sock --appendonly yes --save ''";
    server.args(["-c", limit]).arg(program()).current_dir(&dir);
    let _server = fleet.launch(server, "full", "");
    let client = redis::Client::open(url.as_str()).unwrap();
    eventually("it takes no more", || {
        let mut connection = client.get_connection().ok()?;
        let mut append = redis::cmd("APPEND");
        let refused = append
            .arg("filler")
            .arg("x".repeat(1000))
            .exec(&mut connection);
        (refused.err()?.code() == Some("MISCONF")).then_some(())
    });
    let mut router = Command::new(env!("CARGO_BIN_EXE_streamfleet-router"));
    router.args(["--redis-url", &url]);
    let mut router = fleet.launch(router, "r", "");
    assert_eq!(router.exit_code(), Some(69));
    let log = router.log_text();
    assert!(log.contains("cannot write its append-only file"), "{log}");
}

/// What counts as apart is tested beside the code.
#[test]
fn clocks_that_are_apart_are_warned_of() {
    let clock = Clock::build().unwrap();
    let fleet = Fleet::new();
    for (seconds, apart) in [
        (60, "s behind this machine's"),
        (-60, "s ahead of this machine's"),
    ] {
        clock.set(seconds);
        let mut router = fleet.router_command("r");
        router.envs(clock.environment());
        let router = fleet.launch(router, "r", "router started");
        let log = router.log_text();
        assert!(
            log.contains("the clock of Redis is ") && log.contains(apart),
            "{log}"
        );
    }
}

/// A replica may be a master that is yet to be promoted: to try again (69), not to give up (78).
#[test]
fn a_replica_is_waited_for_and_then_left() {
    let fleet = Fleet::new();
    let _: () = fleet.cli(DEMOTE);
    let mut router = fleet.start_router("r");
    assert_eq!(router.exit_code(), Some(69));
    let log = router.log_text();
    assert!(log.contains("this is a replica of 127.0.0.1:1"), "{log}");

    let router = fleet.start_router("r");
    router.wait_for_log("this is a replica of 127.0.0.1:1");
    let _: () = fleet.cli(PROMOTE);
    router.wait_for_log("router started");
}

/// A failover that passes costs running processes nothing but time.
#[test]
fn a_demotion_under_running_processes_passes() {
    let fleet = Fleet::new();
    let router = fleet.router("r");
    let worker = fleet.worker("probe-service", "w");
    let events: Vec<_> = (0..20)
        .map(|_| event(json!({"do": "sleep", "ms": 200})))
        .collect();
    fleet.publish(&events);
    eventually("some are started", || (fleet.started() > 4).then_some(()));
    let _: () = fleet.cli(DEMOTE);
    worker.wait_for_log("read only replica");
    let _: () = fleet.cli(PROMOTE);
    fleet.handles_each_once("probe-service", 20);
    assert!(fleet.dead("probe-service").is_empty(), "it charges nobody");
    drop(router);
}

/// An account that may not look behind the scenes: what cannot be checked is noted, and the
/// fleet works.
#[test]
fn a_user_who_may_not_ask_can_work() {
    let fleet = Fleet::new();
    let user = "ACL SETUSER fleet on >pw ~* &* +@all -info -config";
    let _: () = fleet.cli(user);
    let url = format!("{}?user=fleet&pass=pw", fleet.url());
    let password = fleet.dir.path().join("password");
    std::fs::write(&password, "pw\n").unwrap();
    let start_router = || {
        let mut router = fleet.router_command("r");
        router.env("STREAMFLEET_REDIS_USERNAME", "fleet");
        router.env("STREAMFLEET_REDIS_PASSWORD_FILE", &password);
        fleet.launch(router, "r", "")
    };
    let router = start_router();
    router.wait_for_log("router started");
    let log = router.log_text();
    assert!(log.contains("note: this user may not ask INFO"), "{log}");
    assert!(
        log.contains("note: this user may not ask CONFIG GET"),
        "{log}"
    );
    let _worker = fleet.worker_at("probe-service", "w", &url, "worker started");
    let event = event(json!({"do": "fail twice"}));
    fleet.publish(std::slice::from_ref(&event));
    eventually("it is handled", || {
        fleet.handled("probe-service").get(&id(&event)).copied()
    });
    fleet.drained();
    drop(router);

    let _: () = fleet.cli("ACL SETUSER fleet -time");
    let mut router = start_router();
    assert_eq!(router.exit_code(), Some(78));
    let log = router.log_text();
    assert!(log.contains("may not ask TIME"), "{log}");
}
