//! What the service manager is told, the units that tell it what to do, and what they run. The
//! manager is played by a socket; `scripts/systemd-trial` does the same with a real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::support::cli::{Ran, run, streamfleet};
use crate::support::fleet::{Process, ROUTING};
use crate::support::manager::Manager;
use crate::support::{Fleet, Server, event};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/systemd");
/// The worst exposure, in tenths, that the sandbox may leave.
const EXPOSURE: u32 = 15;

fn managed(fleet: &Fleet, mut command: Command, watchdog: u64) -> (Process, Manager) {
    let manager = Manager::listen(fleet.dir.path());
    manager.manages(&mut command, watchdog);
    (fleet.launch(command, "managed", ""), manager)
}

/// The words of a kind among those heard.
fn count(heard: &[String], word: &str) -> usize {
    heard.iter().filter(|heard| heard.starts_with(word)).count()
}

fn managed_router(fleet: &Fleet, watchdog: u64) -> (Process, Manager) {
    managed(fleet, fleet.router_command("r"), watchdog)
}

#[test]
fn a_router_is_ready_when_groups_exist_and_says_when_redis_is_away_and_when_it_stops() {
    let fleet = Fleet::new();
    let (mut router, mut manager) = managed_router(&fleet, 2);
    let heard = manager.hears("READY=1");
    assert!(
        !heard.iter().any(|word| word.starts_with("STATUS=working")),
        "{heard:?}"
    );
    for stream in ["inbox", "test-events", "more-events"] {
        let groups: Vec<redis::Value> = fleet.cli(&format!("XINFO GROUPS {stream}"));
        assert!(
            !groups.is_empty(),
            "{stream} has no group, and the router is ready"
        );
    }
    manager.hears("STATUS=working");

    fleet.server.kill();
    manager.hears("STATUS=degraded, trying again: Redis at");
    fleet.server.run();
    manager.hears("STATUS=working");

    router.signal("TERM");
    manager.hears("STOPPING=1");
    assert_eq!(router.exit_code(), Some(0));
}

#[test]
fn a_worker_is_ready_when_it_reads_and_says_when_it_is_paused() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [analytics-service]",
    ));
    let _router = fleet.router("r");
    let worker = Command::new(env!("CARGO_BIN_EXE_analytics-worker"));
    let (mut worker, mut manager) = managed(&fleet, worker, 2);
    manager.hears("READY=1");
    let consumers: Vec<redis::Value> = fleet.cli("XINFO GROUPS test-events");
    assert!(!consumers.is_empty());
    fleet.publish(&[event(serde_json::json!({}))]);
    manager.hears("STATUS=working; 1 event taken");
    fleet.ask(&["pause", "analytics-service"]).ok();
    manager.hears("STATUS=reading nothing: paused");
    let heard = manager.all_within(Duration::from_secs(2));
    assert!(count(&heard, "WATCHDOG=1") >= 2, "{heard:?}");
    fleet.ask(&["resume", "analytics-service"]).ok();
    manager.hears("STATUS=working");
    worker.signal("TERM");
    manager.hears("STOPPING=1");
    assert_eq!(worker.exit_code(), Some(0));
}

/// Longer than a loop may take for one round.
#[test]
fn while_redis_is_away_router_and_worker_are_degraded_not_dead() {
    let fleet = Fleet::new();
    fleet.configure(&ROUTING.replace(
        "Test.Happened: [probe-service]",
        "Test.Happened: [analytics-service]",
    ));
    let (_router, mut router) = managed_router(&fleet, 2);
    router.hears("READY=1");
    let worker = Command::new(env!("CARGO_BIN_EXE_analytics-worker"));
    let (_worker, mut worker) = managed(&fleet, worker, 2);
    worker.hears("READY=1");
    fleet.server.kill();
    let after = Duration::from_secs(35);
    std::thread::scope(|scope| {
        for manager in [&mut router, &mut worker] {
            scope.spawn(move || {
                let heard = manager.all_within(after);
                let fed = count(&heard, "WATCHDOG=1");
                assert!(fed > 60 && count(&heard, "STATUS=STUCK") == 0, "{heard:?}");
            });
        }
    });
    fleet.server.run();
    router.hears("STATUS=working");
    worker.hears("STATUS=working");
}

#[test]
fn nothing_is_ready_without_redis() {
    let fleet = Fleet::on(Server::prepare(&[], &[]));
    let (mut router, mut manager) = managed_router(&fleet, 2);
    assert_eq!(router.exit_code(), Some(69));
    let heard = manager.all_within(Duration::from_millis(100));
    assert_eq!(count(&heard, "READY=1"), 0, "{heard:?}");
}

#[test]
fn a_loop_that_is_stuck_feeds_no_watchdog() {
    let fleet = Fleet::new();
    let mut command = fleet.router_command("r");
    command.env("STREAMFLEET_FAILPOINT", "router.read 3 freeze");
    let (router, mut manager) = managed(&fleet, command, 2);
    manager.hears("READY=1");
    router.wait_for_log("frozen at router.read");
    let heard = manager.hears("STATUS=STUCK: routing does not get on");
    assert!(
        count(&heard, "WATCHDOG=1") > 20,
        "it may take its time: {heard:?}"
    );
    router.wait_for_log("the watchdog is fed no more");
    let heard = manager.all_within(Duration::from_secs(3));
    assert_eq!(count(&heard, "WATCHDOG=1"), 0, "{heard:?}");
}

/// Asks for a reload as `ExecReload=` does.
fn reload(manager: &Manager, process: &Process) -> Ran {
    let mut command = streamfleet(&["reload", &process.child.id().to_string()]);
    command.env("RUNTIME_DIRECTORY", &manager.runtime);
    run(command, b"")
}

