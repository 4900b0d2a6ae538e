//! What the tests share: a Redis of one's own, a fleet around it, and a worker whose handler
//! does what each event tells it to.

pub mod cli;
pub mod fleet;
pub mod ledger;
#[allow(dead_code, reason = "one suite is managed")]
pub mod manager;
pub mod preload;
pub mod probe;
#[allow(dead_code, reason = "each suite has faults of its own")]
pub mod proxy;
pub mod server;
pub mod users;

#[allow(unused_imports, reason = "not every suite makes events of its own")]
pub use fleet::{Fleet, event};
pub use server::Server;

use std::time::{Duration, Instant};

/// Polls until `done` answers something; fails loudly after `DEADLINE`.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    const DEADLINE: Duration = Duration::from_secs(30);
    let start = Instant::now();
    loop {
        if let Some(answer) = done() {
            return answer;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
