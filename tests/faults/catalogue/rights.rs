//! What the fleet's user may do, changed under running processes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::figures::{CREW, all_said, charges_nobody, connected, ends, kill_all};
use crate::harness::load::Load;
use crate::harness::run::{Report, Run, copy, go_by};
use crate::support::eventually;
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "rights-revoked",
        about: "the user may do nothing for longer than a lease",
        short: true,
        run: rights_revoked,
    },
    Fault {
        name: "right-missing",
        about: "the user may do all but one command, each of those that settling needs in turn",
        short: true,
        run: right_missing,
    },
    Fault {
        name: "password-rotated",
        about: "the password is changed under running processes; later they are restarted with the new one",
        short: true,
        run: password_rotated,
    },
];

/// Longer than the lease.
const REVOKED: Duration = Duration::from_millis(2500);

/// The fleet's own user; the default user remains the operator's.
fn user(run: &Run, rules: &str) {
    let _: () = run.fleet.cli(&format!("ACL SETUSER fleet {rules}"));
}

fn url_of_user(run: &Run, password: &str) -> String {
    format!("{}?user=fleet&pass={password}", run.url)
}

/// Commands that the server refused before it ran them.
fn refused_commands(run: &Run) -> u64 {
    let stats: String = run.fleet.cli("INFO commandstats");
    let counts = stats.split("rejected_calls=").skip(1);
    counts
        .filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok())
        .sum()
}

/// How often the crew said that it may not do something.
fn refusals(run: &Run) -> usize {
    // The second is what a script hears.
    ["NOPERM", "NoPerm", "can't run this command"]
        .map(|text| all_said(run, text))
        .iter()
        .sum()
}

fn rights_revoked(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    user(&run, "on >secret ~* &* +@all");
    run.url = url_of_user(&run, "secret");
    run.start();
    let load = run.load(Load {
        ms: |n| if n.is_multiple_of(40) { 3500 } else { 5 },
        ..Load::of(usize::MAX, 30)
    });
    let mut most = 0;
    for _ in 0..run.pick(1, 10) {
        // Between two strikes there is time for whoever waits to try again.
        std::thread::sleep(Duration::from_millis(run.pick(1_200, 4_000) as u64));
        let before = (refused_commands(&run), load.counts.unanswered());
        run.strike(|run| {
            user(run, "-@all");
            std::thread::sleep(REVOKED);
            user(run, "+@all");
        });
        let refused = refused_commands(&run) - before.0;
        // Beginning with the publisher's, which are not ours.
        most = most.max(refused.saturating_sub(load.counts.unanswered() - before.1));
    }
    load.stop();
    let rate = most as f64 / REVOKED.as_secs_f64() / CREW.len() as f64;
    assert!(rate > 0.0, "somebody was refused");
    assert!(
        rate < 60.0,
        "a process asks {rate} times a second what is refused"
    );
    run.note(
        "refused commands per process and second, at most",
        format!("{rate:.1}"),
    );
    run.note("refusals logged", refusals(&run));
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

/// What settling and routing write with.
const WRITES: &[&str] = &[
    "xack",
    "xadd",
    "hset",
    "hdel",
    "hincrby",
    "xclaim",
    "xautoclaim",
    "xdel",
];

/// Redis scripts do not roll back: a script that is refused one of its commands half-way would
/// have done a part, and done it again with each repetition.
fn right_missing(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    user(&run, "on >secret ~* &* +@all");
    run.url = url_of_user(&run, "secret");
    run.start();
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(usize::MAX, 50)
    });
    for _ in 0..run.pick(1, 4) {
        for command in WRITES {
            std::thread::sleep(Duration::from_millis(run.pick(200, 3_000) as u64));
            let before = refusals(&run);
            run.strike(|run| {
                user(run, &format!("-{command}"));
                eventually(&format!("{command} is missed"), || {
                    (refusals(run) > before).then_some(())
                });
                std::thread::sleep(Duration::from_millis(300));
                user(run, &format!("+{command}"));
            });
        }
    }
    load.stop();
    run.note("refusals logged", refusals(&run));
    run.note("processes that ended", ends(&run));
    Ok(charges_nobody(run.finish()))
}

/// What a user may expect of a rotation: connections that are open stay open, so it disturbs
/// nobody. A process that must connect and is refused says so, keeps what it holds and goes on
/// trying, gently: only a restart brings it the new password, and a rotation that was a mistake
/// may be taken back. It ends when it is told to, although Redis refuses its goodbye.
fn password_rotated(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    user(&run, "on >secret-0 ~* &* +@all");
    let secret = Arc::new(Mutex::new(0));
    for (name, role) in
        CREW.into_iter()
            .zip(["router", "probe-service", "probe-service", "other-service"])
    {
        let mut base = run.command(role, name);
        base.env("PROBE_DRAIN", "1");
        let (url, secret) = (run.url.clone(), secret.clone());
        let log = run.fleet.dir.path().join(format!("{name}.log"));
        run.crew.hire(name, log, None, move || {
            let mut command = copy(&base);
            let number: usize = *secret.lock().unwrap();
            go_by(
                &mut command,
                &format!("{url}?user=fleet&pass=secret-{number}"),
            );
            command
        });
        run.crew.says(name, " started");
    }
    let load = run.load(Load {
        ms: |_| 5,
        ..Load::of(usize::MAX, 50)
    });
    let (mut disturbed, mut attempts, mut slowest) = (0, 0, Duration::ZERO);
    for round in 1..=run.pick(1, 5) {
        std::thread::sleep(Duration::from_millis(500));
        user(&run, &format!("<secret-{} >secret-{round}", round - 1));
        let said = all_said(&run, "AuthenticationFailed");
        std::thread::sleep(Duration::from_millis(1000));
        disturbed += all_said(&run, "AuthenticationFailed") - said;
        run.strike(|run| {
            let mut admin = run.fleet.connection();
            let before = connected(&mut admin);
            kill_all(&mut admin, "USER", "fleet");
            std::thread::sleep(Duration::from_secs(2));
            attempts += connected(&mut admin) - before;
            *secret.lock().unwrap() = round;
            let (lives, began) = (CREW.map(|name| run.crew.lives(name)), Instant::now());
            CREW.iter().for_each(|name| run.crew.signal(name, "TERM"));
            for (name, lives) in CREW.into_iter().zip(lives) {
                eventually(&format!("{name} ends"), || {
                    (run.crew.lives(name) > lives).then_some(())
                });
                slowest = slowest.max(began.elapsed());
            }
            CREW.iter().for_each(|name| run.crew.says(name, " started"));
        });
    }
    load.stop();
    let refused = all_said(&run, "restart this process with the new one");
    run.note("refusals logged", refused);
    run.note("disturbed by the rotation alone", disturbed);
    run.note("connections made while refused", attempts);
    run.note("slowest end on SIGTERM, ms", slowest.as_millis());
    Ok(run
        .finish()
        .require(
            refused > 0,
            "the processes say what is wrong and what helps",
        )
        .require(disturbed == 0, "open connections stay open"))
}
