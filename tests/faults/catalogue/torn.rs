//! A torn append-only file: what a script wrote is there as a whole or not at all, wherever the
//! file ends.
//!
//! A small fleet writes a file. It is cut at every byte of the last transaction of each kind
//! (the short form: at some), and a server started on each cut must hold what it held before that
//! transaction, and nothing of it. On some cuts the fleet goes on to the end, and the ledger is
//! drawn up.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::Value;

use crate::harness::aof::{self, Transaction};
use crate::harness::load::Load;
use crate::harness::run::{Report, Run};
use crate::support::ledger::{Account, Published};
use crate::support::{Server, eventually};
use crate::{CannotInject, Fault};

pub const FAULTS: &[Fault] = &[Fault {
    name: "torn-append-only-file",
    about: "the append-only file torn at each byte of what a script wrote",
    short: true,
    run: torn,
}];

type Kind = (&'static str, fn(&Transaction<'_>) -> bool);

/// What scripts write in more than one command.
const KINDS: [Kind; 5] = [
    ("commit", |t| commits(t) && !t.has("XADD", |k| k == "inbox")),
    ("commit with a follow-up", |t| {
        commits(t) && t.has("XADD", |k| k == "inbox")
    }),
    ("routed batch", |t| t.has("XADD", |k| k == "test-events")),
    ("dead letter", |t| t.has("XADD", |k| k.starts_with("dead:"))),
    ("retry", |t| {
        t.has("XCLAIM", |_| true) && t.has("HSET", |k| k.starts_with("attempts"))
    }),
];

fn commits(transaction: &Transaction<'_>) -> bool {
    transaction.has("HINCRBY", |key| key.ends_with(":handled"))
}

