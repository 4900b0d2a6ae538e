//! A clock is set: an hour back, an hour forward, of Redis or of the fleet's processes. Idle
//! times, leases and due times are measured with the clock of Redis, so they are off by then.
//! What was under way must still end, and not an hour later.

use std::time::{Duration, Instant};

use crate::harness::load::Load;
use crate::harness::run::{Report, Run};
use crate::support::eventually;
use crate::support::preload::Clock;
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "clock-redis",
        about: "the clock of Redis set an hour back and forward",
        short: true,
        run: |full| moved(full, Whose::Redis),
    },
    Fault {
        name: "clock-fleet",
        about: "the clock of routers and workers set an hour back and forward",
        short: false,
        run: |full| moved(full, Whose::Fleet),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Redis,
    Fleet,
}

const HOUR: i64 = 3_600;
/// Where the clock is moved to, in seconds from the right time, and what that is.
const MOVES: [(i64, &str); 4] = [
    (-HOUR, "back"),
    (0, "forward"),
    (HOUR, "forward"),
    (0, "back"),
];

fn moved(full: bool, whose: Whose) -> Result<Report, CannotInject> {
    let clock = Clock::build().map_err(CannotInject)?;
    let mut run = match whose {
        Whose::Redis => Run::on(clock.server(), full),
        Whose::Fleet => Run::new(full),
    };
    if whose == Whose::Fleet {
        run.environment.extend(clock.environment());
    }
    run.start();
    let load = run.load(Load {
        // Some are under way for longer than a lease: nobody else may take them meanwhile.
        ms: |n| if n % 50 == 0 { 1_500 } else { 5 },
        ..Load::of(usize::MAX, 100)
    });
    let moves = &MOVES[..run.pick(2, 4)];
    for round in 0..run.pick(1, 3) {
        for (n, &(seconds, direction)) in moves.iter().enumerate() {
            // One who will never come back leaves what it had to whoever finds it idle.
            let gone = format!("gone{round}-{n}");
            run.hire_worker("probe-service", &gone);
            run.crew.says(&gone, "worker started");
            std::thread::sleep(Duration::from_millis(300));
            run.crew.leave_dead(&gone);
            run.crew.kill(&gone);
            let newest = newest(&run);
            clock.set(seconds);
            run.struck(1);
            let owed = run.accepted_events();
            let moved = Instant::now();
            eventually("what was owed when the clock was set is settled", || {
                run.has_settled(&owed).then_some(())
            });
            let ms = moved.elapsed().as_millis();
            run.note_most(
                &format!("ms until what was owed was settled, {direction}"),
                ms as u64,
            );
            eventually(
                "new entries follow the old, whatever the clock says",
                || (self::newest(&run) > newest).then_some(()),
            );
        }
    }
    load.stop();
    Ok(run.finish())
}

/// The newest ID of the stream, as a pair that compares.
fn newest(run: &Run) -> (u64, u64) {
    let info: redis::streams::StreamInfoStreamReply = run.fleet.cli("XINFO STREAM test-events");
    let (ms, sequence) = info.last_generated_id.split_once('-').unwrap();
    (ms.parse().unwrap(), sequence.parse().unwrap())
}
