//! Faults of processes: killed, stopped, frozen.

use std::time::Duration;

use crate::load::{Load, mixed};
use crate::run::{ROUTER, Report, Run};
use crate::support::ledger::Plan;
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "kill-workers",
        about: "kill -9 of workers, one after the other",
        short: true,
        run: kill_workers,
    },
    Fault {
        name: "kill-routers",
        about: "kill -9 of routers, one after the other",
        short: true,
        run: kill_routers,
    },
    Fault {
        name: "poison",
        about: "events that kill their process, among others",
        short: true,
        run: poison,
    },
    Fault {
        name: "abort-at-each-step",
        about: "abort at every step of router and worker",
        short: true,
        run: abort_at_each_step,
    },
];

fn kill_workers(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    // Killed again and again with the same deliveries in its hands, a worker makes them suspects.
    run.may_die("crashed");
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(run.pick(1_000, 20_000), 300)
    });
    for name in ["a", "b", "c"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
        run.strike(|run| {
            run.crew.kill(name);
        });
    }
    load.finish();
    Ok(run.finish())
}

fn kill_routers(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.hire_router("r2");
    let load = run.load(Load::of(run.pick(1_000, 20_000), 300));
    for name in ["r", "r2"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
        run.strike(|run| run.crew.kill(name));
    }
    load.finish();
    Ok(run.finish())
}

fn poison(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let events = run.pick(300, 3_000);
    let load = run.load(Load {
        plan: |n| match n % 100 {
            50 => Plan::Poison,
            _ => mixed(n),
        },
        ms: |_| 5,
        ..Load::of(events, 100)
    });
    load.finish();
    run.settle();
    let deaths = ["a", "b", "c"].map(|name| run.crew.lives(name) - 1);
    run.struck(deaths.iter().sum());
    Ok(run.finish())
}

/// How often the process comes by a failpoint before it dies there: the first time teaches least.
fn nth(point: &str) -> usize {
    match point {
        "router.joined" | "router.leaving" | "router.reclaimed" => 1,
        "worker.joined" | "worker.announced" | "worker.leaving" | "worker.marked" => 1,
        "worker.releasing" | "worker.released" => 1,
        _ => 3,
    }
}

fn abort_at_each_step(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.may_die("crashed");
    run.start();
    let load = run.load(Load {
        // Some take longer than a third of the lease, so that it is renewed.
        ms: |n| if n % 40 == 0 { 600 } else { 2 },
        ..Load::of(usize::MAX, 100)
    });
    for &point in streamfleet::failpoint::POINTS {
        if point == "router.reclaimed" {
            if !full {
                continue; // a router's lease is 30 s
            }
            run.hire_armed(ROUTER, "gone", Some("router.decided 1 abort"));
            run.crew.leave_dead("gone");
        }
        let armed = format!("{point} {} abort", nth(point));
        let role = if point.starts_with(ROUTER) {
            ROUTER
        } else {
            "probe-service"
        };
        run.strike(|run| {
            run.hire_armed(role, point, Some(&armed));
            while run.crew.lives(point) == 1 {
                match point {
                    // Passed by those who are told to stop.
                    "router.leaving" | "worker.leaving" | "worker.releasing"
                    | "worker.released"
                        if run.crew.said(point, " started") > 0 =>
                    {
                        run.crew.signal(point, "TERM");
                    }
                    // What another leaves behind is what it must come by.
                    "worker.marked" => run.crew.kill("b"),
                    _ => {}
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        run.crew.says(point, " started");
        assert_eq!(
            run.crew.dismiss(point),
            Some(0),
            "{point}: the next life ends well"
        );
    }
    load.stop();
    Ok(run.finish())
}
