//! What the facts mean. Pure.

mod groups;
mod settings;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Finding;
use super::facts::Facts;
use crate::fleet::ROUTER;
use crate::status::{self, Condition, GroupStatus, State, WorkerStatus};
use crate::store::{self, Severity};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Weight {
    /// Something is lost, stands still, or may be lost at any moment.
    Error,
    /// It will be, or nobody would notice.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// All findings.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    server(facts, &mut found);
    rights(facts, &mut found);
    groups::groups(facts, &mut found);
    workers(facts, &mut found);
    groups::subscribers(facts, &mut found);
    settings::settings(facts, &mut found);
    settings::streams(facts, &mut found);
    settings::memory(facts, &mut found);
    found
}

fn finding(
    severity: Weight,
    about: impl Into<String>,
    what: impl Into<String>,
    proof: String,
    fix: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        about: about.into(),
        what: what.into(),
        proof,
        fix: fix.into(),
    }
}

fn server(facts: &Facts, found: &mut Vec<Finding>) {
    for one in &facts.server {
        let severity = match one.severity() {
            Severity::Refuse | Severity::Wait => Weight::Error,
            Severity::Warn => Weight::Warning,
            Severity::Note => Weight::Note,
        };
        let text = one.to_string();
        // They say what is the case first, then what to do.
        let (what, fix) = text
            .split_once(". ")
            .unwrap_or((&text, "use another server"));
        found.push(finding(severity, "server", what, proof_of(one, facts), fix));
    }
}

fn proof_of(one: &store::Finding, facts: &Facts) -> String {
    use store::Finding as F;
    let section = match one {
        F::TooOld(_) | F::Sentinel => "server",
        F::Evicts(_) => "memory",
        F::Cluster => "cluster",
        F::Replica(_) => "replication",
        F::NotPersistent
        | F::SnapshotsOnly(_)
        | F::AofFails
        | F::SnapshotFailsAndStopsWrites
        | F::SnapshotFails => "persistence",
        F::NoTime | F::Skew(_) => return facts.proof.of(&["TIME"]),
        F::Unknown { .. } => return facts.proof.of(&["ACL", "WHOAMI"]),
    };
    facts.proof.info(section)
}

fn rights(facts: &Facts, found: &mut Vec<Finding>) {
    for denied in &facts.denied {
        found.push(finding(
            Weight::Warning,
            "rights",
            format!("Redis does not answer this user everything, so that not everything was examined: {denied}"),
            facts.proof.of(&["ACL", "WHOAMI"]),
            "examine with a user who may read everything, or grant it: ACL SETUSER <user> +<command>",
        ));
    }
    if !facts.scripts && facts.denied.is_empty() {
        found.push(finding(
            Weight::Warning,
            "rights",
            "scripts do not run",
            facts.proof.of(&["EVAL", "return 1", "0"]),
            "look at the log of Redis",
        ));
    }
}

fn workers(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(snapshot) = &facts.snapshot else {
        return;
    };
    for ghost in facts.workers.iter().filter(|w| w.state == State::Ghost) {
        found.extend(haunted(ghost, facts));
    }
    let alive = |name: &str| status::alive(&facts.workers, name) > 0;
    if !alive(ROUTER) {
        let waits = snapshot.router.inbox;
        found.push(finding(
            if waits > 0 {
                Weight::Error
            } else {
                Weight::Warning
            },
            "router",
            format!("no router is alive; {waits} events wait in the inbox"),
            facts.proof.workers(ROUTER),
            "start streamfleet-router",
        ));
    }
    for settings in facts.routing.subscribers().filter(|s| !alive(&s.name)) {
        let there = |g: &&GroupStatus| matches!(g.condition, Condition::Ok | Condition::Unrouted);
        let of = snapshot.groups.iter().filter(there);
        let of = of.filter(|g| g.subscriber == *settings.name);
        let owes = of.map(|g| g.waiting.unwrap_or(1) + g.pending());
        let owes: u64 = owes.sum();
        found.push(finding(
            if owes > 0 {
                Weight::Error
            } else {
                Weight::Warning
            },
            format!("subscriber {}", settings.name),
            format!("none of its workers is alive; it owes {owes}"),
            facts.proof.workers(&settings.name),
            format!("start {}", settings.worker),
        ));
    }
    for behind in facts
        .workers
        .iter()
        .filter(|w| w.generation < snapshot.generation)
    {
        if behind.generation.is_some() {
            found.push(finding(
                Weight::Warning,
                format!("{} {}", behind.subscriber, behind.name),
                "it runs an older configuration than others",
                facts.proof.worker(&behind.subscriber, &behind.name),
                "let it load the new file: look at what its log says of it, send SIGHUP, or restart it",
            ));
        }
    }
}

fn haunted(ghost: &WorkerStatus, facts: &Facts) -> Option<Finding> {
    let stream = ghost.streams.first()?;
    let lease = facts
        .groups
        .get(&(stream.clone(), ghost.subscriber.clone()));
    let lease = lease.map_or(0, |record| record.lease_ms);
    let idle = ghost.heartbeat_ms.unwrap_or(0);
    let overdue = idle > lease.saturating_mul(2);
    let idle = super::super::text::age(Some(idle));
    Some(finding(
        if overdue {
            Weight::Warning
        } else {
            Weight::Note
        },
        format!("subscriber {}", ghost.subscriber),
        format!(
            "the consumer {} gives no sign of life, for {idle}, and holds {} deliveries",
            ghost.consumer, ghost.in_flight
        ),
        facts.proof.consumers(stream, &ghost.subscriber),
        match overdue {
            true => {
                "a worker of this subscriber that is alive claims them; start one, or look at why it does not"
            }
            false => "nothing yet: a worker that is alive claims them when their lease is over",
        },
    ))
}

fn long(duration: Duration) -> String {
    super::super::text::human(duration)
}
