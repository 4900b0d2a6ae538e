//! The scheduler: moves what is due from `scheduled` to where it belongs now. What an event may do
//! and who gets it is decided by the configuration in force when it is due, not by that of the day
//! on which it was accepted.
//!
//! Redis: `scheduled`, `scheduled:events`, the domain streams, `dead:router`, `stats:router`, `audit`.
//! Guarantee: an accepted event is scheduled, or moved on once, or cancelled: one script takes it
//! out and appends it, and whoever takes it out appends it. Whether it is due is told by the clock
//! of Redis, so that routers whose clocks differ agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::MAX_BYTES;
use super::decide::might_pass_with_newer_config;
use super::dedupe::Window;
use super::measured;
use super::traced;
use crate::admission::{Admitted, Rejection, admit};
use crate::failpoint::failpoint;
use crate::fleet::{self, ROUTER};
use crate::letter::Letter;
use crate::metrics;
use crate::progress::Beat;
use crate::retry::RECONNECT;
use crate::routing::Config;
use crate::store::{
    self, Deliver, Due, DueEvents, Keys, Link, RefuseDue, ScheduledKeys, StoreError, refuses_key,
};
use crate::trace::Tracer;

/// How often it is looked for what is due, unless something is due sooner: what another router
/// accepts becomes known by looking.
const LOOK: Duration = Duration::from_millis(200);
/// Most events that are moved at a time.
const MAX_EVENTS: usize = 256;
/// How long an event waits whose stream cannot take it.
const STUCK_DELAY: Duration = Duration::from_secs(20);
/// How long an event that a newer configuration may know waits for this router to have read it.
const NEWER_CONFIG: Duration = Duration::from_secs(3);

/// Moves what is due, until it is dropped.
pub(super) struct Scheduler {
    link: Link,
    keys: Keys,
    due_times: String,
    events: String,
    /// The configuration whose groups exist.
    in_force: watch::Receiver<Arc<Config>>,
    read_again: Arc<dyn Fn() + Send + Sync>,
    tracer: Tracer,
    /// The newer generation that is waited for, and since when.
    newer: Option<(u64, Instant)>,
    beat: Beat,
}

impl Scheduler {
    pub(super) fn new(
        link: &Link,
        keys: &Keys,
        in_force: watch::Receiver<Arc<Config>>,
        read_again: Arc<dyn Fn() + Send + Sync>,
        tracer: Tracer,
        beat: Beat,
    ) -> Self {
        Self {
            link: link.clone(),
            keys: keys.clone(),
            due_times: keys.scheduled(),
            events: keys.scheduled_events(),
            in_force,
            read_again,
            tracer,
            newer: None,
            beat,
        }
    }

    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            self.beat.touch();
            let pause = match self.turn().await {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "cannot move scheduled events; trying again");
                    RECONNECT.delay(failures)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn scheduled(&self) -> [&str; 2] {
        [&self.due_times, &self.events]
    }

    /// Looks once, and moves what is due. Answers how long nothing is to be done.
    async fn turn(&mut self) -> Result<Duration, StoreError> {
        let scheduled = self.scheduled();
        let due = self
            .link
            .run(|mut c| async move {
                store::due_events(&mut c, scheduled, MAX_EVENTS, MAX_BYTES).await
            })
            .await?;
        let pause = pause(&due);
        if due.events.is_empty() {
            return Ok(pause);
        }
        failpoint!("router.due");
        let config = self.in_force.borrow().clone();
        let (mut judged, mut missing) = (Vec::new(), Vec::new());
        for Due { id, kept } in due.events {
            match kept {
                Some((hops, event)) => judged.push(Judged {
                    verdict: admit(&event, hops, &config),
                    id,
                    hops,
                    event,
                }),
                None => missing.push(id),
            }
        }
        let unknown = |judged: &Judged| might_pass_with_newer_config(&judged.verdict);
        let held_back = judged.iter().any(unknown) && self.newer_is_coming(&config).await?;
        if held_back {
            judged.retain(|judged| !unknown(judged));
        }
        self.settle(judged, &config, due.now_ms).await?;
        self.forget(&missing).await?;
        failpoint!("router.delivered");
        Ok(if held_back { LOOK } else { pause })
    }

    /// Moves, refuses, or sets aside.
    async fn settle(
        &self,
        judged: Vec<Judged>,
        config: &Config,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let mut by_stream: BTreeMap<Arc<str>, Vec<Deliver>> = BTreeMap::new();
        let mut refused = Vec::new();
        for Judged {
            id,
            hops,
            event,
            verdict,
        } in judged
        {
            match verdict {
                Ok(admitted) => by_stream.entry(admitted.stream).or_default().push(Deliver {
                    id,
                    event_type: admitted.envelope.event_type.to_string(),
                    to: admitted.to,
                    hops,
                    event,
                    source: admitted.published_by,
                }),
                Err(rejection) => {
                    let letter = Letter::refused_when_due(&id, hops, event, &rejection);
                    refused.push(RefuseDue {
                        id,
                        letter: letter.to_fields(),
                        source: rejection.published_by.map(String::from),
                    });
                }
            }
        }
        for (name, events) in &by_stream {
            self.beat.touch();
            let delivered = self.deliver(name, events, config).await;
            let ids = events.iter().map(|event| &event.id);
            self.unless_stuck(delivered, ids, now_ms).await?;
        }
        if !refused.is_empty() {
            let outcome = self.refuse(&refused, config).await;
            let ids = refused.iter().map(|event| &event.id);
            self.unless_stuck(outcome, ids, now_ms).await?;
        }
        Ok(())
    }

