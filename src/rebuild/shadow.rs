//! The shadow: the group that reads history again.

use std::collections::{BTreeSet, HashMap};

use redis::streams::StreamInfoGroupsReply;

use super::history::{Gap, History};
use super::positions::{At, Pair, Positions};
use crate::failpoint::failpoint;
use crate::fleet::{self, WantedGroup};
use crate::routing::Routing;
use crate::store::{Ensure, EntryId, Keys, Link, StoreError, retire_group};

/// Why a model cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Redis could not be reached, or answered with an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// routing.yaml does not name the subscriber.
    #[error("routing.yaml routes nothing to {0}: there is no model to rebuild")]
    NotSubscribed(String),
    /// The live group is not there.
    #[error(
        "the group {subscriber} on {stream} is not there: start its router or worker once or, if it was lost, \
         see streamfleet group list. Then rebuild"
    )]
    NoGroup {
        /// The subscriber.
        subscriber: String,
        /// The stream.
        stream: String,
    },
    /// Not all of the history is kept, nor in the event store.
    #[error("{}", incomplete(.subscriber, .gaps, .why))]
    Incomplete {
        /// The subscriber.
        subscriber: String,
        /// What is gone from the streams.
        gaps: Vec<Gap>,
        /// Why the event store does not bring it back.
        why: String,
    },
}

fn incomplete(subscriber: &str, gaps: &[Gap], why: &str) -> String {
    let gaps: Vec<_> = gaps.iter().map(ToString::to_string).collect();
    format!(
        "the history of {subscriber} is incomplete, so a model that is rebuilt from it would lack something: {}; \
         and {why}. The live model was not touched. Accept what is kept with --allow-incomplete, or keep the model as it is; \
         for the next time, raise maxlen and retention of these streams in routing.yaml",
        gaps.join("; ")
    )
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            stream,
            missing,
            kept,
            since,
            begun_anew,
        } = self;
        if *begun_anew {
            return write!(
                f,
                "{stream} was deleted and begun anew since the subscriber joined"
            );
        }
        write!(
            f,
            "{missing} of {} entries of {stream} are gone",
            missing + kept
        )?;
        match since {
            Some(since) => write!(f, " (kept is what was routed since {since})"),
            None => Ok(()),
        }
    }
}

/// The domain streams of a subscriber: those of its routes, and those on which it has a group
/// because routing.yaml named them once: what is there is in its model.
///
/// # Errors
/// Redis could not be asked, or nothing is routed to it.
pub async fn streams_of(
    link: &Link,
    keys: &Keys,
    routing: &Routing,
    subscriber: &str,
) -> Result<Vec<(String, EntryId)>, RebuildError> {
    if routing.subscriber(subscriber).is_none() {
        return Err(RebuildError::NotSubscribed(subscriber.to_owned()));
    }
    let joined: HashMap<String, EntryId> = fleet::group_records(link, keys)
        .await?
        .into_iter()
        .filter(|((stream, group), _)| {
            group == subscriber && *stream != Keys::redrive_name(subscriber)
        })
        .map(|((stream, _), record)| (stream, record.joined))
        .collect();
    let routed = routing.streams_of(subscriber).iter().map(|s| s.to_string());
    let all: BTreeSet<String> = routed.chain(joined.keys().cloned()).collect();
    let missing = all.iter().find(|stream| !joined.contains_key(*stream));
    if let Some(stream) = missing {
        return Err(RebuildError::NoGroup {
            subscriber: subscriber.to_owned(),
            stream: stream.clone(),
        });
    }
    Ok(all
        .into_iter()
        .map(|stream| {
            let joined = joined.get(&stream).copied().unwrap_or_default();
            (stream, joined)
        })
        .collect())
}

/// A rebuild under way.
#[derive(Clone)]
pub struct Shadow {
    pub(super) link: Link,
    pub(super) keys: Keys,
    /// The subscriber.
    pub subscriber: String,
    /// Which of its rebuilds this is.
    pub number: u64,
    /// Its group, which is also the prefix of its keys.
    pub group: String,
    /// The domain streams.
    pub streams: Vec<String>,
    /// What was kept of them when it began.
    pub history: History,
}

