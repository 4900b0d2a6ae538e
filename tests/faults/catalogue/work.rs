//! Faults of the work itself: it takes too long, fails, comes twice or in disorder, or the
//! configuration changes under it.

use std::time::Duration;

use redis::Commands;
use serde_json::json;

use crate::harness::load::{Load, event, mixed, promise};
use crate::harness::run::{ROUTING, Report, Run};
use crate::support::eventually;
use crate::support::fleet::{id, typed};
use crate::support::ledger::{Plan, Published};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "long-handlers",
        about: "handlers that run for longer than the lease, some of them blocking their thread",
        short: true,
        run: long_handlers,
    },
    Fault {
        name: "renewal-frozen",
        about: "a worker whose renewing thread stands still",
        short: true,
        run: renewal_frozen,
    },
    Fault {
        name: "everything-fails",
        about: "every handler fails every time",
        short: true,
        run: everything_fails,
    },
    Fault {
        name: "trim-against-a-lagging-group",
        about: "history is cut while one subscriber is away",
        short: true,
        run: trim_against_a_lagging_group,
    },
    Fault {
        name: "duplicates-and-disorder",
        about: "each event published three times, in three orders, to two routers",
        short: true,
        run: duplicates_and_disorder,
    },
    Fault {
        name: "reload",
        about: "routing.yaml changes back and forth, and workers learn of it later than routers",
        short: true,
        run: reload,
    },
];

fn long_handlers(full: bool) -> Result<Report, CannotInject> {
    const LONG: u64 = 2_500; // the lease is 1 s
    let mut run = Run::new(full);
    run.start();
    let load = Load {
        plan: |n| if n % 40 == 1 { Plan::Block } else { mixed(n) },
        ms: |n| if n % 20 == 1 { LONG } else { 1 },
        ..Load::of(run.pick(200, 2_000), 50)
    };
    let long = (0..load.events).filter(|&n| (load.ms)(n) == LONG);
    run.struck(2 * long.count()); // each has two subscribers
    run.load(load).finish();
    let report = run.finish();
    let repeated = report.account.repeated_runs;
    Ok(report.require(
        repeated == 0,
        "no handler was run twice, because leases were renewed",
    ))
}

fn renewal_frozen(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.hire_armed("probe-service", "frozen", Some("worker.renewing 1 freeze"));
    // It goes on taking work: what it takes three times looks as if it killed its process.
    run.may_die("crashed");
    // Workers that wait are served in turn: with a number that has no divisor in common with
    // theirs, each gets its share of what takes long.
    let load = run.load(Load {
        ms: |n| if n % 19 == 0 { 2_500 } else { 1 },
        ..Load::of(run.pick(400, 4_000), 60)
    });
    load.finish();
    run.settle();
    let late = run.crew.said("frozen", "came too late");
    run.struck(run.crew.said("frozen", "frozen at worker.renewing"));
    run.note("settles that came too late and wrote nothing", late);
    Ok(run.finish())
}

fn everything_fails(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.load(Load {
        plan: |_| Plan::Fail,
        ..Load::of(run.pick(300, 5_000), 300)
    })
    .finish();
    run.settle();
    run.struck(run.pick(300, 5_000));
    let report = run.finish();
    let (dead, promised, charged) = (
        report.account.dead,
        report.account.promised,
        report.account.charged as usize,
    );
    Ok(report
        .require(dead == promised, "a dead letter for each failure")
        .require(charged == 3 * promised, "three attempts for each"))
}

fn trim_against_a_lagging_group(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.crew.signal("c", "TERM");
    run.crew.leave_dead("c");
    let load = run.load(Load::of(run.pick(900, 9_000), 300));
    load.finish();
    let held = "kept above its limits";
    let strikes = eventually("the janitor meets the lagging group", || {
        let strikes = run.crew.said("r", held);
        (strikes >= run.pick(1, 5)).then_some(strikes)
    });
    run.struck(strikes);
    let length = |run: &Run| -> usize { run.fleet.connection().xlen("test-events").unwrap() };
    let kept = length(&run);
    run.hire_worker("other-service", "late");
    run.settle();
    eventually("history is cut again", || {
        (length(&run) <= 400).then_some(())
    });
    run.note("entries kept for the lagging group (limit 300)", kept);
    Ok(run.finish().require(kept >= 900, "everything was kept"))
}

