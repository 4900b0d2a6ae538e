//! Driving a rebuild: runs the shadow's worker, waits until it has caught up, finds the moment to
//! switch.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::pause;
use super::show::Progress;
use crate::dead::DeadLetters;
use crate::fleet::control::POLL;
use crate::operator::child::{Child, Listener, Spec};
use crate::operator::text::{count, escape};
use crate::operator::{CommandError, Session};
use crate::process::args::{CONFIG, RedisArgs};
use crate::rebuild::{Positions, RebuildError, Replaced, Shadow};
use crate::store::{StoreError, Switched, loses_connection, retry_until};

/// How often it is looked how far the shadow is.
const LOOK: Duration = Duration::from_millis(250);
/// The same while the live subscriber is paused.
const LOOK_CLOSELY: Duration = Duration::from_millis(10);
/// How far behind the live group the shadow may be when that is paused: it must get there meanwhile.
const NEAR: u64 = 1_000;
/// How often a moment for the switch is looked for.
const TRIES: u32 = 10;
/// How long the worker may take to stop, after which it is killed: what it had in hand is then owed,
/// and the switch is tried another time.
const DRAIN: Duration = Duration::from_secs(5);
/// What the worker is told of that: a little less, so that it gives back what it had in hand.
const DRAIN_SECONDS: &str = "4";
/// How long a Redis that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many of the worker's last lines are shown when it fails.
const TAIL: usize = 5;

/// How to run it.
pub(super) struct Settings {
    pub(super) program: PathBuf,
    pub(super) allow_incomplete: bool,
    pub(super) pause: Duration,
    pub(super) config: PathBuf,
    pub(super) redis: RedisArgs,
}

/// What came of it.
pub(super) struct Done {
    pub(super) replaced: Replaced,
    /// Events that were brought back from the event store.
    pub(super) restored: u64,
    pub(super) dead: u64,
    pub(super) dead_before: u64,
    pub(super) paused: Duration,
    pub(super) tries: u32,
}

/// A rebuild under way.
pub(super) struct Drive<'a> {
    session: &'a Session,
    shadow: &'a Shadow,
    settings: Settings,
    progress: &'a Progress,
    /// Dropped, it is killed.
    worker: Option<Child>,
    /// The last lines of the worker.
    said: Arc<Mutex<VecDeque<String>>>,
}

impl<'a> Drive<'a> {
    pub(super) fn new(
        session: &'a Session,
        shadow: &'a Shadow,
        settings: Settings,
        progress: &'a Progress,
    ) -> Self {
        Self {
            session,
            shadow,
            settings,
            progress,
            worker: None,
            said: Arc::default(),
        }
    }

    /// Brings it to its end.
    pub(super) async fn run(mut self) -> Result<Done, CommandError> {
        let at = self.shadow.positions().await?;
        let all = at.progress().1.map_or("?".to_owned(), |n| n.to_string());
        self.progress.say(&format!(
            "rebuilding {} as {} from {all} entries of {}",
            self.shadow.subscriber,
            self.shadow.group,
            self.shadow.streams.join(", ")
        ));
        let restored = match self.shadow.history.gaps.is_empty() {
            true => 0,
            false => self.restore().await?,
        };
        self.start_worker(None)?;
        let (mut tries, mut next_try) = (0, Instant::now());
        loop {
            self.look_after_worker(LOOK).await?;
            let at = patiently(|_| self.shadow.positions()).await?;
            self.progress.show(&at);
            if let Some((stream, live)) = at.missing() {
                let whose = if live { "live subscriber" } else { "shadow" };
                return Err(refused(&format!(
                    "the group of the {whose} on {} is gone: see streamfleet group list",
                    escape(stream)
                )));
            }
            let near = at.behind().is_some_and(|behind| behind <= NEAR) && at.troubled == 0;
            if !near || Instant::now() < next_try {
                continue;
            }
            tries += 1;
            let why = match self.try_to_switch(tries).await? {
                Ok(done) => return Ok(Done { restored, ..done }),
                Err(why) => why,
            };
            if tries == TRIES {
                return Err(CommandError::Refused(format!(
                    "gave up after {tries} tries to switch ({why}): the live model is what it was, and what was \
                     rebuilt is removed. Try again when less is going on, or with a longer --pause"
                )));
            }
            self.progress
                .say(&format!("no moment to switch: {why}; trying again"));
            // The live one gets at least as much time as it was paused for.
            next_try = Instant::now() + self.settings.pause;
        }
    }

