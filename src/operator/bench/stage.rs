//! One measured run: the data is laid out, the processes of one side work on it, and what they
//! did is counted afterwards. Nothing else runs meanwhile but a look every [`LOOK`].

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redis::Value;
use serde::Serialize;
use tokio::time::sleep;

use super::super::CommandError;
use super::cast::{PRODUCER, WORKER};
use super::latency::Latency;
use super::place::Place;
use super::process::{Player, ProcessFigures, any_end};
use super::redis_figures::{RedisCost, RedisFigures};
use super::roles::{Kind, fails};
use super::workload::{STREAM, Workload, subscribers};
use crate::fleet::ROUTER;
use crate::store::EntryId;

/// How often it is looked whether the work is done.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// When nothing has moved for so long, something is wrong.
const STALLED: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Producer to inbox.
    Publish,
    /// Inbox to domain stream.
    Route,
    /// Domain stream to handled.
    Handle,
    /// All at once, as fast as it goes.
    EndToEnd,
    /// All at once, at a fixed rate.
    Latency,
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Route => "route",
            Self::Handle => "handle",
            Self::EndToEnd => "end-to-end",
            Self::Latency => "latency",
        }
    }

    fn publishes(self) -> bool {
        matches!(self, Self::Publish | Self::EndToEnd | Self::Latency)
    }
    fn routes(self) -> bool {
        matches!(self, Self::Route | Self::EndToEnd | Self::Latency)
    }
    /// Whether handlers meet events that were just sent.
    pub(super) fn handles_fresh(self) -> bool {
        matches!(self, Self::EndToEnd | Self::Latency)
    }
    fn handles(self) -> bool {
        matches!(self, Self::Handle | Self::EndToEnd | Self::Latency)
    }
}

/// Whose processes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Side {
    Ours,
    Floor,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) stage: Stage,
    pub(super) kind: Option<Kind>,
}

/// What a run is made of.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Scale {
    pub(super) events: u64,
    pub(super) event_bytes: u64,
    pub(super) types: u64,
    pub(super) subscribers: u64,
    pub(super) workers: u64,
    pub(super) routers: u64,
    pub(super) concurrency: u64,
    /// That the handlers of a worker run on.
    pub(super) threads: u16,
    /// Entries that every group has settled before, in the stage `handle`.
    pub(super) history: u64,
    /// Deliveries of each group that wait for a retry meanwhile, in the stage `handle`.
    pub(super) waiting: u64,
    pub(super) maxlen: Option<u64>,
    pub(super) inbox_limit: Option<u64>,
    pub(super) failures_per_million: u64,
    pub(super) rate: u64,
    pub(super) rate_seconds: u64,
}

/// What one run showed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) stage: Stage,
    pub(super) handler: Option<Kind>,
    pub(super) side: Side,
    /// Events; of the stage `handle`, deliveries.
    pub(super) events: u64,
    pub(super) seconds: f64,
    pub(super) redis: RedisCost,
    pub(super) processes: Vec<ProcessFigures>,
    /// From when an event was meant to be sent to the start of its handler.
    pub(super) latency: Option<Latency>,
    /// The same to the answer of its XADD.
    pub(super) publish_latency: Option<Latency>,
}

/// Runs samples in one place.
pub(super) struct Bench<'a> {
    pub(super) place: &'a Place,
    pub(super) scale: Scale,
    pub(super) workload: Workload,
    pub(super) recipients: String,
    pub(super) router: PathBuf,
    pub(super) me: PathBuf,
    pub(super) config: PathBuf,
    pub(super) folder: &'a Path,
}

/// A stream and its groups that must have settled everything up to an entry.
struct Owed {
    stream: String,
    groups: Vec<String>,
    last: EntryId,
    /// What stays pending in each of them.
    waiting: u64,
}