    /// Takes out what somebody deleted by hand, but for its due time.
    async fn forget(&self, missing: &[Vec<u8>]) -> Result<(), StoreError> {
        if missing.is_empty() {
            return Ok(());
        }
        for id in missing {
            let event = String::from_utf8_lossy(id);
            tracing::error!(%event, "LOST: the event was deleted from {} while it was scheduled", self.events);
        }
        let scheduled = self.scheduled();
        let forgotten = self
            .link
            .run(|mut c| async move { store::cancel_scheduled(&mut c, scheduled, missing).await });
        forgotten.await.map(drop)
    }

    async fn deliver(
        &self,
        name: &str,
        events: &[Deliver],
        config: &Config,
    ) -> Result<(), StoreError> {
        let stream = &self.keys.stream(name);
        let moved = self.with_keys(config, async |keys| {
            let deliver = |mut c| async move { store::deliver(&mut c, keys, stream, events).await };
            self.link.run(deliver).await
        });
        let moved = moved.await?;
        // Some may have been cancelled, or moved by another router: what is told did happen.
        if moved == events.len() as u64 {
            self.tracer
                .tell(traced::delivered(&self.tracer, name, events));
        }
        tracing::debug!(stream = name, moved, "scheduled events delivered");
        Ok(())
    }

    async fn refuse(&self, events: &[RefuseDue], config: &Config) -> Result<(), StoreError> {
        let window = Window::join(&self.link, &self.keys, config.routing.dedupe_window()).await?;
        let (seen, _) = &window.buckets(&self.keys);
        let dead = &self.keys.dead(ROUTER);
        let refused = self.with_keys(config, async |keys| {
            let refuse =
                |mut c| async move { store::refuse_due(&mut c, keys, dead, seen, events).await };
            self.link.run(refuse).await
        });
        let refused = refused.await?;
        if refused > 0 {
            if metrics::on() {
                measured::refused(events.iter().map(|event| &event.letter), refused);
            }
            tracing::warn!(
                refused,
                "refused scheduled events: see streamfleet dead list --subscriber router"
            );
        }
        Ok(())
    }

    /// The keys that moving needs by this configuration.
    async fn with_keys<T>(
        &self,
        config: &Config,
        exchange: impl AsyncFnOnce(ScheduledKeys<'_>) -> T,
    ) -> T {
        let (stats, now) = (self.keys.stats(ROUTER), Timestamp::now().to_string());
        let audit = config.routing.audit().map(|_| self.keys.audit());
        let keys = ScheduledKeys {
            scheduled: self.scheduled(),
            stats: &stats,
            audit: audit.as_deref(),
            now: &now,
        };
        exchange(keys).await
    }

    /// What cannot be moved because of the key that it would go to waits out of the way of the others.
    async fn unless_stuck<'a>(
        &self,
        outcome: Result<(), StoreError>,
        ids: impl Iterator<Item = &'a Vec<u8>>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let error = match outcome {
            Err(error) if error.redis().is_some_and(refuses_key) => error,
            outcome => return outcome,
        };
        let later = now_ms + STUCK_DELAY.as_millis() as u64;
        let mut postpone = redis::cmd("ZADD");
        postpone.arg(&self.due_times).arg("XX");
        let mut events = 0_u64;
        for id in ids {
            postpone.arg(later).arg(id.as_slice());
            events += 1;
        }
        tracing::error!(%error, events,
            "HALTED for these scheduled events: repair or rename the key, or grant the right; they stay scheduled");
        self.link
            .run(|mut c| async move { postpone.exec_async(&mut c).await })
            .await
    }

    /// Before refusing what a newer configuration might know: has the file read again, if another
    /// process runs a newer one. Answers whether to wait until it is in force here.
    async fn newer_is_coming(&mut self, config: &Config) -> Result<bool, StoreError> {
        let known = fleet::join(&self.link, &self.keys, config).await?;
        if known.newest <= known.generation {
            return Ok(false);
        }
        match self.newer {
            Some((newest, since)) if newest == known.newest => Ok(since.elapsed() < NEWER_CONFIG),
            _ => {
                self.newer = Some((known.newest, Instant::now()));
                (self.read_again)();
                Ok(true)
            }
        }
    }
}

/// A due event, and what is decided about it.
struct Judged {
    id: Vec<u8>,
    hops: u32,
    event: Vec<u8>,
    verdict: Result<Admitted, Rejection>,
}

/// How long nothing is to be done after a look.
fn pause(due: &DueEvents) -> Duration {
    let until_next = |next: u64| Duration::from_millis(next.saturating_sub(due.now_ms));
    due.next_ms.map_or(LOOK, |next| until_next(next).min(LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_again_when_something_is_due_and_soon_in_any_case() {
        let pause_before = |next_ms| {
            pause(&DueEvents {
                now_ms: 10_000,
                next_ms,
                events: Vec::new(),
            })
        };
        let ms = Duration::from_millis;
        assert_eq!(pause_before(None), LOOK);
        assert_eq!(pause_before(Some(99_000)), LOOK);
        assert_eq!(pause_before(Some(10_050)), ms(50));
        assert_eq!(pause_before(Some(9_000)), ms(0), "there is more");
    }
}
