//! What faults ask of the usual crew and of Redis, for their figures.

use crate::harness::load::{mixed, turned};
use crate::harness::run::{Report, Run};
use crate::support::ledger::Plan;

/// Everybody of the usual crew.
pub const CREW: [&str; 4] = ["r", "a", "b", "c"];

/// How often the crew said this.
pub fn all_said(run: &Run, text: &str) -> usize {
    CREW.iter().map(|name| run.crew.said(name, text)).sum()
}

/// How often one of the crew ended.
pub fn ends(run: &Run) -> usize {
    CREW.iter().map(|name| run.crew.lives(name) - 1).sum()
}

/// An outage charges no event anything: what is charged is what the handlers failed by plan.
/// (For one load of mixed events.)
pub fn charges_nobody(report: Report) -> Report {
    let by_plan: usize = (0..report.account.published)
        .map(|n| match mixed(turned(n)) {
            Plan::FailTwice => 2,
            Plan::Fail => 3,
            Plan::Reject => 1,
            _ => 0,
        })
        .sum();
    let charged = report.account.charged as usize;
    let both = 2 * by_plan; // subscribers
    report.require(
        charged == both,
        &format!("{both} failures by plan, {charged} charged"),
    )
}

/// A number of `INFO memory`.
pub fn memory(admin: &mut redis::Connection, field: &str) -> u64 {
    let info: redis::InfoDict = redis::cmd("INFO").arg("memory").query(admin).unwrap();
    info.get(field).unwrap()
}

/// Changes a setting of the running server.
pub fn set(admin: &mut redis::Connection, setting: &str, value: &str) {
    redis::cmd("CONFIG")
        .arg("SET")
        .arg(setting)
        .arg(value)
        .exec(admin)
        .unwrap();
}

/// How many connections the server has taken so far.
pub fn connected(admin: &mut redis::Connection) -> u64 {
    let info: redis::InfoDict = redis::cmd("INFO").arg("stats").query(admin).unwrap();
    info.get("total_connections_received").unwrap()
}

/// Kills all connections of this kind but one's own; answers how many there were.
pub fn kill_all(admin: &mut redis::Connection, what: &str, which: &str) -> usize {
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg(what)
        .arg(which)
        .arg("SKIPME")
        .arg("yes")
        .query(admin)
        .unwrap()
}
