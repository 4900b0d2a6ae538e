//! How far the live group and its shadow have come: pure, but for reading it.

use redis::streams::{StreamInfoGroup, StreamInfoGroupsReply};
use redis::{FromRedisValue, RedisError, Value};

use crate::store::EntryId;

/// How far a group has come on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The last entry that it was handed.
    pub delivered: EntryId,
    /// Deliveries that it has not settled.
    pub pending: u64,
    /// How many entries it was handed, where Redis knows.
    pub read: Option<u64>,
    /// How many it was not handed yet, where Redis knows.
    pub lag: Option<u64>,
}

impl At {
    fn parse(group: StreamInfoGroup) -> Result<Self, RedisError> {
        let number = |n: Option<usize>| n.and_then(|n| u64::try_from(n).ok());
        Ok(Self {
            delivered: EntryId::from_redis_value(Value::SimpleString(group.last_delivered_id))?,
            pending: group.pending as u64,
            read: number(group.entries_read),
            lag: number(group.lag),
        })
    }

    /// Finds a group in what XINFO GROUPS says.
    pub(super) fn find(
        reply: &StreamInfoGroupsReply,
        group: &str,
    ) -> Result<Option<Self>, RedisError> {
        let found = reply.groups.iter().find(|g| g.name == group);
        found.cloned().map(Self::parse).transpose()
    }
}

/// Both groups on one stream; nothing for one that is not there.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The stream, without namespace.
    pub stream: String,
    /// The live group.
    pub live: Option<At>,
    /// The shadow.
    pub shadow: Option<At>,
}

impl Pair {
    /// How many entries the live group has been handed and the shadow has not; nothing if Redis
    /// cannot tell.
    fn behind(&self) -> Option<u64> {
        let (live, shadow) = (self.live?, self.shadow?);
        // (Nothing is left to read, though the live group be said to be further: it was set to a time.)
        if shadow.delivered >= live.delivered || shadow.lag == Some(0) {
            return Some(0);
        }
        // One at least, whatever was deleted in between.
        Some(shadow.lag?.saturating_sub(live.lag?).max(1))
    }
}

/// All streams at one moment.
#[derive(Clone, Debug)]
pub struct Positions {
    /// The domain streams.
    pub pairs: Vec<Pair>,
    /// The live group on its redrive stream.
    pub redrive: Option<At>,
    /// Deliveries of the shadow that failed and are to be tried again.
    pub troubled: u64,
}

impl Positions {
    /// How many entries the shadow is behind the live group; nothing if Redis cannot tell.
    pub fn behind(&self) -> Option<u64> {
        self.pairs.iter().map(Pair::behind).sum()
    }

    /// How many entries the shadow has read, and of how many; nothing where Redis cannot tell.
    pub fn progress(&self) -> (u64, Option<u64>) {
        let read = |pair: &Pair| pair.shadow.and_then(|at| at.read);
        let done = self.pairs.iter().filter_map(read).sum();
        let all = self.pairs.iter().map(|pair| {
            let at = pair.shadow?;
            Some(at.read? + at.lag?)
        });
        (done, all.sum())
    }

    /// Whether a group is missing, and on which stream; live ones first.
    pub fn missing(&self) -> Option<(&str, bool)> {
        let live = self.pairs.iter().find(|pair| pair.live.is_none());
        let shadow = self.pairs.iter().find(|pair| pair.shadow.is_none());
        live.map(|pair| (pair.stream.as_str(), true))
            .or_else(|| shadow.map(|pair| (pair.stream.as_str(), false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, read: Option<u64>, lag: Option<u64>) -> Option<At> {
        let delivered = EntryId { ms, seq: 0 };
        Some(At {
            delivered,
            pending: 0,
            read,
            lag,
        })
    }

    fn positions(pairs: &[(Option<At>, Option<At>)]) -> Positions {
        let pair = |&(live, shadow): &(Option<At>, Option<At>)| Pair {
            stream: "s".into(),
            live,
            shadow,
        };
        Positions {
            pairs: pairs.iter().map(pair).collect(),
            redrive: None,
            troubled: 0,
        }
    }

    #[test]
    fn behind_is_what_the_live_group_has_and_the_shadow_has_not() {
        let live = at(100, Some(90), Some(10));
        let cases = [
            (at(50, Some(40), Some(60)), Some(50)),
            (at(100, Some(90), Some(10)), Some(0)),
            (at(120, Some(95), Some(5)), Some(0)),
            // Redis does not count any more: something was deleted.
            (at(99, None, None), None),
            (at(100, None, None), Some(0)),
            // There is nothing more to read.
            (at(99, Some(89), Some(0)), Some(0)),
            (None, None),
        ];
        for (shadow, behind) in cases {
            assert_eq!(positions(&[(live, shadow)]).behind(), behind, "{shadow:?}");
        }
        let two = positions(&[
            (live, at(50, Some(40), Some(60))),
            (live, at(10, Some(1), Some(99))),
        ]);
        assert_eq!(two.behind(), Some(139));
        assert_eq!(two.progress(), (41, Some(200)));
        assert_eq!(positions(&[]).behind(), Some(0));
    }

    #[test]
    fn a_missing_group_is_named() {
        let here = at(1, None, None);
        assert_eq!(positions(&[(here, here)]).missing(), None);
        assert_eq!(positions(&[(here, None)]).missing(), Some(("s", false)));
        let both = positions(&[(here, None), (None, here)]);
        assert_eq!(both.missing(), Some(("s", true)));
    }
}
