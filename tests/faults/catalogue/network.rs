//! Faults of the way between the processes and Redis, made by a proxy: what is lost, late,
//! swallowed or cut. (The kernel's own netem is not used: not every kernel has it, and it knows
//! packets, not requests.)

use std::time::{Duration, Instant};

use crate::harness::figures::charges_nobody;
use crate::harness::load::Load;
use crate::harness::run::{ROUTER, Report, Run};
use crate::support::eventually;
use crate::support::proxy::{Lost, Proxy, Way};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "request-lost",
        about: "the connection is cut before a commit, an acknowledgement, a route batch, a renewal, a reclaim",
        short: true,
        run: |full| lose(full, Lost::Request),
    },
    Fault {
        name: "answer-lost",
        about: "the same is carried out, and the connection cut before the answer",
        short: true,
        run: |full| lose(full, Lost::Answer),
    },
    Fault {
        name: "slow-network",
        about: "50 to 300 ms each way, anew for each piece",
        short: true,
        run: |full| bad_way(full, Way::Slow(300), 100),
    },
    Fault {
        name: "flaky-network",
        about: "of 50 pieces, one is the last on its connection",
        short: true,
        run: |full| bad_way(full, Way::Breaks(50), 200),
    },
    Fault {
        name: "trickling-network",
        about: "answers come byte by byte",
        short: true,
        run: |full| bad_way(full, Way::Trickle, 20),
    },
    Fault {
        name: "black-hole",
        about: "what is sent vanishes, connections stay open",
        short: true,
        run: black_hole,
    },
    Fault {
        name: "half-open",
        about: "Redis' ends of all connections are closed, and nobody tells the processes",
        short: true,
        run: half_open,
    },
    Fault {
        name: "redis-away",
        about: "for minutes every connection is closed at once, for 8 workers",
        short: true,
        run: redis_away,
    },
];

/// A fleet whose only way to Redis is a proxy.
fn behind_proxy(full: bool) -> (Run, Proxy) {
    let mut run = Run::new(full);
    let proxy = Proxy::start(&run.fleet.socket(), &run.fleet.dir.path().join("way.sock"));
    run.url = proxy.url();
    (run, proxy)
}

/// Some handlers run for longer than a third of the lease, so that leases are renewed.
fn some_long(n: usize) -> u64 {
    if n.is_multiple_of(40) { 600 } else { 2 }
}

/// The calls that lose their request or their answer, in turn.
const CALLS: &[&str] = &[
    "commit",
    "ack",
    "route",
    "renew",
    "reclaim",
    "park",
    "dead_letter",
];

fn lose(full: bool, lost: Lost) -> Result<Report, CannotInject> {
    let (mut run, proxy) = behind_proxy(full);
    run.start();
    let load = run.load(Load {
        ms: some_long,
        ..Load::of(usize::MAX, 200)
    });
    for _ in 0..run.pick(4, 40) {
        for call in CALLS {
            run.strike(|_| {
                proxy.lose_next(lost, call);
                eventually(&format!("a call of {call} is lost"), || {
                    (!proxy.waits()).then_some(())
                });
            });
        }
    }
    let counts = load.stop();
    run.note("cut", proxy.struck());
    run.note("publications without an answer", counts.unanswered());
    Ok(charges_nobody(run.finish()))
}

/// A way that is bad all the time, and at the end good again.
fn bad_way(full: bool, way: Way, per_second: usize) -> Result<Report, CannotInject> {
    let (mut run, proxy) = behind_proxy(full);
    run.start();
    proxy.set(way);
    let seconds = run.pick(5, 45);
    let load = run.load(Load {
        ms: some_long,
        ..Load::of(seconds * per_second, per_second)
    });
    std::thread::sleep(Duration::from_secs(seconds as u64));
    run.strike(|_| proxy.set(Way::Good));
    let counts = load.finish();
    run.struck(proxy.struck());
    run.note("pieces hit", proxy.struck());
    run.note("publications without an answer", counts.unanswered());
    run.note("connections", proxy.attempts().len());
    Ok(charges_nobody(run.finish()))
}

