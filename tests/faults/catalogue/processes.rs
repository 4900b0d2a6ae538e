//! Faults of processes: killed, stopped, frozen.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::process::{Resource, Rlimit};
use serde_json::json;

use crate::harness::load::{Load, event, mixed, promise};
use crate::harness::run::{ROUTER, Report, Run};
use crate::support::eventually;
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
        name: "stop-workers",
        about: "SIGSTOP of workers for longer than their lease, then SIGCONT",
        short: true,
        run: stop_workers,
    },
    Fault {
        name: "stop-routers",
        about: "SIGSTOP of one of two routers, beyond its lease in the whole form",
        short: true,
        run: stop_routers,
    },
    Fault {
        name: "term-under-load",
        about: "SIGTERM of routers and workers, one after the other, under load",
        short: true,
        run: term_under_load,
    },
    Fault {
        name: "one-name-for-two",
        about: "two processes that both restart under one name",
        short: true,
        run: one_name_for_two,
    },
    Fault {
        name: "no-descriptors",
        about: "no file descriptors left, connections cut",
        short: true,
        run: no_descriptors,
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
        ..Load::of(run.pick(1_000, 20_000), run.pick(300, 150))
    });
    for name in ["a", "b", "c"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        std::thread::sleep(Duration::from_millis(run.pick(300, 1_000) as u64));
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
    let load = run.load(Load::of(run.pick(1_000, 20_000), run.pick(300, 150)));
    for name in ["r", "r2"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        std::thread::sleep(Duration::from_millis(run.pick(300, 1_000) as u64));
        run.strike(|run| run.crew.kill(name));
    }
    load.finish();
    Ok(run.finish())
}

fn stop_workers(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 40,
        ..Load::of(run.pick(500, 6_000), 100)
    });
    for name in ["a", "b"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        run.strike(|run| {
            run.crew.signal(name, "STOP");
            std::thread::sleep(Duration::from_millis(2_000)); // twice the lease
            run.crew.signal(name, "CONT");
        });
    }
    load.finish();
    run.settle();
    let late = ["a", "b"].map(|name| run.crew.said(name, "came too late"));
    let late: usize = late.iter().sum();
    run.note("settles that came too late and wrote nothing", late);
    Ok(run
        .finish()
        .require(late > 0, "a stopped worker's settle came too late"))
}

fn stop_routers(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.hire_router("r2");
    run.crew.says("r2", "router started");
    let load = run.load(Load::of(run.pick(400, 12_000), 150));
    for name in ["r", "r2"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        let beyond = if full {
            streamfleet::router::LEASE + Duration::from_secs(3)
        } else {
            Duration::from_secs(1)
        };
        run.strike(|run| {
            run.crew.signal(name, "STOP");
            std::thread::sleep(beyond);
            run.crew.signal(name, "CONT");
        });
    }
    load.finish();
    Ok(run.finish())
}

fn term_under_load(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.hire_router("r2");
    let load = run.load(Load {
        ms: |n| if n % 10 == 0 { 100 } else { 5 },
        ..Load::of(run.pick(500, 12_000), 100)
    });
    for name in ["a", "r", "c", "b", "r2"].into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        run.crew.says(name, " started");
        run.strike(|run| {
            let lives = run.crew.lives(name);
            run.crew.signal(name, "TERM");
            eventually("it is back", || {
                (run.crew.lives(name) > lives).then_some(())
            });
        });
    }
    load.finish();
    let ends: Vec<_> = ["a", "b", "c", "r", "r2"]
        .iter()
        .flat_map(|name| run.crew.ends(name))
        .collect();
    let report = run.finish();
    let repeated = report.account.repeated_runs;
    Ok(report
        .require(ends.iter().all(|end| *end == Some(0)), "each ended with 0")
        .require(
            repeated == 0,
            "what was started was finished, and nothing was run again",
        ))
}

fn one_name_for_two(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load {
        ms: |_| 10,
        ..Load::of(usize::MAX, 100)
    });
    let twins = [
        ("probe-service", "a", "twin of a"),
        (ROUTER, "r", "twin of r"),
    ];
    for (role, name, twin) in twins {
        run.hire(twin, None, run.command(role, name));
    }
    // The supervisor starts each again that lost its name, and so they go on fighting for it.
    for (_, name, twin) in twins {
        let fights = eventually("they fight for the name", || {
            let fights = [name, twin].map(|who| run.crew.said(who, "taken over the name"));
            let fights = fights.iter().sum::<usize>();
            (fights >= run.pick(1, 6)).then_some(fights)
        });
        run.struck(fights);
        run.crew.leave_dead(twin);
    }
    load.stop();
    Ok(run.finish())
}

