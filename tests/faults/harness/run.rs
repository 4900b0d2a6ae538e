//! One run of the fleet under one fault: a Redis, a crew of processes, a load, strikes, and the
//! ledger drawn up at the end.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::harness::crew::Crew;
use crate::harness::facts;
use crate::harness::load::{Load, Loading, now_ms};
use crate::support::ledger::{Account, Published};
use crate::support::{Fleet, Server, eventually};

/// Each event goes to two subscribers; history is cut all the time.
pub const ROUTING: &str = r#"
version: 1
schemas: schemas
streams:
  test-events: { events: ["Test.**"], maxlen: 300 }
routes:
  Test.Happened: [probe-service, other-service]
  Test.Followed: [other-service]
defaults:
  backoff: { initial: 50ms, max: 200ms, jitter: 0.5 }
  lease: 1s
  timeout: 20s
  concurrency: 8
"#;

/// The role of a process that is not a subscriber's.
pub const ROUTER: &str = "router";
/// How long after the last fault everything must be settled.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What a run found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub fault: String,
    pub about: String,
    /// How often the fault really struck.
    pub strikes: usize,
    pub seconds: f64,
    pub account: Account,
    pub recovery_p50_ms: Option<u64>,
    pub recovery_p99_ms: Option<u64>,
    /// Figures of this fault alone.
    pub notes: BTreeMap<String, String>,
}

pub struct Run {
    pub crew: Crew,
    pub fleet: Fleet,
    /// The whole suite on demand; else the short form that every change is held to.
    pub full: bool,
    /// How the crew and the publisher reach Redis; a fault may put itself in between.
    pub url: String,
    published: Arc<Mutex<Vec<Published>>>,
    /// When each strike was over.
    strikes: Vec<u64>,
    /// Strikes that the fault found afterwards to have happened.
    found: usize,
    notes: BTreeMap<String, String>,
    may_die: Vec<&'static str>,
    /// Accepted events that the server has forgotten, as its durability mode allows.
    forgotten: BTreeSet<String>,
    /// How many accepted events it has caught up with.
    caught_up: Cell<usize>,
    /// Environment of the processes that are hired from now on.
    pub environment: Vec<(String, String)>,
    begun: Instant,
}

impl Report {
    /// What must hold besides the ledger.
    pub fn require(mut self, holds: bool, what: &str) -> Self {
        if !holds {
            self.account.violations.push(format!("not so: {what}"));
        }
        self
    }
}

impl Run {
    pub fn new(full: bool) -> Self {
        Self::on(Server::start(), full)
    }

    pub fn on(server: Server, full: bool) -> Self {
        let fleet = Fleet::on(server);
        fleet.configure(ROUTING);
        Self {
            crew: Crew::default(),
            url: fleet.url(),
            fleet,
            full,
            published: Arc::default(),
            strikes: Vec::new(),
            found: 0,
            notes: BTreeMap::new(),
            may_die: Vec::new(),
            forgotten: BTreeSet::new(),
            caught_up: Cell::new(0),
            environment: Vec::new(),
            begun: Instant::now(),
        }
    }

    /// The usual crew: router `r`, workers `a` and `b` of one subscriber, `c` of the other.
    pub fn start(&self) {
        self.hire_router("r");
        self.hire_worker("probe-service", "a");
        self.hire_worker("probe-service", "b");
        self.hire_worker("other-service", "c");
        self.crew.says("r", "router started");
        for worker in ["a", "b", "c"] {
            self.crew.says(worker, "worker started");
        }
    }

    pub fn hire_router(&self, name: &str) {
        self.hire_armed(ROUTER, name, None);
    }

    pub fn hire_worker(&self, subscriber: &str, name: &str) {
        self.hire_armed(subscriber, name, None);
    }

    /// A router or a worker with a failpoint armed in its first life.
    pub fn hire_armed(&self, role: &str, name: &str, failpoint: Option<&str>) {
        self.hire(name, failpoint, self.command(role, name));
    }

    /// How a router or a worker is started.
    pub fn command(&self, role: &str, name: &str) -> Command {
        let mut command = match role {
            ROUTER => self.fleet.router_command(name),
            subscriber => self.fleet.worker_command(subscriber, name, &self.url),
        };
        command
            .env("STREAMFLEET_REDIS_URL", &self.url)
            .env("PROBE_WITNESS", self.witness())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("FAULT");
        command
    }

    /// A router or a worker that reaches Redis by a way of its own.
    pub fn hire_at(&self, role: &str, name: &str, url: &str) {
        let mut command = self.command(role, name);
        go_by(&mut command, url);
        self.hire(name, None, command);
    }

    /// A member of the crew that runs this command.
    pub fn hire(&self, member: &str, failpoint: Option<&str>, command: Command) {
        let log = self.fleet.dir.path().join(format!("{member}.log"));
        self.crew
            .hire(member, log, failpoint, move || copy(&command));
    }

    /// The file in which the workers' witness writes.
    pub fn witness(&self) -> PathBuf {
        self.fleet.dir.path().join("witness")
    }

    /// Publishes from a thread of its own.
    pub fn load(&self, load: Load) -> Loading {
        Loading::start(load, self.url.clone(), self.published.clone())
    }

