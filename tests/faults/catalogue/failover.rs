//! The master dies, a replica is promoted. Replication is asynchronous: what the replica had not
//! received is forgotten. How much that is, by mode; and that everything else goes on.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::Value;

use crate::harness::aof;
use crate::harness::forgotten::Forgotten;
use crate::harness::front::{Front, Wire};
use crate::harness::load::{Load, now_ms};
use crate::harness::run::{Report, Run};
use crate::support::{Server, eventually};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "failover-async",
        about: "kill -9 of the master, a replica 200 ms behind promoted",
        short: true,
        run: |full| failover(full, &ASYNC),
    },
    Fault {
        name: "failover-cut-off",
        about: "a replica that was cut off for 5 s promoted",
        short: false,
        run: |full| failover(full, &CUT_OFF),
    },
    Fault {
        name: "failover-min-replicas",
        about: "a replica that was cut off for 5 s promoted, min-replicas-to-write 1",
        short: false,
        run: |full| failover(full, &MIN_REPLICAS),
    },
    Fault {
        name: "failover-wait",
        about: "a replica that was cut off for 5 s promoted, the publisher waits for it (WAIT 1)",
        short: false,
        run: |full| failover(full, &WAIT),
    },
    Fault {
        name: "failover-to-empty",
        about: "an empty replica is promoted",
        short: true,
        run: to_empty,
    },
];

struct Mode {
    settings: &'static [&'static str],
    /// How long what the master says is under way to the replica.
    delay: Duration,
    /// How long before the master's death the replica hears nothing more.
    cut_off: Duration,
    /// Replicas that the publisher waits for.
    wait_for: usize,
    /// How long before the replica heard nothing more the master may have accepted what is then
    /// forgotten, milliseconds.
    forgets_ms: u64,
    /// How long after that moment it may still have accepted anything.
    accepts_ms: u64,
}

const ASYNC: Mode = Mode {
    settings: &[],
    delay: Duration::from_millis(200),
    cut_off: Duration::ZERO,
    wait_for: 0,
    forgets_ms: 1_500,
    accepts_ms: u64::MAX,
};
const CUT_OFF: Mode = Mode {
    cut_off: Duration::from_secs(5),
    ..ASYNC
};
/// A replica counts as lagging 1 s after its last answer; it answers once a second, and the
/// master looks once a second.
const MIN_REPLICAS: Mode = Mode {
    settings: &[
        "--min-replicas-to-write",
        "1",
        "--min-replicas-max-lag",
        "1",
    ],
    accepts_ms: 3_500,
    ..CUT_OFF
};
const WAIT: Mode = Mode {
    delay: Duration::from_millis(10),
    wait_for: 1,
    forgets_ms: 0,
    accepts_ms: 0,
    ..CUT_OFF
};

/// A server that can be master or replica.
struct Node {
    server: Server,
    port: u16,
}

impl Node {
    fn start(mode: &Mode) -> Self {
        Self::with(mode, &[])
    }

    fn with(mode: &Mode, more: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let text = port.to_string();
        let mut settings = vec!["--port", &text, "--bind", "127.0.0.1"];
        // The append-only file is here only to see what a master had accepted.
        settings.extend(["--appendfsync", "no", "--repl-diskless-sync-delay", "0"]);
        settings.extend(["--auto-aof-rewrite-percentage", "0"]);
        settings.extend(mode.settings);
        settings.extend(more);
        let server = Server::with(&settings);
        Self { server, port }
    }

    /// A replica of this node, in step with it, and the wire in between.
    fn replica(&self, mode: &Mode) -> (Self, Wire) {
        let wire = Wire::to(self.port, mode.delay);
        let port = wire.port.to_string();
        let replica = Self::with(mode, &["--replicaof", "127.0.0.1", &port]);
        eventually("the replica is in step", || {
            let info = replica.info("replication");
            let here: u64 = field(&info, "slave_repl_offset")?.parse().ok()?;
            let there = self.info("replication");
            let seen = field(&there, "slave0")?.contains("state=online");
            // Under load it is never quite at the end.
            let offset: u64 = field(&there, "master_repl_offset")?.parse().ok()?;
            let up = info.contains("master_link_status:up") && seen && here + 1_000_000 > offset;
            let calm = replica
                .info("persistence")
                .contains("aof_rewrite_in_progress:0");
            let writable = mode.settings.is_empty() || there.contains("min_slaves_good_slaves:1");
            (up && calm && writable).then_some(())
        });
        (replica, wire)
    }

    fn info(&self, section: &str) -> String {
        self.server.cli(&format!("INFO {section}"))
    }

    /// Every event that it has ever accepted: in its inbox still, or marked as seen.
    fn knows(&self) -> BTreeSet<String> {
        let mut connection = self.server.connection();
        let mut known = BTreeSet::new();
        for bucket in connection.keys::<_, Vec<String>>("seen:*").unwrap() {
            known.extend(connection.hkeys::<_, Vec<String>>(bucket).unwrap());
        }
        for stream in ["inbox", "dead:router"] {
            let entries: redis::streams::StreamRangeReply = connection.xrange_all(stream).unwrap();
            known.extend(entries.ids.iter().filter_map(|entry| {
                let event: Value = serde_json::from_str(&entry.get::<String>("event")?).ok()?;
                Some(event["event_id"].as_str()?.to_owned())
            }));
        }
        known
    }