fn no_descriptors(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load::of(run.pick(500, 6_000), 150));
    while load.goes_on() {
        std::thread::sleep(Duration::from_millis(run.pick(500, 4_000) as u64));
        let victims = ["a", "b", "c", "r"].map(|name| run.crew.pid(name));
        run.strike(|run| {
            let limits = victims.map(|pid| limit_descriptors(pid, Some(3)));
            let _: i64 = run.fleet.cli("CLIENT KILL TYPE normal");
            std::thread::sleep(Duration::from_millis(1_500));
            for (pid, limit) in victims.into_iter().zip(limits) {
                limit_descriptors(pid, limit);
            }
        });
    }
    load.finish();
    let refused: usize = ["a", "b", "c", "r"]
        .map(|name| run.crew.said(name, "Too many open files"))
        .iter()
        .sum();
    run.note("refusals that were logged", refused);
    let deaths: usize = ["a", "b", "c", "r"]
        .map(|name| run.crew.lives(name) - 1)
        .iter()
        .sum();
    Ok(run
        .finish()
        .require(refused > 0, "descriptors were refused")
        .require(deaths == 0, "no process died of it"))
}

/// Sets how many descriptors a process may have; answers how many it might.
fn limit_descriptors(pid: u32, limit: Option<u64>) -> Option<u64> {
    let pid = rustix::process::Pid::from_raw(pid as i32);
    let old = rustix::process::prlimit(
        pid,
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
        },
    );
    old.unwrap().current
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
        "router.joined" | "router.leaving" | "router.reclaimed" | "router.checked" => 1,
        "worker.joined" | "worker.announced" | "worker.leaving" | "worker.marked" => 1,
        "worker.releasing" | "worker.released" => 1,
        _ => 3,
    }
}

/// Kills those of these workers who have deliveries in their hands.
fn kill_who_holds(run: &Run, workers: &[&str]) {
    let consumers: redis::streams::StreamInfoConsumersReply = redis::cmd("XINFO")
        .arg(&["CONSUMERS", "test-events", "probe-service"])
        .query(&mut run.fleet.connection())
        .unwrap();
    for consumer in consumers.consumers.iter().filter(|c| c.pending > 0) {
        let name = consumer.name.split('.').next().unwrap();
        if workers.contains(&name) {
            run.crew.kill(name);
        }
    }
}

/// Many events at once.
fn backlog(run: &Run) {
    let load = Load {
        plan: |_| Plan::Succeed,
        ..Load::of(300, 1)
    };
    let events = (0..load.events).map(|n| {
        let (event, plan) = event(load, n);
        let promise = promise(&event, plan);
        (event, promise)
    });
    run.publish(&events.collect::<Vec<_>>());
}

/// Events of which each is due at another time, soon.
fn soon(run: &Run) {
    let load = Load {
        plan: |_| Plan::Succeed,
        ..Load::of(20, 1)
    };
    let events = (0..load.events).map(|n| {
        let (mut event, plan) = event(load, n);
        let due = Timestamp::now() + SignedDuration::from_millis(300 + 50 * n as i64);
        event["deliver_at"] = json!(due);
        let promise = promise(&event, plan);
        (event, promise)
    });
    run.publish(&events.collect::<Vec<_>>());
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
        if point.starts_with("rebuild.") {
            continue; // no process of the pipeline: tests/it/rebuild.rs
        }
        if point == "router.reclaimed" {
            if !full {
                continue; // a router's lease is 30 s
            }
            run.hire_armed(ROUTER, "gone", Some("router.decided 1 abort"));
            run.crew.leave_dead("gone");
        }
        if point == "router.checked" {
            run.crew.dismiss("r"); // only who has all that is owed comes by it
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
                    // Only a backlog is written by a transaction.
                    "router.checked" if run.crew.said(point, " started") > 0 => backlog(run),
                    "router.due" | "router.delivered" if run.crew.said(point, " started") > 0 => {
                        soon(run);
                    }
                    // What another leaves behind is what it must come by.
                    "worker.marked" => kill_who_holds(run, &["a", "b"]),
                    _ => {}
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        run.crew.says(point, " started");
        println!("{point}: aborted"); // how far it came, should it come no further
        assert_eq!(
            run.crew.dismiss(point),
            Some(0),
            "{point}: the next life ends well"
        );
        if point == "router.checked" {
            run.hire_router("another");
        }
    }
    load.stop();
    Ok(run.finish())
}