impl Shadow {
    /// Makes the groups of a new rebuild, at the beginning of each stream.
    ///
    /// # Errors
    /// Redis could not be asked, or a group is not there.
    pub async fn begin(
        link: &Link,
        keys: &Keys,
        routing: &Routing,
        subscriber: &str,
    ) -> Result<Self, RebuildError> {
        let found = streams_of(link, keys, routing, subscriber).await?;
        let mut next = redis::cmd("HINCRBY");
        next.arg(keys.fleet());
        next.arg(Keys::fleet_rebuilds(subscriber)).arg(1);
        let number: u64 = link
            .run(|mut c| async move { next.query_async(&mut c).await })
            .await?;
        let group = Keys::shadow(subscriber, number);
        let lease = routing.subscriber(subscriber).map(|s| s.lease);
        for (stream, _) in &found {
            let wanted = WantedGroup {
                stream: stream.clone(),
                subscriber: group.clone(),
                start: "0".to_owned(),
                lease_ms: lease.unwrap_or_default().as_millis() as u64,
            };
            fleet::ensure_group(link, keys, &wanted, Ensure::Create).await?;
        }
        failpoint!("rebuild.begun");
        // From here on nothing is trimmed.
        let history = History::read(link, keys, &found).await?;
        Ok(Self {
            link: link.clone(),
            keys: keys.clone(),
            subscriber: subscriber.to_owned(),
            number,
            group,
            streams: found.into_iter().map(|(stream, _)| stream).collect(),
            history,
        })
    }

    /// How many events that were brought back from the event store have yet to be settled; nothing while
    /// they are still being brought.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn restoring(&self) -> Result<Option<u64>, StoreError> {
        let (keys, name) = (&self.keys, Keys::restored_name(&self.group));
        let records = fleet::group_records(&self.link, keys).await?;
        if !records.contains_key(&(name.clone(), self.group.clone())) {
            return Ok(None);
        }
        let mut ask = redis::cmd("XINFO");
        ask.arg("GROUPS").arg(keys.stream(&name));
        let groups: StreamInfoGroupsReply = self
            .link
            .run(|mut c| async move { ask.query_async(&mut c).await })
            .await?;
        let at = At::find(&groups, &self.group).map_err(|e| self.link.redis().error(e))?;
        Ok(at.and_then(|at| Some(at.lag? + at.pending)))
    }

    /// Ends that: what is in the streams comes next. Answers how many events it were. They stay until
    /// the switch, which must know which they were.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn end_restoring(&self) -> Result<u64, StoreError> {
        let name = Keys::restored_name(&self.group);
        let holder = fleet::holder(&self.keys, &name, &self.group, "");
        let (holder, fleet) = (&holder, self.keys.fleet());
        let field = Keys::fleet_group(&name, &self.group);
        self.link
            .run(|mut c| async move { retire_group(&mut c, &fleet, holder, &field, false).await })
            .await?;
        failpoint!("rebuild.restored");
        let mut count = redis::cmd("XLEN");
        count.arg(self.keys.stream(&name));
        self.link
            .run(|mut c| async move { count.query_async(&mut c).await })
            .await
    }

    /// How far both groups have come, all at one moment.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn positions(&self) -> Result<Positions, StoreError> {
        let (keys, mut ask) = (&self.keys, redis::pipe());
        ask.atomic();
        let redrive = Keys::redrive_name(&self.subscriber);
        for stream in self.streams.iter().chain([&redrive]) {
            ask.cmd("XINFO").arg("GROUPS").arg(keys.stream(stream));
        }
        let groups = self.link.run(|mut c| {
            let ask = &ask;
            async move { ask.query_async::<Vec<StreamInfoGroupsReply>>(&mut c).await }
        });
        let groups = groups.await?;
        let mut troubled = redis::pipe();
        for stream in &self.streams {
            let attempts = keys.attempts(stream, &self.group);
            troubled.cmd("HLEN").arg(attempts);
        }
        let troubled: Vec<u64> = self
            .link
            .run(|mut c| async move { troubled.query_async(&mut c).await })
            .await?;
        let find = |reply: &StreamInfoGroupsReply, group: &str| {
            At::find(reply, group).map_err(|e| self.link.redis().error(e))
        };
        let pairs = self.streams.iter().zip(&groups).map(|(stream, reply)| {
            Ok(Pair {
                stream: stream.clone(),
                live: find(reply, &self.subscriber)?,
                shadow: find(reply, &self.group)?,
            })
        });
        let pairs: Result<_, StoreError> = pairs.collect();
        let redrive = groups.last().map(|reply| find(reply, &self.subscriber));
        Ok(Positions {
            pairs: pairs?,
            redrive: redrive.transpose()?.flatten(),
            troubled: troubled.iter().sum(),
        })
    }
}