fn torn(full: bool) -> Result<Report, CannotInject> {
    let mut run = Run::new(full);
    run.start();
    run.load(Load::of(60, 300)).finish();
    run.settle();
    let written = Written::by(&run);
    let entries = aof::parse(&written.commands);
    let transactions = aof::transactions(&entries);
    let (starts, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let mut ledgers = Vec::new();
    for (kind, is_it) in KINDS {
        let last = transactions.iter().rfind(|t| is_it(t));
        let at = last
            .unwrap_or_else(|| panic!("there is a {kind}"))
            .at
            .clone();
        let before = written.state(&written.commands[..at.start]);
        let after = written.state(&written.commands[..at.end]);
        assert_ne!(before, after, "a {kind} changes something");
        let cuts = choose(at.start + 1..at.end, run.pick(8, usize::MAX));
        run.note(&format!("cuts of a {kind}"), cuts.len());
        std::thread::scope(|scope| {
            for part in cuts.chunks(cuts.len().div_ceil(2)) {
                let (written, before, starts, wrong) = (&written, &before, &starts, &wrong);
                scope.spawn(move || {
                    for &cut in part {
                        starts.fetch_add(1, Ordering::SeqCst);
                        if written.state(&written.commands[..cut]) != *before {
                            let byte = cut - at.start;
                            let what = format!("a {kind} torn at byte {byte} is half there");
                            wrong.lock().unwrap().push(what);
                        }
                    }
                });
            }
        });
        let followed = kind == "commit with a follow-up";
        for cut in choose(at.start + 1..at.end, run.pick(usize::from(followed), 3)) {
            ledgers.push(written.go_on(&written.commands[..cut], full));
        }
    }
    let refused = written.tear_base(run.pick(2, usize::MAX));
    run.note("cuts of the base file, each refused at the start", refused);
    run.note("ledgers drawn up after a cut", ledgers.len());
    run.struck(starts.into_inner() + refused);
    let mut report = run.finish();
    report
        .account
        .violations
        .extend(wrong.into_inner().unwrap());
    for ledger in ledgers {
        report.account.violations.extend(ledger.violations);
    }
    Ok(report)
}

/// At most so many of a range, both ends among them.
fn choose(range: Range<usize>, most: usize) -> Vec<usize> {
    if range.len() <= most {
        return range.collect();
    }
    let last = range.len() - 1;
    let nth = |n| range.start + last * n / (most - 1).max(1);
    (0..most).map(nth).collect()
}

/// What a fleet has written, and what it was told.
struct Written {
    /// Names and contents of the files besides the one that is torn.
    others: BTreeMap<String, Vec<u8>>,
    name: String,
    commands: Vec<u8>,
    published: Vec<Published>,
    witness: String,
}

impl Written {
    fn by(run: &Run) -> Self {
        let dir = run.fleet.dir.path();
        let [torn] = &aof::appended(dir)[..] else {
            panic!("so little is written to one file")
        };
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = std::fs::read_dir(torn.parent().unwrap()).unwrap();
        let others = files.map(|file| file.unwrap().path()).filter(|p| p != torn);
        Self {
            others: others
                .map(|path| (name(&path), std::fs::read(&path).unwrap()))
                .collect(),
            name: name(torn),
            commands: aof::bytes(dir),
            published: run.published(),
            witness: std::fs::read_to_string(run.witness()).unwrap(),
        }
    }

    /// A server, not started yet, with these commands in its file.
    fn server(&self, commands: &[u8]) -> Server {
        let server = Server::prepare(&[], &[]);
        let folder = server.dir.path().join("appendonlydir");
        std::fs::create_dir(&folder).unwrap();
        for (name, bytes) in &self.others {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        std::fs::write(folder.join(&self.name), commands).unwrap();
        server
    }

    /// What a server holds that was started with these commands.
    fn state(&self, commands: &[u8]) -> BTreeMap<String, Vec<Value>> {
        let server = self.server(commands);
        server.run();
        let keys: Vec<String> = server.cli("KEYS *");
        // Signs of life expire.
        let lasting = keys.into_iter().filter(|key| !key.starts_with("worker:"));
        lasting
            .map(|key| {
                let held = held(&server, &key);
                (key, held)
            })
            .collect()
    }

    /// Lets a fleet go on with these commands in the file.
    fn go_on(&self, commands: &[u8], full: bool) -> Account {
        let server = self.server(commands);
        server.run();
        let run = Run::on(server, full);
        std::fs::write(run.witness(), &self.witness).unwrap();
        let accepted = aof::accepted(&aof::parse(commands));
        let known = self.published.iter().filter(|e| accepted.contains(&e.id));
        run.inherit(known.cloned());
        run.start();
        run.finish().account
    }

    /// The base file is complete before anything refers to it. Should it be torn all the same,
    /// the server must refuse to start rather than begin with less.
    fn tear_base(&self, most: usize) -> usize {
        let (name, base) = self
            .others
            .iter()
            .find(|(n, _)| n.ends_with(".base.rdb"))
            .unwrap();
        let cuts = choose(1..base.len() - 1, most);
        for &cut in &cuts {
            let server = self.server(&self.commands);
            let file = server.dir.path().join("appendonlydir").join(name);
            std::fs::write(file, &base[..cut]).unwrap();
            server.spawn();
            eventually("a server with half a base file ends", || {
                server.has_ended().then_some(())
            });
        }
        cuts.len()
    }
}

/// All there is to a key but the times at which Redis loaded it.
fn held(server: &Server, key: &str) -> Vec<Value> {
    let kind: String = server.cli(&format!("TYPE {key}"));
    match kind.as_str() {
        "stream" => {
            let mut held = vec![server.cli(&format!("XRANGE {key} - +"))];
            let groups: redis::streams::StreamInfoGroupsReply =
                server.cli(&format!("XINFO GROUPS {key}"));
            held.push(server.cli(&format!("XINFO GROUPS {key}")));
            for group in groups.groups {
                let pending: redis::streams::StreamPendingCountReply =
                    server.cli(&format!("XPENDING {key} {} - + 100000", group.name));
                held.extend(pending.ids.into_iter().map(|p| {
                    Value::SimpleString(format!("{} {} {}", p.id, p.consumer, p.times_delivered))
                }));
            }
            held
        }
        "hash" => {
            let fields: BTreeMap<String, Vec<u8>> = server.cli(&format!("HGETALL {key}"));
            let text = |(name, value)| Value::SimpleString(format!("{name} {value:?}"));
            fields.into_iter().map(text).collect()
        }
        _ => vec![server.cli(&format!("DUMP {key}"))],
    }
}