impl Bench<'_> {
    /// Measures a job once.
    pub(super) async fn sample(&self, job: Job, side: Side) -> Result<Sample, CommandError> {
        let Job { stage, kind } = job;
        self.place.clear().await?;
        let events = match stage {
            Stage::Latency => self.scale.rate * self.scale.rate_seconds,
            _ => self.scale.events,
        };
        // A second of the fixed rate comes first: the first events of a process are not typical.
        let warm_up = if stage == Stage::Latency {
            self.scale.rate
        } else {
            0
        };
        if stage == Stage::Handle {
            // Other events than those that count: numbers begin behind theirs.
            self.fill_stream(events..events + self.scale.history)
                .await?;
        }
        if side == Side::Floor || self.begun(stage) {
            self.place.create_groups(&self.subscribers()).await?;
        }
        match stage {
            Stage::Route => self.place.fill_inbox(&self.workload, events).await?,
            Stage::Handle => {
                let from = events + self.scale.history;
                self.fill_stream(from..from + self.scale.waiting).await?;
                for subscriber in self.subscribers() {
                    self.place.park(&subscriber, self.scale.waiting).await?;
                }
                self.fill_stream(0..events).await?;
            }
            _ => {}
        }
        let mut before = RedisFigures::read(&self.place.link).await?;
        let mut players = Vec::new();
        if stage.routes() {
            for _ in 0..self.scale.routers {
                players.push(self.router(side)?);
            }
        }
        if stage.handles() {
            for subscriber in self.subscribers() {
                for _ in 0..self.scale.workers {
                    let at = players.len();
                    players.push(self.worker(job, side, &subscriber, at)?);
                }
            }
        }
        let mut ready = Vec::new();
        for player in &mut players {
            ready.push(player.ready().await?);
        }
        if stage.publishes() {
            // What the others needed to start is not part of it.
            before = RedisFigures::read(&self.place.link).await?;
            players.iter_mut().for_each(Player::mark_start);
            let mut producer = self.producer(stage, side, events, warm_up)?;
            ready = vec![producer.ready().await?];
            players.push(producer);
        }
        // The first to be ready begins at once.
        let start = ready.into_iter().min().unwrap_or_else(Instant::now);
        let mut seconds = None;
        if stage.publishes()
            && let Some(producer) = players.last_mut()
        {
            let sent = producer.done().await?;
            seconds = (stage == Stage::Publish).then_some(sent.as_secs_f64());
        }
        self.settled(job, &mut players).await?;
        let seconds = seconds.unwrap_or_else(|| start.elapsed().as_secs_f64());
        let after = RedisFigures::read(&self.place.link).await?;
        players.iter_mut().for_each(Player::mark_end);

        let (mut processes, mut counted, mut published) = (Vec::new(), None, None);
        for player in players {
            let (figures, this) = player.stop().await?;
            match figures.role {
                PRODUCER => published = this.latency()?,
                WORKER => counted
                    .get_or_insert_with(super::latency::Counted::default)
                    .add(this),
                _ => {}
            }
            processes.push(figures);
        }
        let all = events + warm_up;
        self.place
            .verify(self, job, side, all, counted.as_ref())
            .await?;
        let deliveries = if stage == Stage::Handle {
            self.scale.subscribers
        } else {
            1
        };
        Ok(Sample {
            stage,
            handler: kind,
            side,
            events: all * deliveries,
            seconds,
            redis: after.since(&before, if stage.publishes() { all } else { 0 }),
            processes,
            latency: counted.map_or(Ok(None), |c| c.latency())?,
            publish_latency: published,
        })
    }

    pub(super) fn subscribers(&self) -> Vec<String> {
        subscribers(self.scale.subscribers)
    }

    /// Puts the events of those numbers into the domain stream.
    async fn fill_stream(&self, numbers: Range<u64>) -> Result<(), CommandError> {
        let place = self.place;
        place
            .fill_stream(&self.workload, numbers, &self.recipients)
            .await
    }

    /// Whether the groups have a past, and so are not created by who reads them first.
    fn begun(&self, stage: Stage) -> bool {
        stage == Stage::Handle && self.past() > 0
    }

    /// Entries that come before those that count.
    fn past(&self) -> u64 {
        self.scale.history + self.scale.waiting
    }

    /// How many entries the domain stream has had when the stage is done.
    pub(super) fn entries(&self, stage: Stage, events: u64) -> u64 {
        match stage {
            Stage::Handle => self.past() + events,
            _ => events,
        }
    }

    /// How many of so many events fail once.
    pub(super) fn failures(&self, events: u64) -> u64 {
        let share = self.scale.failures_per_million;
        (0..events).filter(|n| fails(*n, share)).count() as u64
    }

    /// Waits until everything is done that the stage does.
    async fn settled(&self, job: Job, players: &mut [Player]) -> Result<(), CommandError> {
        let Job { stage, kind } = job;
        let mut wanted = Vec::new();
        if stage.routes() {
            wanted.push((self.place.keys.inbox(), vec![ROUTER.to_owned()]));
        }
        if stage.handles() {
            wanted.push((self.place.keys.stream(STREAM), self.subscribers()));
        }
        if stage.routes() && stage.handles() && kind == Some(Kind::FollowUp) {
            wanted.push((self.place.keys.inbox(), vec![ROUTER.to_owned()]));
        }
        for (stream, groups) in wanted {
            // One after the other: what is last in a stream was written by who reads the one before.
            let last = self.place.last_id(&stream).await?;
            let owed = Owed {
                stream,
                groups,
                last,
                waiting: if stage == Stage::Handle {
                    self.scale.waiting
                } else {
                    0
                },
            };
            tokio::select! {
                biased;
                failure = any_end(players) => return Err(failure),
                settled = self.until_settled(&owed, stage) => settled?,
            }
        }
        Ok(())
    }

    async fn until_settled(&self, owed: &Owed, stage: Stage) -> Result<(), CommandError> {
        let (mut state, mut moved) = (Vec::new(), Instant::now());
        loop {
            let now = self.place.groups(&owed.stream).await?;
            let is_done = |name: &String| {
                let group = now.iter().find(|g| g.name == *name);
                group.is_some_and(|g| g.pending == owed.waiting && g.delivered >= owed.last)
            };
            if owed.groups.iter().all(is_done) {
                return Ok(());
            }
            if now != state {
                (state, moved) = (now, Instant::now());
            } else if moved.elapsed() > STALLED {
                return Err(CommandError::Refused(format!(
                    "{}: nothing has moved for {STALLED:?} on {}, which ends at {}: {state:?}",
                    stage.as_str(),
                    owed.stream,
                    owed.last
                )));
            }
            sleep(LOOK).await;
        }
    }
}

/// What XINFO GROUPS says of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) pending: u64,
    pub(super) delivered: EntryId,
}

impl Group {
    pub(super) fn all(reply: Value) -> Result<Vec<Self>, redis::RedisError> {
        let groups: Vec<std::collections::HashMap<String, Value>> = redis::from_redis_value(reply)?;
        let mut all = Vec::with_capacity(groups.len());
        for mut group in groups {
            let mut field = |name: &str| group.remove(name).unwrap_or(Value::Nil);
            all.push(Self {
                name: redis::from_redis_value(field("name"))?,
                pending: redis::from_redis_value(field("pending"))?,
                delivered: redis::from_redis_value(field("last-delivered-id"))?,
            });
        }
        Ok(all)
    }
}