    /// Runs what has left the streams and is in the event store, before what is in the streams.
    async fn restore(&mut self) -> Result<u64, CommandError> {
        let (shadow, progress) = (self.shadow, self.progress);
        for gap in &shadow.history.gaps {
            progress.say(&format!("{gap}: looking for them in the event store"));
        }
        self.start_worker(Some(match self.settings.allow_incomplete {
            true => "some",
            false => "all",
        }))?;
        loop {
            let ended = self.look_after_worker(LOOK).await;
            let left = patiently(|_| shadow.restoring()).await?;
            match (ended, left) {
                (Ok(()), Some(0)) => break,
                (Ok(()), _) => {}
                // It found that this cannot be done.
                (Err(_), None) => {
                    return Err(CommandError::from(RebuildError::Incomplete {
                        subscriber: shadow.subscriber.clone(),
                        gaps: shadow.history.gaps.clone(),
                        why: self.last_words(),
                    }));
                }
                (Err(error), Some(_)) => return Err(error),
            }
        }
        self.stop_worker().await;
        let restored = shadow.end_restoring().await?;
        progress.say(&format!(
            "brought back from the event store: {}",
            count(restored, "event")
        ));
        Ok(restored)
    }

    /// What the worker said last, without the time of it.
    fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = said
            .back()
            .map_or("its worker said nothing", String::as_str);
        let last = last.rsplit_once("ERROR ").map_or(last, |(_, what)| what);
        last.trim().to_owned()
    }

    /// Waits a moment; an error if the worker ends meanwhile.
    async fn look_after_worker(&mut self, time: Duration) -> Result<(), CommandError> {
        let Some(worker) = &mut self.worker else {
            tokio::time::sleep(time).await;
            return Ok(());
        };
        let status = tokio::select! {
            status = worker.exited() => status,
            () = tokio::time::sleep(time) => return Ok(()),
        };
        // Its last words may still be on their way.
        if let Some(worker) = self.worker.take() {
            worker.wait_until(Instant::now() + DRAIN).await;
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<_> = said.iter().map(|line| format!("\n  {line}")).collect();
        Err(CommandError::Refused(format!(
            "{} ended by itself ({status}): {} is not rebuilt, the live model is what it was{}",
            self.settings.program.display(),
            self.shadow.subscriber,
            said.concat()
        )))
    }

    async fn stop_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.terminate();
            worker.wait_until(Instant::now() + DRAIN).await;
        }
    }

    /// Starts it on what is in the streams, or on what it is to `restore` first.
    fn start_worker(&mut self, restore: Option<&str>) -> Result<(), CommandError> {
        let said = self.said.clone();
        let listener: Listener = Arc::new(move |line: &str| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_back(escape(line));
            if said.len() > TAIL {
                said.pop_front();
            }
        });
        let mut spec = Spec::new(&self.settings.program, listener)
            .arg("--rebuild")
            .arg(self.shadow.number.to_string());
        if let Some(how) = restore {
            spec = spec.arg("--restore").arg(how);
        }
        let worker = spec
            // One name, so that the next one takes over what this one leaves.
            .arg("--name")
            .arg("rebuild")
            .arg("--drain")
            .arg(DRAIN_SECONDS)
            .env(CONFIG, &self.settings.config)
            .envs(self.settings.redis.environment())
            .env("STREAMFLEET_LOG", "warn")
            .env("STREAMFLEET_LOG_FORMAT", "human")
            .spawn()?;
        self.worker = Some(worker);
        Ok(())
    }

    /// Pauses the live subscriber and switches; answers why not, if this was no moment for it.
    async fn try_to_switch(&mut self, tries: u32) -> Result<Result<Done, String>, CommandError> {
        let letters = DeadLetters::new(self.session.link.clone(), self.session.keys.clone());
        let dead_before = letters.count(&self.shadow.subscriber).await?;
        let (session, subscriber) = (self.session, self.shadow.subscriber.as_str());
        let began = Instant::now();
        let at_most = self.settings.pause + DRAIN;
        pause::begin(session, subscriber, at_most).await?;
        let tried = self.switch_until(began + self.settings.pause).await;
        pause::end(session, subscriber).await?;
        let paused = began.elapsed();
        let replaced = match tried? {
            Ok(replaced) => replaced,
            Err(why) => return Ok(Err(why)),
        };
        Ok(Ok(Done {
            replaced,
            restored: 0,
            dead: letters.count(&self.shadow.subscriber).await?,
            dead_before,
            paused,
            tries,
        }))
    }

    /// Lets the shadow get where the live group is, stops its worker, and switches.
    async fn switch_until(
        &mut self,
        deadline: Instant,
    ) -> Result<Result<Replaced, String>, CommandError> {
        // Its workers look that often whether they may read.
        self.look_after_worker(POLL).await?;
        loop {
            if let Err(why) = self.catch_up(deadline).await? {
                return Ok(Err(why));
            }
            self.stop_worker().await;
            let why = match self.exchange(deadline).await? {
                Ok(replaced) => return Ok(Ok(replaced)),
                Err(why) => why,
            };
            self.start_worker(None)?;
            if Instant::now() >= deadline {
                return Ok(Err(why.into()));
            }
        }
    }

    /// Waits until the shadow has settled what the live group has read.
    async fn catch_up(&mut self, deadline: Instant) -> Result<Result<(), String>, CommandError> {
        loop {
            let at = self.shadow.positions().await?;
            if at.behind() == Some(0) && at.troubled == 0 {
                return Ok(Ok(()));
            }
            if Instant::now() >= deadline {
                return Ok(Err(why_not_there(&at)));
            }
            self.look_after_worker(LOOK_CLOSELY).await?;
        }
    }

    /// Switches, the shadow's worker being stopped; answers why not, if this was no moment for it.
    async fn exchange(
        &self,
        deadline: Instant,
    ) -> Result<Result<Replaced, &'static str>, CommandError> {
        loop {
            let (answer, replaced) = self.shadow.switch().await?;
            let why = match answer {
                Switched::Done => return Ok(Ok(replaced)),
                Switched::Moved => "the live subscriber goes on settling events",
                Switched::Redrive => "dead letters are on their way back to the live subscriber",
                Switched::Behind => return Ok(Err("the live subscriber went on reading")),
                Switched::Owes => return Ok(Err("the shadow has events to try again")),
                Switched::Streams => {
                    return Err(refused(
                        "routing.yaml gave the subscriber another stream meanwhile: rebuild it again",
                    ));
                }
                Switched::Lost => {
                    return Err(refused(
                        "a group of the live subscriber is gone: see streamfleet group list",
                    ));
                }
                Switched::Gone => {
                    return Err(refused("somebody removed the shadow of this rebuild"));
                }
            };
            if Instant::now() >= deadline {
                return Ok(Err(why));
            }
            tokio::time::sleep(LOOK_CLOSELY).await;
        }
    }
}

/// What Redis answers; of one that is away for a moment, when it is back.
async fn patiently<T, Fut>(ask: impl FnMut(u32) -> Fut) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let is_answer = |error: &StoreError| error.redis().is_some_and(|e| !loses_connection(e));
    retry_until(Some(Instant::now() + PATIENCE), is_answer, ask).await
}

fn refused(why: &str) -> CommandError {
    CommandError::Refused(format!("{why}; the live model is what it was"))
}

fn why_not_there(at: &Positions) -> String {
    match (at.troubled, at.behind()) {
        (0, Some(behind)) => format!("the shadow is still {behind} entries behind"),
        (0, None) => "the shadow is still behind".to_owned(),
        (troubled, _) => format!("{troubled} events of the shadow are to be tried again"),
    }
}
