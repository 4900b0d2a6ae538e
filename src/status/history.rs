//! What history one configuration cuts that another keeps: of streams, dead letters and the audit.
//!
//! Redis: reads lengths, and the oldest entries as far as they would go; writes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::read::{Answers, ask};
use crate::fleet::ROUTER;
use crate::routing::Routing;
use crate::store::{self, Entry, Keys, Link, StoreError};

/// Entries that one call looks over: it must not hold Redis up.
const STEP: usize = 500;
/// Entries that are counted in all.
const MOST: u64 = 10_000;

/// How much of a stream is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    maxlen: Option<u64>,
    retention: Option<Duration>,
}

/// What would be cut of one stream as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The stream, without namespace.
    pub stream: String,
    /// How many entries.
    pub entries: u64,
    /// Whether there are more than were counted.
    pub or_more: bool,
    /// Age of the oldest of them.
    pub oldest_ms: Option<u64>,
}

impl Limits {
    /// Whether it may cut something that `other` keeps.
    fn keeps_less_than(self, other: Self) -> bool {
        let less = |new: Option<u128>, old: Option<u128>| match (new, old) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(new), Some(old)) => new < old,
        };
        let ms = |limits: Self| limits.retention.map(|r| r.as_millis());
        let maxlen = |limits: Self| limits.maxlen.map(u128::from);
        less(ms(self), ms(other)) || less(maxlen(self), maxlen(other))
    }
}

/// What `new` would cut and `old` keeps, of `subscribers`' dead letters too. A group that has not
/// settled an entry still keeps it.
///
/// # Errors
/// Redis could not be asked, or a key is not of the type that it should be.
pub async fn cuts(
    link: &Link,
    keys: &Keys,
    (old, new): (&Routing, &Routing),
    subscribers: &BTreeSet<String>,
) -> Result<Vec<Cut>, StoreError> {
    let now = link
        .run(|mut c| async move { store::time(&mut c).await })
        .await?;
    let now_ms = now.as_millis() as u64;
    let mut cuts = Vec::new();
    for (key, old, new) in kept(keys, old, new, subscribers) {
        if !new.keeps_less_than(old) {
            continue;
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("XLEN").arg(&key);
        pipeline
            .cmd("XRANGE")
            .arg(&key)
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(1);
        let mut answers = Answers(ask(link, pipeline).await?.into_iter());
        let mut read = || Ok((answers.number()?, answers.id()?));
        let (length, oldest) = read().map_err(|e| link.redis().error(e))?;
        let beyond = length.saturating_sub(new.maxlen.unwrap_or(u64::MAX));
        let aged = match (new.retention, oldest) {
            (Some(retention), Some(oldest)) => {
                let keep_ms = now.saturating_sub(retention).as_millis() as u64;
                match oldest.ms < keep_ms {
                    true => older_than(link, &key, keep_ms).await?,
                    false => 0,
                }
            }
            _ => 0,
        };
        let entries = beyond.max(aged);
        if entries > 0 {
            cuts.push(Cut {
                stream: keys.strip(&key).to_owned(),
                entries,
                or_more: aged >= MOST && aged >= beyond,
                oldest_ms: oldest.map(|id| now_ms.saturating_sub(id.ms)),
            });
        }
    }
    Ok(cuts)
}

/// Everything that has limits, by its key, with those of both.
fn kept(
    keys: &Keys,
    old: &Routing,
    new: &Routing,
    subscribers: &BTreeSet<String>,
) -> Vec<(String, Limits, Limits)> {
    let of = |routing: &Routing, name: &str| {
        let found = routing.streams().find(|s| *s.name == *name);
        found.map_or_else(Limits::default, |s| Limits {
            maxlen: s.maxlen,
            retention: s.retention,
        })
    };
    let mut all: Vec<_> = new
        .streams()
        .map(|s| (keys.stream(&s.name), of(old, &s.name), of(new, &s.name)))
        .collect();
    let letters = |routing: &Routing| Limits {
        maxlen: None,
        retention: Some(routing.dead_retention()),
    };
    let names = subscribers.iter().map(String::as_str).chain([ROUTER]);
    all.extend(names.map(|name| (keys.dead(name), letters(old), letters(new))));
    let audit = |routing: &Routing| {
        routing.audit().map_or_else(Limits::default, |a| Limits {
            maxlen: a.maxlen,
            retention: a.retention,
        })
    };
    all.push((keys.audit(), audit(old), audit(new)));
    all
}

/// How many entries are older, up to [`MOST`].
async fn older_than(link: &Link, key: &str, ms: u64) -> Result<u64, StoreError> {
    let (mut from, mut count) = ("-".to_owned(), 0);
    while count < MOST {
        let (start, end) = (from.as_str(), format!("({ms}-0"));
        let entries: Vec<Entry> = link
            .run(|mut c| async move {
                let mut ask = redis::cmd("XRANGE");
                ask.arg(key).arg(start).arg(end).arg("COUNT").arg(STEP);
                ask.query_async(&mut c).await
            })
            .await?;
        count += entries.len() as u64;
        match entries.last() {
            Some(Entry { id, .. }) if entries.len() == STEP => from = id.next().to_string(),
            _ => break,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tighter_limits_cut_what_was_kept() {
        let limits = |maxlen: u64, hours: u64| Limits {
            maxlen: (maxlen > 0).then_some(maxlen),
            retention: (hours > 0).then(|| Duration::from_secs(3_600 * hours)),
        };
        let some = limits(100, 24);
        for (new, cuts) in [
            (some, false),
            (limits(0, 0), false),
            (limits(200, 48), false),
            (limits(99, 24), true),
            (limits(0, 23), true),
            (limits(200, 23), true),
        ] {
            assert_eq!(new.keeps_less_than(some), cuts, "{new:?}");
            assert_eq!(new.keeps_less_than(Limits::default()), new != limits(0, 0));
        }
    }
}
