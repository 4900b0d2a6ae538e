//! What is observed: counters and lengths of the streams, taken again and again for a while.
//!
//! Redis: XINFO STREAM and GROUPS of each stream, and the consumers of each group.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::RedisError;
use tokio::time::Instant;

use super::super::{CommandError, Session};
use crate::status::{Answers, ask, deletes_settled};
use crate::store::{ConsumerInfo, GroupPositions, Held, Position, StreamInfo};

/// How often it is looked in between.
const EVERY: Duration = Duration::from_millis(200);

/// A stream, and a group on it.
pub(super) type Pair = (String, String);

/// One look at one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// Entries that were ever added to its stream.
    pub(super) added: u64,
    /// Entries that it has not read; unknown where Redis cannot tell.
    pub(super) waiting: Option<u64>,
    /// Entries that it has read and not settled, those that wait for a retry left out.
    pub(super) held: u64,
    /// Entries that wait for a retry, or were given back.
    pub(super) parked: u64,
}

/// What was seen of one subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// Seconds that it was looked at.
    pub(super) seconds: f64,
    /// Entries that came.
    pub(super) arrived: f64,
    /// Entries that it settled; unknown if it is not known what waits.
    pub(super) settled: Option<f64>,
    /// On average; unknown where Redis could not tell once.
    pub(super) waiting: Option<f64>,
    pub(super) held: f64,
}

/// Looks at groups for a while; what was seen, by subscriber.
pub(super) async fn observe(
    session: &Session,
    pairs: &[Pair],
    how_long: Duration,
) -> Result<BTreeMap<String, Observed>, CommandError> {
    let (began, mut looks) = (Instant::now(), vec![Vec::new(); pairs.len()]);
    let mut last = began;
    for turn in 0_u64.. {
        let all = look(session, pairs).await?;
        last = Instant::now();
        for (looks, look) in looks.iter_mut().zip(all) {
            looks.extend(look);
        }
        let left = how_long.saturating_sub(began.elapsed());
        if left.is_zero() && turn > 0 {
            break;
        }
        tokio::time::sleep(left.min(EVERY)).await;
    }
    let seconds = (last - began).as_secs_f64();
    let mut seen: BTreeMap<String, Observed> = BTreeMap::new();
    for ((_, subscriber), looks) in pairs.iter().zip(&looks) {
        let of = summed(looks, seconds);
        let known = seen.remove(subscriber);
        let together = known.map_or(of, |known| known.and(of));
        seen.insert(subscriber.clone(), together);
    }
    Ok(seen)
}

impl Observed {
    /// Both groups of a subscriber together.
    fn and(self, other: Self) -> Self {
        let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        Self {
            seconds: self.seconds,
            arrived: self.arrived + other.arrived,
            settled: sum(self.settled, other.settled),
            waiting: sum(self.waiting, other.waiting),
            held: self.held + other.held,
        }
    }
}

/// From the first look at a group to the last. Of one that is not there nothing comes and nothing waits.
fn summed(looks: &[Look], seconds: f64) -> Observed {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return Observed {
            seconds,
            settled: Some(0.0),
            waiting: Some(0.0),
            ..Observed::default()
        };
    };
    let owed = |look: &Look| Some((look.waiting? + look.held + look.parked) as f64);
    let arrived = last.added.saturating_sub(first.added) as f64;
    let count = looks.len() as f64;
    let waiting: Option<f64> = looks.iter().map(|look| Some(look.waiting? as f64)).sum();
    let settled = owed(first)
        .zip(owed(last))
        // What came, and was there before, and is not there any more.
        .map(|(before, after)| (before + arrived - after).max(0.0));
    Observed {
        seconds,
        arrived,
        settled,
        waiting: waiting.map(|sum| sum / count),
        held: looks.iter().map(|look| look.held as f64).sum::<f64>() / count,
    }
}

/// One look at each; nothing for a group that is not there.
async fn look(session: &Session, pairs: &[Pair]) -> Result<Vec<Option<Look>>, CommandError> {
    let mut questions = redis::pipe();
    if !pairs.is_empty() {
        questions.atomic();
    }
    for (stream, subscriber) in pairs {
        let key = session.keys.stream(stream);
        questions.cmd("XINFO").arg("STREAM").arg(&key);
        questions.cmd("XINFO").arg("GROUPS").arg(&key);
        questions.cmd("XINFO").arg("CONSUMERS").arg(&key);
        questions.arg(subscriber);
    }
    let answers = ask(&session.link, questions).await?;
    let mut answers = Answers(answers.into_iter());
    let looks = pairs.iter().map(|pair| read(pair, &mut answers));
    let looks: Result<_, RedisError> = looks.collect();
    Ok(looks.map_err(|error| session.link.redis().error(error))?)
}

fn read(pair: &Pair, answers: &mut Answers) -> Result<Option<Look>, RedisError> {
    let (stream, subscriber) = pair;
    let info: Option<StreamInfo> = answers.take()?;
    let groups: Option<GroupPositions> = answers.take()?;
    let consumers: Option<Vec<ConsumerInfo>> = answers.take()?;
    let at = groups.and_then(|groups| groups.0.get(subscriber).copied());
    let (Some(info), Some(at)) = (info, at) else {
        return Ok(None);
    };
    let held = Held::by(&consumers.unwrap_or_default());
    Ok(Some(Look {
        added: info.added,
        waiting: waiting(&info, at, deletes_settled(stream, subscriber)),
        held: held.in_flight,
        parked: held.retrying + held.released,
    }))
}

fn waiting(info: &StreamInfo, at: Position, deletes_settled: bool) -> Option<u64> {
    match at.lag {
        _ if info.length == 0 || at.delivered >= info.last => Some(0),
        _ if deletes_settled => Some(info.length.saturating_sub(at.pending)),
        lag => lag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EntryId;

    #[test]
    fn what_came_and_is_not_there_was_settled() {
        let look = |added, waiting, held, parked| Look {
            added,
            waiting,
            held,
            parked,
        };
        let looks = [
            look(100, Some(10), 4, 1),
            look(130, Some(20), 4, 1),
            look(160, Some(30), 4, 2),
        ];
        let expected = Observed {
            seconds: 2.0,
            arrived: 60.0,
            settled: Some(39.0),
            waiting: Some(20.0),
            held: 4.0,
        };
        assert_eq!(summed(&looks, 2.0), expected);
        let not_there = summed(&[], 2.0);
        assert_eq!((not_there.arrived, not_there.settled), (0.0, Some(0.0)));
        assert_eq!(expected.and(expected).settled, Some(78.0));

        // What Redis cannot tell is not nothing.
        let unknown = summed(&[looks[0], look(160, None, 4, 2)], 2.0);
        assert_eq!((unknown.settled, unknown.waiting), (None, None));
        assert_eq!((unknown.arrived, unknown.held), (60.0, 4.0));
        assert_eq!(expected.and(unknown).waiting, None);
    }

    #[test]
    fn what_is_surely_read_needs_no_lag() {
        let id = |ms| EntryId { ms, seq: 0 };
        let info = StreamInfo {
            length: 5,
            added: 9,
            last: id(9),
            first: Some(id(5)),
        };
        let at = |delivered, lag| Position {
            pending: 2,
            delivered: id(delivered),
            lag,
        };
        assert_eq!(waiting(&info, at(9, None), false), Some(0));
        assert_eq!(waiting(&info, at(7, None), false), None);
        assert_eq!(waiting(&info, at(7, Some(2)), false), Some(2));
        assert_eq!(waiting(&info, at(7, None), true), Some(3));
    }
}
