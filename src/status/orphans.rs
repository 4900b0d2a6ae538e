//! Whom a configuration leaves behind: subscribers that it neither routes to nor retires, and that
//! have not settled everything. Pure.
//!
//! Nothing of theirs is lost, because a group stays, and holds trimming back, until an operator drops
//! it. But no worker of theirs can be started any more, so that what they owe is done by nobody.

use std::fmt;

use serde::Serialize;

use super::{Condition, Snapshot};
use crate::routing::Routing;

/// A subscriber that is left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its name.
    pub subscriber: String,
    /// By stream, where it owes anything.
    pub owes: Vec<Owed>,
}

/// What a subscriber owes on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owed {
    /// The stream, without namespace.
    pub stream: String,
    /// Entries it has not read; unknown where Redis cannot tell.
    pub waiting: Option<u64>,
    /// Deliveries that it has begun and not settled.
    pub pending: u64,
    /// Those of them that wait for their next attempt.
    pub retrying: u64,
}

/// Everyone whom `routing` leaves behind, by a snapshot that was taken with it.
pub fn orphans(snapshot: &Snapshot, routing: &Routing) -> Vec<Orphan> {
    let mut orphans: Vec<Orphan> = Vec::new();
    for group in &snapshot.groups {
        let left = group.condition == Condition::Unrouted && group.owes() != Some(0);
        // Whoever has workers settles also what it owes on streams that it reads no more.
        if !left || routing.served(&group.subscriber).is_some() {
            continue;
        }
        let owed = Owed {
            stream: group.stream.clone(),
            waiting: group.waiting,
            pending: group.pending(),
            retrying: group.retrying,
        };
        match orphans
            .iter_mut()
            .find(|o| o.subscriber == group.subscriber)
        {
            Some(orphan) => orphan.owes.push(owed),
            None => orphans.push(Orphan {
                subscriber: group.subscriber.clone(),
                owes: vec![owed],
            }),
        }
    }
    orphans
}

impl fmt::Display for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stream,
            pending,
            retrying,
            ..
        } = self;
        match self.waiting {
            Some(waiting) => write!(f, "{} on {stream} ({waiting} not read", waiting + pending)?,
            None => write!(f, "an unknown number on {stream} (some not read")?,
        }
        if *pending > 0 {
            write!(f, ", {pending} begun")?;
        }
        if *retrying > 0 {
            write!(f, ", {retrying} of them to be tried again")?;
        }
        f.write_str(")")
    }
}

/// What it owes and what to do.
impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owes: Vec<_> = self.owes.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{name} is in no route any more and has not settled its entries: {}. Put it back; or list it in `retired: \
             [{name}]`, so that it gets nothing new and settles these",
            owes.join(", "),
            name = self.subscriber
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_told_with_what_to_do() {
        let owed = |stream: &str, waiting, pending, retrying| Owed {
            stream: stream.into(),
            waiting,
            pending,
            retrying,
        };
        let orphan = Orphan {
            subscriber: "a-service".into(),
            owes: vec![
                owed("a-events", Some(3), 2, 1),
                owed("b-events", None, 0, 0),
            ],
        };
        let text = orphan.to_string();
        assert!(
            text.contains("5 on a-events (3 not read, 2 begun, 1 of them to be tried again), an"),
            "{text}"
        );
        assert!(
            text.contains("an unknown number on b-events (some not read)."),
            "{text}"
        );
        assert!(text.contains("`retired: [a-service]`"), "{text}");
    }
}
