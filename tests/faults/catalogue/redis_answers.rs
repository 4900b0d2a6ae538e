//! A Redis that is there and does not do what it is asked: busy, paused, frozen, slow, full of
//! clients, killing them.

use std::time::{Duration, Instant};

use crate::harness::figures::{all_said, charges_nobody, ends, kill_all, set};
use crate::harness::load::Load;

use crate::harness::run::{Report, Run};
use crate::support::Server;
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "busy-script",
        about: "a script of somebody else runs for longer than a lease: BUSY, then SCRIPT KILL",
        short: true,
        run: |full| held_up(full, busy),
    },
    Fault {
        name: "clients-paused",
        about: "CLIENT PAUSE for longer than a lease",
        short: true,
        run: |full| held_up(full, pause),
    },
    Fault {
        name: "redis-frozen",
        about: "Redis is stopped (SIGSTOP) for longer than a lease",
        short: true,
        run: |full| held_up(full, freeze),
    },
    Fault {
        name: "redis-asleep",
        about: "DEBUG SLEEP for longer than a lease",
        short: true,
        run: |full| held_up(full, sleep),
    },
    Fault {
        name: "slow-redis",
        about: "DEBUG SLEEP of 50 ms again and again",
        short: true,
        run: slow_redis,
    },
    Fault {
        name: "clients-killed",
        about: "CLIENT KILL of every connection, ten times a second",
        short: true,
        run: clients_killed,
    },
    Fault {
        name: "too-many-clients",
        about: "maxclients is reached: new connections are refused",
        short: true,
        run: too_many_clients,
    },
];

/// Longer than the lease.
const HELD_UP: Duration = Duration::from_millis(2500);

/// Redis answers nobody, or nobody well, for longer than a lease, while handlers run.
fn held_up(full: bool, fault: fn(&Run)) -> Result<Report, CannotInject> {
    let debug = [
        "--enable-debug-command",
        "yes",
        "--busy-reply-threshold",
        "100",
    ];
    let mut run = Run::on(Server::with(&debug), full);
    run.start();
    let load = run.load(Load {
        ms: |n| if n.is_multiple_of(40) { 3500 } else { 5 },
        ..Load::of(usize::MAX, 30)
    });
    for _ in 0..run.pick(1, 12) {
        // Between two strikes there is time for whoever waits to try again.
        std::thread::sleep(Duration::from_millis(run.pick(1_200, 4_000) as u64));
        run.strike(fault);
    }
    let counts = load.stop();
    run.note("publications without an answer", counts.unanswered());
    run.note("BUSY answers logged", all_said(&run, "BUSY"));
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

fn busy(run: &Run) {
    let mut scripts = run.fleet.connection();
    let looping = std::thread::spawn(move || {
        let looped = redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .exec(&mut scripts);
        assert!(looped.is_err(), "somebody kills it");
    });
    std::thread::sleep(HELD_UP);
    let _: () = run.fleet.cli("SCRIPT KILL");
    looping.join().unwrap();
}

fn pause(run: &Run) {
    let _: () = run
        .fleet
        .cli(&format!("CLIENT PAUSE {}", HELD_UP.as_millis()));
    std::thread::sleep(HELD_UP);
}

fn freeze(run: &Run) {
    run.fleet.signal("STOP");
    std::thread::sleep(HELD_UP);
    run.fleet.signal("CONT");
}

fn sleep(run: &Run) {
    let _: () = run
        .fleet
        .cli(&format!("DEBUG SLEEP {}", HELD_UP.as_secs_f64()));
}

fn slow_redis(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::on(Server::with(&["--enable-debug-command", "yes"]), full);
    run.start();
    let seconds = run.pick(5, 60);
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(seconds * 40, 40)
    });
    let mut admin = run.fleet.connection();
    let (began, mut naps) = (Instant::now(), 0);
    while load.goes_on() {
        redis::cmd("DEBUG")
            .arg("SLEEP")
            .arg(0.05)
            .exec(&mut admin)
            .unwrap();
        naps += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let share = f64::from(naps) * 0.05 / began.elapsed().as_secs_f64();
    run.struck(naps as usize);
    let counts = load.finish();
    run.note("share of the time asleep", format!("{share:.2}"));
    run.note("publications without an answer", counts.unanswered());
    Ok(run.finish())
}

fn clients_killed(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(run.pick(800, 6_000), 200)
    });
    let mut admin = run.fleet.connection();
    let mut killed = 0;
    while load.goes_on() {
        std::thread::sleep(Duration::from_millis(100));
        killed += kill_all(&mut admin, "TYPE", "normal");
    }
    run.struck(killed);
    let counts = load.finish();
    run.note("publications without an answer", counts.unanswered());
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

fn too_many_clients(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(usize::MAX, 200)
    });
    let mut refused = 0;
    for _ in 0..run.pick(1, 10) {
        std::thread::sleep(Duration::from_millis(run.pick(700, 4_000) as u64));
        refused += run.strike(|run| {
            let mut admin = run.fleet.connection();
            let before = rejected(&mut admin);
            set(&mut admin, "maxclients", "1");
            kill_all(&mut admin, "TYPE", "normal");
            std::thread::sleep(HELD_UP);
            set(&mut admin, "maxclients", "10000");
            rejected(&mut admin) - before
        });
    }
    assert!(refused > 0, "somebody was turned away");
    let counts = load.stop();
    run.note("connections refused", refused);
    run.note("publications without an answer", counts.unanswered());
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

fn rejected(admin: &mut redis::Connection) -> u64 {
    let info: redis::InfoDict = redis::cmd("INFO").arg("stats").query(admin).unwrap();
    info.get("rejected_connections").unwrap()
}