    /// How many commits of `master` it does not have.
    fn lacks(&self, master: &Self) -> usize {
        let written = aof::bytes(master.server.dir.path());
        let committed = aof::committed(&aof::parse(&written));
        let mut connection = self.server.connection();
        let here = |((key, event), _): &((String, String), usize)| {
            connection.hexists::<_, _, bool>(key, event).unwrap()
        };
        let all = committed.len();
        all - committed.into_iter().filter(here).count()
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// A run whose crew reaches the present master through a front.
fn behind_front(full: bool, master: &Node) -> (Run, Front) {
    let run = Run::on(Server::prepare(&[], &[]), full);
    let front = Front::at(&run.fleet.socket());
    front.lead_to(&master.server.socket());
    (run, front)
}

fn failover(full: bool, mode: &Mode) -> Result<Report, CannotInject> {
    let mut master = Node::start(mode);
    let (mut run, front) = behind_front(full, &master);
    let (mut replica, mut wire) = master.replica(mode);
    run.start();
    let load = run.load(Load {
        wait_for: mode.wait_for,
        ..Load::of(usize::MAX, 100)
    });
    let (mut before_ms, mut after_ms) = (Vec::new(), Vec::new());
    let (mut rolled_back, mut away_ms, mut gone) = (0, Vec::new(), Forgotten::default());
    for n in 0..run.pick(2, 10) {
        run.catch_up();
        let before = run.accepted();
        std::thread::sleep(Duration::from_millis(1_000 + (n as u64 * 373) % 800));
        assert!(
            run.accepted() > before,
            "events are accepted between failovers"
        );
        let mut may_forget = Vec::new();
        (master, replica, wire) = run.strike(|run| {
            if mode.cut_off.is_zero() {
                master.server.kill();
            }
            wire.cut();
            let silent_ms = now_ms();
            std::thread::sleep(mode.cut_off);
            master.server.kill();
            let away = Instant::now();
            let known = replica.knows();
            for (id, at) in gone.find(run, &known) {
                let (before, after) = (silent_ms.saturating_sub(at), at.saturating_sub(silent_ms));
                before_ms.push(before);
                after_ms.push(after);
                if mode.forgets_ms > 0 && before <= mode.forgets_ms && after <= mode.accepts_ms {
                    may_forget.push(id);
                }
            }
            rolled_back += replica.lacks(&master);
            if n % 2 == 1 {
                // Clients find the replica before it may be written to.
                front.lead_to(&replica.server.socket());
                std::thread::sleep(Duration::from_millis(300));
            }
            let () = replica.server.cli("REPLICAOF NO ONE");
            front.lead_to(&replica.server.socket());
            let (next, wire) = replica.replica(mode);
            let accepted = run.accepted();
            eventually("it accepts again", || {
                (run.accepted() > accepted).then_some(())
            });
            away_ms.push(away.elapsed().as_millis() as u64);
            (replica, next, wire)
        });
        run.forget(may_forget);
    }
    load.stop();
    let max = |list: &[u64]| list.iter().copied().max().unwrap_or(0);
    run.note("delay to the replica, ms", mode.delay.as_millis());
    run.note("replica cut off before, ms", mode.cut_off.as_millis());
    run.note("settings", mode.settings.join(" "));
    run.note("publisher waits for replicas", mode.wait_for);
    run.note("accepted events lost", before_ms.len());
    run.note(
        "oldest accepted event lost, ms before the replica heard nothing more",
        max(&before_ms),
    );
    run.note(
        "newest accepted event lost, ms after the replica heard nothing more",
        max(&after_ms),
    );
    run.note("commits rolled back, run again", rolled_back);
    run.note("events accepted", run.accepted());
    run.note("ms until events were accepted again, most", max(&away_ms));
    let report = run.finish();
    drop((master, replica, wire));
    Ok(report)
}

/// What every process says that finds other data.
const REPLACED: &str = "the data in Redis were replaced under this process";

fn to_empty(full: bool) -> Result<Report, CannotInject> {
    let mut master = Node::start(&ASYNC);
    let (mut run, front) = behind_front(full, &master);
    run.start();
    let load = run.load(Load::of(usize::MAX, 100));
    let mut stopped_ms = Vec::new();
    let mut lost = 0;
    for round in 1..=run.pick(1, 5) {
        std::thread::sleep(Duration::from_millis(700));
        let empty = Node::start(&ASYNC);
        master = run.strike(|run| {
            master.server.kill();
            front.lead_to(&empty.server.socket());
            let at = Instant::now();
            for name in ["r", "a", "b", "c"] {
                eventually(&format!("{name} stops: its data are gone"), || {
                    (run.crew.said(name, REPLACED) >= round).then_some(())
                });
            }
            stopped_ms.push(at.elapsed().as_millis());
            for name in ["r", "a", "b", "c"] {
                assert_eq!(run.crew.said(name, REPLACED), round, "each stops once");
                eventually(&format!("{name} begins anew"), || {
                    (run.crew.lives(name) == round + 1).then_some(())
                });
                run.crew.says(name, " started");
            }
            empty
        });
        // Nothing of before is left, the rest is held to the ledger.
        let accepted = run.accepted_events();
        let known = master.knows();
        let unknown: Vec<_> = accepted
            .into_iter()
            .filter(|id| !known.contains(id))
            .collect();
        lost = unknown.len();
        run.forget(unknown);
    }
    load.stop();
    run.note("accepted events lost: all before", lost);
    run.note(
        "ms until the last process had stopped, most",
        stopped_ms.iter().max().unwrap(),
    );
    let report = run.finish();
    drop(master);
    Ok(report)
}