    /// Publishes these once, and counts on them.
    pub fn publish(&self, events: &[(Value, Published)]) {
        let bodies: Vec<Value> = events.iter().map(|(event, _)| event.clone()).collect();
        self.fleet.publish(&bodies);
        let accepted = events.iter().map(|(_, promise)| Published {
            accepted_ms: Some(now_ms()),
            ..promise.clone()
        });
        self.published.lock().unwrap().extend(accepted);
    }

    /// As many events as the form of this run asks for.
    pub fn pick(&self, short: usize, full: usize) -> usize {
        if self.full { full } else { short }
    }

    /// How many events are known to be accepted.
    pub fn accepted(&self) -> usize {
        let published = self.published.lock().unwrap();
        published.iter().filter(|e| e.accepted_ms.is_some()).count()
    }

    /// Those events.
    pub fn accepted_events(&self) -> Vec<String> {
        let accepted = self
            .published()
            .into_iter()
            .filter(|e| e.accepted_ms.is_some());
        accepted.map(|e| e.id).collect()
    }

    /// Whether both subscribers are done with these events, or the server has forgotten them.
    pub fn has_settled(&self, events: &[String]) -> bool {
        let mut connection = self.fleet.connection();
        let owed = events.iter().filter(|id| !self.forgotten.contains(*id));
        let owed: Vec<&String> = owed.collect();
        ["probe-service", "other-service"].into_iter().all(|who| {
            let mut handled = redis::cmd("HMGET");
            handled.arg(format!("{who}:handled")).arg(&owed).arg("");
            let handled: Vec<Option<u64>> = handled.query(&mut connection).unwrap();
            let mut rest = owed
                .iter()
                .zip(handled)
                .filter(|(_, times)| times.is_none());
            let dead = facts::dead(&self.fleet, who);
            let dead: BTreeSet<_> = dead.into_iter().map(|letter| letter.id).collect();
            rest.all(|(id, _)| dead.contains(*id))
        })
    }

    /// Waits until all is settled that is accepted by now, so that a strike falls on a fleet at
    /// its usual pace.
    pub fn catch_up(&self) {
        let owed = self.accepted_events().split_off(self.caught_up.get());
        eventually("the fleet has caught up", || {
            self.has_settled(&owed).then_some(())
        });
        self.caught_up.set(self.caught_up.get() + owed.len());
    }

    /// Everything published so far.
    pub fn published(&self) -> Vec<Published> {
        self.published.lock().unwrap().clone()
    }

    /// Answers also for what was published to this data before.
    pub fn inherit(&self, published: impl IntoIterator<Item = Published>) {
        self.published.lock().unwrap().extend(published);
    }

    /// The server has forgotten these accepted events, as its durability mode allows.
    pub fn forget(&mut self, events: impl IntoIterator<Item = String>) {
        self.forgotten.extend(events);
    }

    /// What was promised so far is void: somebody threw the dataset away.
    pub fn start_over(&self) {
        self.published.lock().unwrap().clear();
    }

    /// Strikes once: from the end of it on, recovery is counted.
    pub fn strike<T>(&mut self, fault: impl FnOnce(&Self) -> T) -> T {
        let outcome = fault(self);
        self.strikes.push(now_ms());
        outcome
    }

    /// It is found to have struck so many times, nobody knows exactly when.
    pub fn struck(&mut self, times: usize) {
        self.found += times;
    }

    /// How often it has struck so far.
    pub fn strikes(&self) -> usize {
        self.strikes.len() + self.found
    }

    /// A figure of this fault alone.
    pub fn note(&mut self, name: &str, value: impl Display) {
        self.notes.insert(name.to_owned(), value.to_string());
    }

    /// The same for the largest of several values.
    pub fn note_most(&mut self, name: &str, value: u64) {
        let before = self.notes.get(name).map_or(0, |text| text.parse().unwrap());
        self.note(name, value.max(before));
    }

    /// This fault may well end an event for this reason.
    pub fn may_die(&mut self, reason: &'static str) {
        self.may_die.push(reason);
    }

    /// Waits until nothing is owed any more; what still is at the deadline is stuck.
    pub fn settle(&self) {
        let deadline = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < deadline && !self.is_settled() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Settles, and draws up the ledger.
    pub fn finish(self) -> Report {
        self.settle();
        let published = self.published.lock().unwrap().clone();
        let mut facts = facts::gather(&self.fleet, &self.witness());
        facts.forgotten.clone_from(&self.forgotten);
        let account = Account::draw_up(&published, &facts, &self.strikes, &self.may_die);
        if !account.violations.is_empty() {
            eprintln!("{}", self.crew.last_words());
        }
        Report {
            fault: String::new(),
            about: String::new(),
            strikes: self.strikes(),
            seconds: self.begun.elapsed().as_secs_f64(),
            recovery_p50_ms: account.recovery(50),
            recovery_p99_ms: account.recovery(99),
            account,
            notes: self.notes,
        }
    }

    /// Nothing owed, seen twice: a settled delivery may have published its follow-up in between.
    fn is_settled(&self) -> bool {
        self.fleet.is_drained() && {
            std::thread::sleep(Duration::from_millis(100));
            self.fleet.is_drained()
        }
    }
}

/// Lets a process reach Redis by this way.
pub fn go_by(command: &mut Command, url: &str) {
    command
        .env("STREAMFLEET_REDIS_URL", url)
        .env("PROBE_URL", url);
}

/// The same program with the same arguments and environment: a `Command` starts only once.
pub fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}
