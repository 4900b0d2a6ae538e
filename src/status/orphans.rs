//! Whom a configuration leaves behind: subscribers that it neither routes to nor retires, and that
//! have not settled everything.
//!
//! Redis: reads `fleet`, and the streams and groups of those subscribers; writes nothing.
//!
//! Nothing of theirs is lost, because a group stays, and holds trimming back, until an operator drops
//! it. But no worker of theirs can be started any more, so that what they owe is done by nobody.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::read::{Answers, Names, ask};
use super::{Condition, Found, GroupStatus, details};
use crate::fleet::{self, ROUTER};
use crate::routing::Routing;
use crate::store::{Keys, Link, StoreError};

/// A subscriber that is left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its name.
    pub subscriber: String,
    /// By stream, where it owes anything.
    pub owes: Vec<Debt>,
}

/// What a subscriber owes on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Debt {
    /// The stream, without namespace.
    pub stream: String,
    /// Entries it has not read; unknown where Redis cannot tell.
    pub waiting: Option<u64>,
    /// Deliveries that it has begun and not settled.
    pub pending: u64,
    /// Those of them that wait for their next attempt.
    pub retrying: u64,
}

/// Everyone whom `routing` leaves behind now. Costs no look at the key space: processes ask.
///
/// # Errors
/// Redis could not be asked, or a key is not of the type that it should be.
pub async fn left_behind(
    link: &Link,
    keys: &Keys,
    routing: &Routing,
) -> Result<Vec<Orphan>, StoreError> {
    let records = fleet::group_records(link, keys).await?;
    let dropped = |name: &str| {
        name != ROUTER && Keys::shadow_of(name).is_none() && routing.served(name).is_none()
    };
    let pairs: BTreeSet<_> = records
        .into_keys()
        .filter(|(_, who)| dropped(who))
        .collect();
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let names = Names {
        streams: pairs.iter().map(|(stream, _)| stream.clone()).collect(),
        subscribers: BTreeSet::new(),
    };
    let answers = ask(link, names.pipeline(keys)).await?;
    let read = names.read(Answers(answers.into_iter()));
    let read = read.map_err(|e| link.redis().error(e))?;
    let found = |pair: (String, String)| -> Option<Found> {
        let at = *read.streams.get(&pair.0)?.groups.get(&pair.1)?;
        Some((pair, Condition::Unrouted, Some(at)))
    };
    let groups = pairs.into_iter().filter_map(found).collect();
    Ok(orphans(&details(link, keys, &read, groups).await?, routing))
}

/// Everyone whom `routing` leaves behind, of groups whose condition was told by it.
pub fn orphans(groups: &[GroupStatus], routing: &Routing) -> Vec<Orphan> {
    let mut orphans: Vec<Orphan> = Vec::new();
    for group in groups {
        let left = group.condition == Condition::Unrouted && group.owes() != Some(0);
        // Whoever has workers settles also what it owes on streams that it reads no more.
        if !left || routing.served(&group.subscriber).is_some() {
            continue;
        }
        let owed = Debt {
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

impl fmt::Display for Debt {
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
             [{name}]`: it gets nothing new, its workers settle these, and its groups stay until streamfleet group \
             retire {name}",
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
        let owed = |stream: &str, waiting, pending, retrying| Debt {
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
