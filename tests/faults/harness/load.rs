//! The load generator: publishes events at a steady rate and notes which were accepted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::fleet::{id, typed};
use crate::support::ledger::{Plan, Published};

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

/// What is published.
#[derive(Clone, Copy)]
pub struct Load {
    pub events: usize,
    pub per_second: usize,
    /// What the n-th event asks for; each hundred is published from another place on.
    pub plan: fn(usize) -> Plan,
    /// How long the handler of the same takes if it succeeds, in milliseconds.
    pub ms: fn(usize) -> u64,
    /// How many replicas must have it before the publisher counts it as accepted.
    pub wait_for: usize,
}

impl Load {
    pub fn of(events: usize, per_second: usize) -> Self {
        Self {
            events,
            per_second,
            plan: mixed,
            ms: |_| 0,
            wait_for: 0,
        }
    }
}

/// Of 100 events, 4 fail twice, 2 fail, 2 are rejected and 10 publish a follow-up.
pub fn mixed(n: usize) -> Plan {
    match n % 50 {
        7 | 31 => Plan::FailTwice,
        13 => Plan::Fail,
        19 => Plan::Reject,
        n if n % 10 == 4 => Plan::Follow,
        _ => Plan::Succeed,
    }
}

/// A load that is being published by a thread of its own.
pub struct Loading {
    thread: JoinHandle<()>,
    done: Arc<AtomicBool>,
    pub counts: Arc<Counts>,
}

/// What the publisher went through.
#[derive(Default)]
pub struct Counts {
    /// XADDs without an answer or with an error, each sent again.
    pub unanswered: AtomicU64,
}

impl Counts {
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::SeqCst)
    }
}

impl Loading {
    pub fn start(load: Load, url: String, published: Arc<Mutex<Vec<Published>>>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let (finished, counting) = (done.clone(), counts.clone());
        let thread = std::thread::spawn(move || {
            let mut way_in = WayIn {
                url,
                wait_for: load.wait_for,
                connection: None,
            };
            let start = Instant::now();
            for n in 0..load.events {
                if finished.load(Ordering::SeqCst) {
                    break;
                }
                let due = Duration::from_micros((n * 1_000_000 / load.per_second) as u64);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                let (event, plan) = event(load, n);
                let place = {
                    let mut all = published.lock().unwrap();
                    all.push(promise(&event, plan));
                    all.len() - 1
                };
                way_in.publish(&event.to_string(), &counting);
                published.lock().unwrap()[place].accepted_ms = Some(now_ms());
                if n % 20 == 11 {
                    way_in.publish(&event.to_string(), &counting); // a duplicate
                }
            }
            finished.store(true, Ordering::SeqCst);
        });
        Self {
            thread,
            done,
            counts,
        }
    }

    /// Publishes no more.
    pub fn stop(self) -> Arc<Counts> {
        self.done.store(true, Ordering::SeqCst);
        self.finish()
    }

    pub fn goes_on(&self) -> bool {
        !self.done.load(Ordering::SeqCst)
    }

    /// Waits until everything is published.
    pub fn finish(self) -> Arc<Counts> {
        self.thread.join().unwrap();
        self.counts
    }
}

/// What an event of a load promises once it is accepted.
pub fn promise(event: &Value, plan: Plan) -> Published {
    Published {
        id: id(event),
        plan,
        subscribers: vec!["probe-service".into(), "other-service".into()],
        accepted_ms: None,
    }
}

/// The n-th event of a load.
pub fn event(load: Load, n: usize) -> (Value, Plan) {
    let turned = turned(n);
    let plan = (load.plan)(turned);
    let action = match plan {
        Plan::Succeed => "sleep",
        Plan::FailTwice => "fail twice",
        Plan::Fail => "fail",
        Plan::Reject => "reject",
        Plan::Follow => "follow",
        Plan::Poison => "abort",
        Plan::Block => "block",
    };
    let data = json!({"n": n, "do": action, "ms": (load.ms)(turned)});
    (typed("Test.Happened", data), plan)
}

/// The same numbers, each hundred begun at another place: Redis serves waiting workers in turn, so
/// that what comes at a fixed pace would all go to the same one.
pub fn turned(n: usize) -> usize {
    let hundred = n / 100;
    let begin = (hundred as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    hundred * 100 + (n + begin as usize) % 100
}

/// A publisher that sends each event until Redis has answered: the router drops what arrived
/// twice.
struct WayIn {
    url: String,
    wait_for: usize,
    connection: Option<redis::Connection>,
}

impl WayIn {
    fn publish(&mut self, event: &str, counts: &Counts) {
        while let Err(error) = self.send(event) {
            counts.unanswered.fetch_add(1, Ordering::SeqCst);
            if error.is_io_error()
                || error.is_connection_dropped()
                || error.is_unrecoverable_error()
            {
                self.connection = None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&mut self, event: &str) -> redis::RedisResult<()> {
        let connection = match &mut self.connection {
            Some(open) => open,
            none => {
                let new = redis::Client::open(self.url.as_str())?
                    .get_connection_with_timeout(Duration::from_secs(1))?;
                new.set_read_timeout(Some(Duration::from_secs(1)))?;
                none.insert(new)
            }
        };
        let mut add = redis::cmd("XADD");
        add.arg("inbox")
            .arg("*")
            .arg("event")
            .arg(event)
            .exec(connection)?;
        if self.wait_for > 0 {
            let mut wait = redis::cmd("WAIT");
            let have: usize = wait.arg(self.wait_for).arg(500).query(connection)?;
            if have < self.wait_for {
                return Err((redis::ErrorKind::Client, "too few replicas have it").into());
            }
        }
        Ok(())
    }
}