#[test]
fn a_reload_waits_for_the_answer_of_the_process_and_fails_when_it_refuses() {
    let fleet = Fleet::new();
    let (mut router, mut manager) = managed_router(&fleet, 60);
    manager.hears("READY=1");
    manager.hears("STATUS=");
    let before = monotonic_us();
    let answer = reload(&manager, &router);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(answer.err, "nothing has changed\n");
    let heard = manager.hears("MONOTONIC_USEC=");
    assert_eq!(count(&heard, "RELOADING=1"), 1, "{heard:?}");
    let began: u64 = heard.last().unwrap()["MONOTONIC_USEC=".len()..]
        .parse()
        .unwrap();
    assert!((before..=monotonic_us()).contains(&began), "{began}");
    manager.hears("READY=1");

    fleet.configure(&ROUTING.replace(
        "Test.Looped: [probe-service]",
        "Test.Looped: [probe-service, another-service]",
    ));
    let answer = reload(&manager, &router);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(answer.err, "configuration 2 is in force\n");
    let groups: Vec<redis::Value> = fleet.cli("XINFO GROUPS test-events");
    assert_eq!(groups.len(), 3, "the groups are there by then");

    fleet.configure(&ROUTING.replace("version: 1", "version: 7"));
    let answer = reload(&manager, &router);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("routing.yaml:2:10"), "{answer:?}");
    manager.hears(
        "STATUS=working; 0 events taken since the start; the changed routing.yaml was REFUSED",
    );

    // Good, for a process that starts; this one would work on other keys.
    fleet.configure(&ROUTING.replace("version: 1", "version: 1\nnamespace: other"));
    let answer = reload(&manager, &router);
    assert_eq!(answer.code, Some(78), "{answer:?}");
    assert!(answer.err.contains("needs a restart"), "{answer:?}");

    fleet.configure(ROUTING);
    let answer = reload(&manager, &router);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    manager.hears("STATUS=working; 0 events taken since the start");

    router.signal("TERM");
    assert_eq!(router.exit_code(), Some(0));
    let answer = reload(&manager, &router);
    assert_eq!(answer.code, Some(1), "an old answer is none: {answer:?}");
    let no_folder = run(streamfleet(&["reload", "2"]), b"").failed(1);
    assert!(
        no_folder.contains("RUNTIME_DIRECTORY is not set"),
        "{no_folder}"
    );
}

/// The clock that a service manager compares with.
fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec * 1_000_000 + now.tv_nsec / 1_000) as u64
}

#[test]
fn an_instance_becomes_the_program_that_serves_its_subscriber() {
    let fleet = Fleet::new();
    let workers = "subscribers:\n  other-service: { worker: user-worker }\n  third-service: { worker: nowhere }\n";
    let routing = ROUTING.replace(
        "Test.Looped: [probe-service]",
        "Test.Looped: [third-service, cache-service]",
    );
    fleet.configure(&(routing + workers));
    let become_ = |instance: &str| fleet.ask(&["instance", instance, "--", "--help"]);
    for (instance, program) in [
        ("cache@1", "cache-service"),
        ("cache", "cache-service"),
        ("cache-service@2", "cache-service"),
        ("other@1", "user-service"),
    ] {
        assert!(become_(instance).ok().contains(program), "{instance}");
    }
    let unknown = become_("nobody@1").failed(78);
    assert!(
        unknown.contains("neither a route nor `retired` names nobody or nobody-service"),
        "{unknown}"
    );
    let missing = become_("third@1").failed(78);
    assert!(
        missing.contains("/usr/local/lib/streamfleet: nowhere"),
        "{missing}"
    );
}

/// `systemd-analyze`, which Debian's systemd has.
fn analyze(args: &[&str], unit: &Path) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let ran = command.args(args).arg("--no-pager").arg(unit).output();
    let ran = ran.unwrap_or_else(|e| panic!("systemd-analyze: {e} (apt-get install systemd)"));
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8(said).unwrap())
}

fn units() -> Vec<(PathBuf, String)> {
    let folder = std::fs::read_dir(UNITS).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

#[test]
fn the_units_are_valid_and_leave_little_exposed() {
    let dir = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_BIN_EXE_streamfleet"))
        .parent()
        .unwrap();
    let ours = format!("{}/", here.display());
    let mut services = 0;
    for (path, text) in units() {
        // What they start must be there.
        let copy = dir.path().join(path.file_name().unwrap());
        std::fs::write(&copy, text.replace("/usr/bin/", &ours)).unwrap();
        let (clean, said) = analyze(&["verify", "--man=no"], &copy);
        assert!(clean && said.is_empty(), "{}: {said}", path.display());
        if path.extension().is_some_and(|e| e == "service") {
            services += 1;
            assert!(text.contains("\nRestartPreventExitStatus=2 78\n"), "{text}");
            let threshold = format!("--threshold={EXPOSURE}");
            let (good, said) = analyze(&["security", "--offline=yes", &threshold], &copy);
            assert!(
                good && said.contains("Overall exposure level"),
                "{}: {said}",
                path.display()
            );
        }
    }
    assert_eq!(services, 2);
}

/// What differs between the two services is what they start, and how.
#[test]
fn both_services_have_the_same_sandbox() {
    let sandboxes: Vec<_> = units()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "service"))
        .map(|(_, text)| text.split_once("# It talks to Redis").unwrap().1.to_owned())
        .collect();
    assert_eq!(sandboxes.len(), 2);
    assert_eq!(sandboxes[0], sandboxes[1]);
}
