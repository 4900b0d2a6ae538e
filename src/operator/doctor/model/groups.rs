//! Findings about groups and subscribers: what is owed, and by whom.

use std::time::Duration;

use super::super::super::text::count;
use super::super::Finding;
use super::super::facts::Facts;
use super::{Weight, finding, long};
use crate::fleet::ROUTER;
use crate::fleet::control::BreakerState;
use crate::status::{Condition, GroupStatus};

pub(super) fn groups(facts: &Facts, found: &mut Vec<Finding>) {
    let groups = facts.snapshot.as_ref().map(|s| s.groups.as_slice());
    let groups = groups.unwrap_or_default();
    let mut absent = groups.iter().filter(|g| g.condition == Condition::Absent);
    if let Some(first) = absent.next() {
        found.push(finding(
            Weight::Note,
            "groups",
            format!(
                "{} of them were not created yet, such as {} on {}",
                absent.count() + 1,
                first.subscriber,
                first.stream
            ),
            facts.proof.known_group(&first.stream, &first.subscriber),
            "start the router: it creates them all",
        ));
    }
    for group in groups {
        found.extend(condition(group, facts));
        if matches!(
            group.condition,
            Condition::Ok | Condition::Unrouted | Condition::Retired
        ) {
            found.extend(progress(group, facts));
        }
    }
}

fn about(group: &GroupStatus) -> String {
    format!("group {} on {}", group.subscriber, group.stream)
}

/// Whether it is as it should be.
fn condition(group: &GroupStatus, facts: &Facts) -> Option<Finding> {
    let (stream, name) = (group.stream.as_str(), group.subscriber.as_str());
    let (severity, what, proof, fix) = match group.condition {
        Condition::Ok | Condition::Absent => return None,
        Condition::Lost => (
            Weight::Error,
            "it existed and is gone; nothing is read for it",
            facts.proof.known_group(stream, name),
            format!(
                "choose where it goes on: streamfleet group recreate {name} {stream} --from beginning|new|ID"
            ),
        ),
        Condition::Unrouted => (
            Weight::Warning,
            "an orphan: routing.yaml sends it nothing any more, and its stream is kept for it",
            facts.proof.groups(stream),
            format!(
                "streamfleet group retire {name} {stream}; if it still owes something, list it in `retired` first"
            ),
        ),
        Condition::Retired => (
            Weight::Note,
            "routing.yaml lists it as retired; its stream is kept for it until it is dropped",
            facts.proof.groups(stream),
            format!("when it owes nothing any more: streamfleet group retire {name} {stream}"),
        ),
        Condition::Shadow => (
            Weight::Note,
            "a rebuild is under way, or was killed",
            facts.proof.groups(stream),
            format!(
                "if it was killed: streamfleet rebuild --abort {}",
                name.split('@').next().unwrap_or(name)
            ),
        ),
        Condition::Foreign => (
            Weight::Warning,
            "streamfleet did not make it, and does not know who reads it",
            facts.proof.groups(stream),
            "if nobody needs it: XGROUP DESTROY".to_owned(),
        ),
    };
    Some(finding(severity, about(group), what, proof, fix))
}

/// Whether it gets on.
fn progress(group: &GroupStatus, facts: &Facts) -> Vec<Finding> {
    let (stream, name) = (group.stream.as_str(), group.subscriber.as_str());
    let (mut found, patience) = (Vec::new(), facts.patience.as_millis());
    let late = |ms: &u64| u128::from(*ms) > patience;
    if let Some(ms) = group.oldest_waiting_ms.filter(late) {
        found.push(finding(
            Weight::Warning,
            about(group),
            format!("the oldest entry that it has not read is {} old", long(Duration::from_millis(ms))),
            facts.proof.groups(stream),
            match name {
                ROUTER => "look at the router's log; start another router".to_owned(),
                _ => format!("see whether it is paused or too slow: streamfleet status, streamfleet capacity {name}"),
            },
        ));
    }
    let pair = (stream.to_owned(), name.to_owned());
    if let Some(ms) = facts.oldest_ms.get(&pair).copied().filter(late) {
        found.push(finding(
            Weight::Warning,
            about(group),
            format!(
                "the oldest delivery that it has not settled is {} old",
                long(Duration::from_millis(ms))
            ),
            facts.proof.pending(stream, name),
            match name {
                ROUTER => "look at the router's log".to_owned(),
                _ => format!("see who holds it and what it said: streamfleet pending {name}"),
            },
        ));
    }
    if group.waiting.is_none() {
        found.push(finding(
            Weight::Note,
            about(group),
            "Redis cannot tell its lag (entries were deleted within the stream, or it was set to an ID)",
            facts.proof.groups(stream),
            "go by the age of the oldest entry instead, as status shows it; the lag is known again when the group has read everything",
        ));
    }
    found
}

pub(super) fn subscribers(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(snapshot) = &facts.snapshot else {
        return;
    };
    let mut letters = |owner: &str, dead: u64| {
        if dead > 0 {
            found.push(finding(
                Weight::Note,
                format!("dead letters of {owner}"),
                count(dead, "letter"),
                facts.proof.dead(owner),
                format!(
                    "see what they died of: streamfleet dead list --group --subscriber {owner}"
                ),
            ));
        }
    };
    letters(ROUTER, snapshot.router.dead);
    for subscriber in &snapshot.subscribers {
        letters(&subscriber.name, subscriber.dead);
    }
    for subscriber in &snapshot.subscribers {
        let (name, about) = (&subscriber.name, format!("subscriber {}", subscriber.name));
        if subscriber.lost > 0 {
            found.push(finding(
                Weight::Error,
                about.clone(),
                format!("{} of its deliveries were deleted before they were settled", subscriber.lost),
                facts.proof.lost(name),
                "find who deletes or trims entries (XDEL, XTRIM, MAXLEN): streamfleet never does while they are owed",
            ));
        }
        if subscriber.control.paused.is_some() {
            found.push(finding(
                Weight::Note,
                about.clone(),
                "it is paused",
                facts.proof.control(name),
                format!("streamfleet resume {name}"),
            ));
        }
        if subscriber.control.breaker.state != BreakerState::Closed {
            let why = &subscriber.control.breaker.why;
            found.push(finding(
                Weight::Warning,
                about,
                format!("its circuit breaker is not closed: {why}"),
                facts.proof.control(name),
                "repair what it depends on; the breaker closes by itself",
            ));
        }
    }
}
