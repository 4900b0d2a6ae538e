//! What Redis has forgotten: everything, a group, the scripts.

use std::time::Duration;

use redis::Commands;

use crate::harness::figures::{CREW, all_said, charges_nobody, ends, memory};
use crate::harness::load::Load;
use crate::harness::run::{Report, Run};
use crate::support::eventually;
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "flushed",
        about: "FLUSHALL under running processes: they end and begin on the new dataset",
        short: true,
        run: flushed,
    },
    Fault {
        name: "group-destroyed",
        about: "XGROUP DESTROY: the subscriber halts until the operator recreates its group",
        short: true,
        run: group_destroyed,
    },
    Fault {
        name: "scripts-forgotten",
        about: "SCRIPT FLUSH all the time",
        short: true,
        run: scripts_forgotten,
    },
];

fn flushed(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let under_way = Load {
        ms: |_| 20,
        ..Load::of(usize::MAX, 300)
    };
    for round in 1..=run.pick(2, 6) {
        let load = run.load(under_way);
        std::thread::sleep(Duration::from_secs(1));
        // What was accepted before is lost, by the operator's hand; the publisher knows of it.
        load.stop();
        run.start_over();
        run.strike(|run| {
            let _: () = run.fleet.cli("FLUSHALL");
        });
        // A process that dies over it is started again at once, and may begin before the others
        // have noticed: those must end all the same.
        for name in CREW {
            eventually(&format!("{name} begins on the new dataset"), || {
                (run.crew.lives(name) > round).then_some(())
            });
            run.crew.says(name, " started");
        }
        let load = run.load(Load {
            ms: |_| 20,
            ..Load::of(150, 300)
        });
        load.finish();
        run.settle();
    }
    run.note("processes that ended", ends(&run));
    run.note(
        "said that the data were replaced",
        all_said(&run, "the data in Redis were replaced"),
    );
    Ok(run.finish())
}

fn group_destroyed(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    for round in 1..=run.pick(1, 5) {
        run.load(Load::of(200, 200)).finish();
        run.settle();
        let last: redis::streams::StreamInfoStreamReply =
            run.fleet.connection().xinfo_stream("test-events").unwrap();
        run.strike(|run| {
            let _: i64 = run.fleet.cli("XGROUP DESTROY test-events probe-service");
            // More than maxlen: what is owed to the missing group must not be trimmed.
            let load = run.load(Load::of(500, 250));
            for name in ["a", "b"] {
                eventually(&format!("{name} halts"), || {
                    (run.crew.said(name, "HALTED: the group probe-service") >= round).then_some(())
                });
            }
            load.finish();
            run.fleet
                .ask(&[
                    "group",
                    "recreate",
                    "probe-service",
                    "test-events",
                    "--from",
                    &last.last_generated_id,
                ])
                .ok();
            eventually("the group is read again", || {
                let groups: redis::streams::StreamInfoGroupsReply =
                    run.fleet.connection().xinfo_groups("test-events").unwrap();
                let mut groups = groups.groups.into_iter();
                groups.find(|g| g.name == "probe-service" && g.consumers > 0)
            });
        });
        run.settle();
    }
    run.note("alarms", all_said(&run, "HALTED"));
    run.note("processes that ended", ends(&run));
    Ok(run.finish())
}

fn scripts_forgotten(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    let load = run.load(Load::of(run.pick(600, 6_000), 200));
    let mut admin = run.fleet.connection();
    let (mut flushes, mut forgotten) = (0, 0);
    while load.goes_on() {
        std::thread::sleep(Duration::from_millis(5));
        forgotten += usize::from(memory(&mut admin, "number_of_cached_scripts") > 0);
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut admin).unwrap();
        flushes += 1;
    }
    run.struck(forgotten);
    load.finish();
    run.note("flushes", flushes);
    Ok(charges_nobody(run.finish()))
}