fn duplicates_and_disorder(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.hire_router("r2");
    for _ in 0..run.pick(1, 10) {
        let load = Load::of(0, 1);
        let events: Vec<_> = (0..500)
            .map(|n| event(load, n))
            .map(|(event, plan)| {
                let promise = promise(&event, plan);
                (event, promise)
            })
            .collect();
        let bodies: Vec<_> = events.iter().map(|(event, _)| event.clone()).collect();
        std::thread::scope(|scope| {
            // 7 and 11 have no divisor in common with 500: two other orders.
            for stride in [7, 11] {
                let (fleet, bodies) = (&run.fleet, &bodies);
                scope.spawn(move || {
                    let order =
                        (0..bodies.len()).map(|n| bodies[n * stride % bodies.len()].clone());
                    let order: Vec<_> = order.collect();
                    order.chunks(20).for_each(|some| fleet.publish(some));
                });
            }
            events.chunks(20).for_each(|some| run.publish(some));
        });
    }
    run.settle();
    let dropped: usize = run.fleet.cli("HGET stats:router duplicates");
    run.struck(dropped);
    let sent = run.pick(1_000, 10_000);
    Ok(run
        .finish()
        .require(dropped == sent, "each copy was dropped"))
}

/// Routers and workers read files of their own, so that they can disagree.
fn reload(full: bool) -> Result<Report, CannotInject> {
    let other = ROUTING
        .replace("maxlen: 300", "maxlen: 500")
        .replace("max: 200ms", "max: 100ms")
        .replace(
            "  Test.Followed",
            "  More.Happened: [probe-service]\n  Test.Followed",
        );
    let other = other.replace(
        "streams:\n",
        "streams:\n  more-events: { events: [\"More.**\"] }\n",
    );
    let mut run = Run::new(full);
    let theirs = run.fleet.dir.path().join("workers.yaml");
    std::fs::write(&theirs, ROUTING).unwrap();
    run.hire_router("r");
    for (subscriber, name) in [
        ("probe-service", "a"),
        ("probe-service", "b"),
        ("other-service", "c"),
    ] {
        let mut command = run.command(subscriber, name);
        command.env("STREAMFLEET_CONFIG", &theirs);
        run.hire(name, None, command);
        run.crew.says(name, "worker started");
    }
    let load = run.load(Load::of(usize::MAX, 100));
    let in_force = "the new routing.yaml is in force";
    for round in 0..run.pick(4, 40) {
        let file = if round % 2 == 0 { &other } else { ROUTING };
        run.strike(|run| {
            let before = ["r", "a"].map(|who| run.crew.said(who, in_force));
            run.fleet.configure(file);
            eventually("the router takes it", || {
                (run.crew.said("r", in_force) > before[0]).then_some(())
            });
            if round % 2 == 0 {
                // The workers do not know of this stream yet.
                let more: Vec<_> = (0..20)
                    .map(|_| typed("More.Happened", json!({"do": ""})))
                    .collect();
                let promised = |event: &serde_json::Value| Published {
                    id: id(event),
                    plan: Plan::Succeed,
                    subscribers: vec!["probe-service".to_owned()],
                    accepted_ms: None,
                };
                let more: Vec<_> = more
                    .into_iter()
                    .map(|event| (event.clone(), promised(&event)))
                    .collect();
                run.publish(&more);
                eventually("they are routed", || {
                    let routed: usize = run.fleet.connection().xlen("more-events").unwrap();
                    (routed >= 10 * (round + 2)).then_some(())
                });
            }
            std::thread::sleep(Duration::from_millis(200)); // how long they disagree
            std::fs::write(&theirs, file).unwrap();
            eventually("the workers take it", || {
                (run.crew.said("a", in_force) > before[1]).then_some(())
            });
        });
    }
    load.stop();
    let deaths: usize = ["a", "b", "c", "r"]
        .map(|who| run.crew.lives(who) - 1)
        .iter()
        .sum();
    Ok(run.finish().require(deaths == 0, "nobody died of it"))
}
