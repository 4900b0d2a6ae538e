//! What is observed: counters and lengths of the streams, taken again and again for a while.
//!
//! Redis: XINFO GROUPS, XLEN and the counters of the stream, and the consumers of each group.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::super::{CommandError, Session};

/// How often it is looked in between.
const EVERY: Duration = Duration::from_millis(200);

/// One look at one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// Entries that were ever added to its streams.
    pub(super) added: u64,
    /// Entries that it has not read.
    pub(super) waiting: u64,
    /// Entries that it has read and not settled, those that wait for a retry left out.
    pub(super) held: u64,
    /// Entries that wait for a retry, or were given back.
    pub(super) parked: u64,
}

/// What was seen of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// Seconds that it was looked at.
    pub(super) seconds: f64,
    /// Entries that came.
    pub(super) arrived: f64,
    /// Entries that it settled.
    pub(super) settled: f64,
    /// On average.
    pub(super) waiting: f64,
    pub(super) held: f64,
}

/// Looks at the groups of these subscribers for a while.
pub(super) async fn observe(
    session: &Session,
    subscribers: &[&str],
    how_long: Duration,
) -> Result<BTreeMap<String, Observed>, CommandError> {
    let (began, mut looks) = (Instant::now(), Vec::new());
    loop {
        looks.push((Instant::now(), look(session, subscribers).await?));
        let left = how_long.saturating_sub(began.elapsed());
        if left.is_zero() && looks.len() > 1 {
            break;
        }
        tokio::time::sleep(left.min(EVERY)).await;
    }
    let of = |name: &&str| {
        let of = looks
            .iter()
            .map(|(at, all)| (*at - began, all.get(*name).copied().unwrap_or_default()));
        ((*name).to_owned(), summed(&of.collect::<Vec<_>>()))
    };
    Ok(subscribers.iter().map(of).collect())
}

/// From the first look to the last.
fn summed(looks: &[(Duration, Look)]) -> Observed {
    let (Some((from, first)), Some((to, last))) = (looks.first(), looks.last()) else {
        return Observed::default();
    };
    let owed = |look: &Look| (look.waiting + look.held + look.parked) as f64;
    let arrived = last.added.saturating_sub(first.added) as f64;
    let mean = |of: fn(&Look) -> u64| {
        looks.iter().map(|(_, look)| of(look) as f64).sum::<f64>() / looks.len() as f64
    };
    Observed {
        seconds: (*to - *from).as_secs_f64(),
        arrived,
        // What came, and was there before, and is not there any more.
        settled: (owed(first) + arrived - owed(last)).max(0.0),
        waiting: mean(|look| look.waiting),
        held: mean(|look| look.held),
    }
}

async fn look(
    session: &Session,
    subscribers: &[&str],
) -> Result<BTreeMap<String, Look>, CommandError> {
    let routing = &session.config.routing;
    let mut ask = redis::pipe();
    ask.atomic();
    let mut of = Vec::new();
    for name in subscribers {
        for stream in routing.streams_of(name) {
            let key = session.keys.stream(stream);
            ask.cmd("XINFO").arg("STREAM").arg(&key);
            ask.cmd("XINFO").arg("GROUPS").arg(&key);
            ask.cmd("XINFO").arg("CONSUMERS").arg(&key).arg(*name);
            of.push((*name).to_owned());
        }
    }
    if of.is_empty() {
        return Ok(BTreeMap::new());
    }
    ask.ignore_errors();
    let answers: Vec<Value> = session
        .link
        .run(|mut c| async move { ask.query_async(&mut c).await })
        .await?;
    let mut looks: BTreeMap<String, Look> = BTreeMap::new();
    for (name, answers) in of.into_iter().zip(answers.chunks(3)) {
        // Of a stream or group that is not there yet, nothing comes and nothing waits.
        let [stream, groups, consumers] = answers else {
            continue;
        };
        let look = looks.entry(name.clone()).or_default();
        look.added += number(&map(stream), "entries-added").unwrap_or(0);
        let group = list(groups).into_iter().find(|group| {
            group
                .get("name")
                .and_then(|n| String::from_redis_value(n.clone()).ok())
                == Some(name.clone())
        });
        look.waiting += group.and_then(|group| number(&group, "lag")).unwrap_or(0);
        for consumer in list(consumers) {
            let pending = number(&consumer, "pending").unwrap_or(0);
            let of = consumer.get("name").cloned().unwrap_or(Value::Nil);
            match String::from_redis_value(of).as_deref() {
                Ok(crate::store::RETRY | crate::store::RELEASED) => look.parked += pending,
                _ => look.held += pending,
            }
        }
    }
    Ok(looks)
}

type Fields = BTreeMap<String, Value>;

fn map(value: &Value) -> Fields {
    Fields::from_redis_value(value.clone()).unwrap_or_default()
}

fn list(value: &Value) -> Vec<Fields> {
    Vec::from_redis_value(value.clone()).unwrap_or_default()
}

fn number(fields: &Fields, name: &str) -> Option<u64> {
    u64::from_redis_value(fields.get(name)?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_is_not_there_was_settled() {
        let look = |added, waiting, held, parked| Look {
            added,
            waiting,
            held,
            parked,
        };
        let s = Duration::from_secs;
        let observed = summed(&[
            (s(0), look(100, 10, 4, 1)),
            (s(1), look(130, 20, 4, 1)),
            (s(2), look(160, 30, 4, 2)),
        ]);
        let expected = Observed {
            seconds: 2.0,
            arrived: 60.0,
            settled: 39.0,
            waiting: 20.0,
            held: 4.0,
        };
        assert_eq!(observed, expected);
        assert_eq!(summed(&[]), Observed::default());
    }
}
