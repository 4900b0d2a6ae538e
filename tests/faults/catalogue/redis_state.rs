//! States of Redis in which it cannot do its work: killed and restarted, full, read-only, loading.

use std::time::{Duration, Instant};

use crate::harness::figures::{all_said, charges_nobody, connected, ends, memory, set};
use crate::harness::load::Load;
use crate::harness::run::{Report, Run};
use crate::support::{Server, eventually};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "redis-killed",
        about: "kill -9 of Redis and a restart from its append-only file, again and again",
        short: true,
        run: redis_killed,
    },
    Fault {
        name: "redis-full",
        about: "maxmemory is reached under load, and raised again",
        short: true,
        run: redis_full,
    },
    Fault {
        name: "read-only",
        about: "Redis becomes a replica of nobody, later a master again",
        short: true,
        run: read_only,
    },
    Fault {
        name: "loading",
        about: "Redis is killed and takes seconds to load its data",
        short: true,
        run: loading,
    },
];

fn redis_killed(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(usize::MAX, 100)
    });
    for _ in 0..run.pick(4, 40) {
        std::thread::sleep(Duration::from_millis(700));
        run.strike(|run| {
            run.fleet.kill();
            run.fleet.run();
        });
    }
    let counts = load.stop();
    run.note("publications without an answer", counts.unanswered());
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

fn redis_full(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(usize::MAX, 300)
    });
    let mut peak = 0;
    for _ in 0..run.pick(2, 10) {
        std::thread::sleep(Duration::from_millis(500));
        let refused = load.counts.unanswered();
        run.strike(|run| {
            let mut admin = run.fleet.connection();
            let used = memory(&mut admin, "used_memory");
            set(&mut admin, "maxmemory", &(used + 100_000).to_string());
            eventually("an event is refused", || {
                (load.counts.unanswered() > refused).then_some(())
            });
            std::thread::sleep(Duration::from_secs(2));
            peak = peak.max(memory(&mut admin, "used_memory").saturating_sub(used + 100_000));
            set(&mut admin, "maxmemory", "0");
        });
    }
    let counts = load.stop();
    run.note("events refused at the door", counts.unanswered());
    run.note("pauses of the router", run.crew.said("r", "PAUSED"));
    run.note("bytes above maxmemory, at most", peak);
    Ok(charges_nobody(run.finish()))
}

fn read_only(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(usize::MAX, 200)
    });
    let mut connections = 0;
    for _ in 0..run.pick(2, 10) {
        std::thread::sleep(Duration::from_millis(500));
        run.strike(|run| {
            let mut admin = run.fleet.connection();
            let before = connected(&mut admin);
            // Nobody listens there: it stays a replica that never synchronises.
            let _: () = redis::cmd("REPLICAOF")
                .arg("127.0.0.1")
                .arg(1)
                .query(&mut admin)
                .unwrap();
            std::thread::sleep(Duration::from_secs(2));
            connections += connected(&mut admin) - before;
            let _: () = redis::cmd("REPLICAOF")
                .arg("NO")
                .arg("ONE")
                .query(&mut admin)
                .unwrap();
        });
    }
    let counts = load.stop();
    run.note("publications refused", counts.unanswered());
    run.note("READONLY answers logged", all_said(&run, "ReadOnly"));
    run.note("new connections meanwhile", connections);
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

fn loading(full: bool) -> Result<Report, CannotInject> {
    // Microseconds per command that is loaded; meanwhile it answers every few of them.
    let slow = [
        "--key-load-delay",
        "400",
        "--loading-process-events-interval-bytes",
        "2048",
    ];
    let mut run = Run::on(Server::with(&slow), full);
    run.start();
    let load = run.load(Load {
        ms: some_long,
        ..Load::of(usize::MAX, 60)
    });
    let mut longest = Duration::ZERO;
    // Each load is longer than the one before.
    for _ in 0..run.pick(1, 3) {
        std::thread::sleep(Duration::from_secs(2));
        run.strike(|run| {
            run.fleet.kill();
            let began = Instant::now();
            run.fleet.run();
            longest = longest.max(began.elapsed());
        });
    }
    let counts = load.stop();
    let met = all_said(&run, "BusyLoading") + all_said(&run, "LOADING");
    assert!(met > 0, "the processes met a Redis that loads");
    run.note("publications without an answer", counts.unanswered());
    run.note("LOADING answers logged", met);
    run.note("longest load, ms", longest.as_millis());
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

/// Some handlers run for longer than a third of the lease.
fn some_long(n: usize) -> u64 {
    if n.is_multiple_of(40) { 600 } else { 2 }
}