fn black_hole(full: bool) -> Result<Report, CannotInject> {
    let (mut run, proxy) = behind_proxy(full);
    run.start();
    let load = run.load(Load {
        ms: some_long,
        ..Load::of(usize::MAX, 200)
    });
    for _ in 0..run.pick(1, 4) {
        std::thread::sleep(Duration::from_millis(500));
        run.strike(|_| {
            proxy.set(Way::Hole);
            std::thread::sleep(Duration::from_secs(3)); // three leases
            proxy.set(Way::Good);
        });
        if run.full {
            std::thread::sleep(Duration::from_secs(8));
        }
    }
    load.stop();
    run.note("pieces swallowed", proxy.struck());
    Ok(charges_nobody(run.finish()))
}

fn half_open(full: bool) -> Result<Report, CannotInject> {
    let (mut run, proxy) = behind_proxy(full);
    run.start();
    let load = run.load(Load {
        ms: some_long,
        ..Load::of(usize::MAX, 200)
    });
    let mut connections = 0;
    for _ in 0..run.pick(1, 4) {
        std::thread::sleep(Duration::from_millis(500));
        connections += run.strike(|_| proxy.half_close());
        if run.full {
            std::thread::sleep(Duration::from_secs(8));
        }
    }
    load.stop();
    run.note("connections", connections);
    Ok(charges_nobody(run.finish()))
}

/// Each process has a proxy of its own, so that it is known who connects how often.
fn redis_away(full: bool) -> Result<Report, CannotInject> {
    const WORKERS: usize = 8;
    let mut run = Run::new(full);
    let way = |name: &str| {
        let at = run.fleet.dir.path().join(format!("{name}.sock"));
        Proxy::start(&run.fleet.socket(), &at)
    };
    let mut proxies = vec![("r".to_owned(), ROUTER, way("r"))];
    for n in 0..WORKERS {
        let subscriber = ["probe-service", "other-service"][n % 2];
        let name = format!("w{n}");
        let proxy = way(&name);
        proxies.push((name, subscriber, proxy));
    }
    for (name, role, proxy) in &proxies {
        run.hire_at(role, name, &proxy.url());
    }
    for (name, ..) in &proxies {
        run.crew.says(name, " started");
    }
    // Most slots are taken when Redis goes, and each of their deliveries wants to be settled.
    let load = run.load(Load {
        ms: |n| if n < 100 { 1_000 } else { 2 },
        ..Load::of(usize::MAX, 30)
    });
    std::thread::sleep(Duration::from_secs(2));
    let before: Vec<usize> = proxies.iter().map(|(.., p)| p.attempts().len()).collect();
    let away = Duration::from_secs(run.pick(8, 180) as u64);
    let began = Instant::now();
    run.strike(|_| {
        proxies.iter().for_each(|(.., p)| p.set(Way::Closed));
        std::thread::sleep(away);
        proxies.iter().for_each(|(.., p)| p.set(Way::Good));
    });
    load.stop();
    let (mut most, mut least, mut total) = (0, usize::MAX, 0);
    let mut storm = 0;
    for ((.., proxy), before) in proxies.iter().zip(before) {
        let attempts = proxy.attempts();
        let seconds = attempts[before..]
            .iter()
            .map(|at| at.duration_since(began).as_secs());
        let mut per_second = vec![0; away.as_secs() as usize];
        for second in seconds {
            if let Some(count) = per_second.get_mut(second as usize) {
                *count += 1;
            }
        }
        let sum: usize = per_second.iter().sum();
        storm = storm.max(per_second.iter().copied().max().unwrap_or(0));
        (most, least, total) = (most.max(sum), least.min(sum), total + sum);
    }
    let average = |sum: usize| format!("{:.2}", sum as f64 / away.as_secs_f64());
    run.note("attempts per process and second, at most", storm);
    run.note("… on average", average(total / proxies.len()));
    run.note("… on average, the busiest process", average(most));
    run.note("… on average, the calmest process", average(least));
    let report = charges_nobody(run.finish());
    Ok(report
        .require(least > 0, "each process tries to come back")
        .require(storm <= STORM, "no storm of attempts to come back"))
}

/// More attempts of one process in one second are a storm.
const STORM: usize = 25;
