//! One delivery in one slot: run the handler, then settle by what it returned.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::core::{Core, Source};
use super::delivery::{Delivery, GivenUp, InHand, Next, Slotted, Start, after_failure, truncate};
use super::handler::{Context, Effects, Handler};
use super::measured::settles;
use super::settle::{Ack, Answer, Commit, End, Unsettled, Waits, report, until_answered};
use crate::error::{Failure, HandlerError};
use crate::event::Event;
use crate::failpoint::failpoint;
use crate::letter::Letter;
use crate::metrics::{self, DEAD, GIVEN_UP, WAITING};
use crate::retry::RECONNECT;
use crate::routing::SubscriberSettings;
use crate::store::{CommitRequest, Committed, Parked, Settled, StreamField};
use crate::trace::Traced;

/// Conflicts in a row after which a delivery steps back instead of running again at once.
const MAX_CONFLICTS: u32 = 20;
/// Bytes of an error that a dead letter shows as its reason.
const MAX_REASON: usize = 2_000;

/// A handler at work.
pub(crate) type Run = Pin<Box<dyn Future<Output = Returned> + Send>>;

/// What a handler came back with.
pub(crate) struct Returned {
    pub(crate) result: Result<(), HandlerError>,
    pub(crate) effects: Effects,
    /// Whether it returned early because the process stops.
    pub(crate) gave_way: bool,
}

/// What running a handler came to.
pub(crate) enum Ran {
    Returned(Returned),
    Failed(HandlerError),
    /// The delivery is another's by now: nothing to settle.
    Lost,
    /// The process ends.
    Interrupted,
}

/// How far a delivery has come.
pub(crate) enum Stage {
    /// Its handler is to be called.
    Call,
    /// Its handler was called, and waits for something.
    Running(Run),
    Ran(Ran),
    /// It asked for this; with an answer, if there was one that did not settle it.
    Asked(Arc<CommitRequest>, Option<Answer<Committed>>),
}

/// Runs one delivery to its settlement.
pub(crate) async fn execute<H: Handler>(core: Arc<Core<H>>, slotted: Slotted) {
    let Slotted {
        mut delivery,
        slot,
        tracked,
    } = slotted;
    let ours = tokio::select! {
        biased;
        () = core.stop.now.cancelled() => return core.release(vec![delivery]).await,
        ours = core.is_still_ours(&delivery) => ours,
    };
    if !ours {
        return;
    }
    if Start::after(delivery.starts) == Start::Crashed {
        let error =
            "it lost its process three times, the last time with nothing else running in it";
        return core.give_up(delivery, GivenUp::Crashed, error).await;
    }
    if let Some(starts) = delivery.starts {
        match core.mark_started(&mut delivery, starts + 1).await {
            Some(Settled::Done) => failpoint!("worker.marked"),
            Some(_) => return,
            None => return core.release(vec![delivery]).await,
        }
    }
    let event = match delivery.read_event() {
        Ok(event) => Arc::new(event),
        Err(error) => return core.give_up(delivery, GivenUp::Undecodable, &error).await,
    };
    if core.is_too_late(&event) {
        let error = "its expires_at passed before its handler was to start";
        return core.give_up(delivery, GivenUp::Expired, error).await;
    }
    let in_hand = InHand {
        delivery,
        event,
        slot,
        tracked,
        began: Instant::now(),
    };
    go_on(core, in_hand, Stage::Call).await;
}

/// Goes on with a commit that did not settle its delivery.
pub(crate) async fn go_on_unsettled<H: Handler>(core: Arc<Core<H>>, unsettled: Unsettled) {
    let Unsettled {
        in_hand,
        request,
        answer,
    } = unsettled;
    go_on(core, *in_hand, Stage::Asked(request, Some(answer))).await;
}

/// Brings a delivery from where it is to its settlement.
pub(crate) async fn go_on<H: Handler>(core: Arc<Core<H>>, in_hand: InHand, mut stage: Stage) {
    let InHand {
        mut delivery,
        event,
        slot,
        tracked: _tracked,
        mut began,
    } = in_hand;
    let (mut conflicts, mut hop) = (0, None);
    let settings = core.settings.borrow().clone();
    loop {
        let failure = match stage {
            Stage::Call => {
                began = Instant::now();
                let run = core.call(&event, delivery.failures() + 1);
                stage = Stage::Running(run);
                continue;
            }
            Stage::Running(run) => {
                stage = Stage::Ran(core.finish(&delivery, run, settings.timeout).await);
                continue;
            }
            Stage::Ran(Ran::Lost) => return,
            Stage::Ran(Ran::Interrupted) => return core.release(vec![delivery]).await,
            Stage::Ran(Ran::Failed(error)) => {
                metrics::called(|| began.elapsed(), false);
                // A handler that was cut off or panicked says nothing of what it depends on, unless
                // every failure counts: then its probe is given back.
                if settings.breaker.failure_rate.is_none() {
                    drop(delivery.probe.take());
                }
                error
            }
            Stage::Ran(Ran::Returned(returned)) => match returned.result {
                Ok(()) => {
                    core.breaker.outcomes.passed(1);
                    if let Some(probe) = delivery.probe.take() {
                        probe.passed();
                    }
                    hop = core.handled(&event, &delivery, began);
                    if returned.effects.is_empty() {
                        return core.acknowledge(delivery, slot, hop);
                    }
                    stage = Stage::Asked(request(&delivery, returned.effects), None);
                    continue;
                }
                Err(error) if error.kind() == Failure::Retry && returned.gave_way => {
                    return core.release(vec![delivery]).await;
                }
                Err(error) => {
                    metrics::called(|| began.elapsed(), false);
                    error
                }
            },
            Stage::Asked(request, answer) => {
                match core.commit(&delivery, request, answer, hop.take()).await {
                    None | Some(Committed::Settled(_)) => return,
                    Some(Committed::Invalid(error) | Committed::Refused(error)) => {
                        HandlerError::retry(error)
                    }
                    Some(Committed::Conflict) if conflicts < MAX_CONFLICTS => {
                        conflicts += 1;
                        tokio::time::sleep(jitter(conflicts)).await;
                        stage = Stage::Call;
                        continue;
                    }
                    Some(Committed::Conflict) => {
                        tracing::warn!(event = %event.id(), "{MAX_CONFLICTS} conflicts in a row; waiting a moment, uncharged");
                        return core.retry_later(delivery, settings.backoff.initial).await;
                    }
                }
            }
        };
        // From here on it is told: in the log, the trace, the breaker's events and the dead letter.
        let failure = core.discreet(failure, &event, &delivery);
        let wait = core.note_failure(delivery.probe.take(), &failure, &settings);
        return core
            .settle_failure(&mut delivery, &event, failure, wait, &settings)
            .await
            .unwrap_or(());
    }
}

/// What a handler asked for, for the commit.
pub(crate) fn request(delivery: &Delivery, effects: Effects) -> Arc<CommitRequest> {
    Arc::new(CommitRequest {
        fence: delivery.fence,
        troubled: delivery.troubled,
        asked: effects.encode(delivery.hops().saturating_add(1)),
    })
}

/// A short random pause that grows, so that rivals for one entity do not meet again.
fn jitter(conflicts: u32) -> Duration {
    let backoff = crate::retry::Backoff {
        initial: Duration::from_millis(2),
        multiplier: 1.5,
        max: Duration::from_millis(200),
        jitter: 1.0,
    };
    backoff.delay(conflicts)
}

impl<H: Handler> Core<H> {
    /// Calls the handler: it begins when it is polled.
    pub(crate) fn call(self: &Arc<Self>, event: &Arc<Event>, attempt: u32) -> Run {
        let config = self.config.borrow().clone();
        let mut cx = Context::new(self.env.clone(), config, event.clone(), attempt);
        let (core, event) = (self.clone(), event.clone());
        Box::pin(async move {
            failpoint!("worker.handling");
            let result = core.handler.handle(&event, &mut cx).await;
            failpoint!("worker.handled");
            Returned {
                result,
                gave_way: cx.gave_way(),
                effects: cx.effects,
            }
        })
    }

    /// Lets a handler go on in a task of its own, so that a panic is a failure and not a crash, and
    /// so that one that blocks its thread costs neither the slot nor the stop more than its timeout.
    async fn finish(&self, delivery: &Delivery, run: Run, timeout: Duration) -> Ran {
        let mut handling = tokio::spawn(run);
        let lost = delivery.guard.lost();
        let ran = tokio::select! {
            biased;
            joined = &mut handling => match joined {
                Ok(returned) => Ran::Returned(returned),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => Ran::Failed(panicked(&*panic)),
                    Err(error) => Ran::Failed(HandlerError::retry(error)),
                },
            },
            () = lost.cancelled() => Ran::Lost,
            () = self.stop.now.cancelled() => Ran::Interrupted,
            () = tokio::time::sleep(timeout) => Ran::Failed(timed_out(timeout)),
        };
        handling.abort();
        ran
    }

    async fn mark_started(&self, delivery: &mut Delivery, starts: u32) -> Option<Settled> {
        delivery.troubled = true;
        let (holder, fence) = (&delivery.source.holder, delivery.fence);
        let answer = until_answered(&self.link, &self.stop.now, |mut c| async move {
            holder.mark_started(&mut c, fence, starts).await
        });
        answer.await.map(|answer| answer.value)
    }

    /// Whether no handler may start for an event any more. A rebuild runs history as it was when it
    /// was routed, and then nothing in it was too late.
    pub(crate) fn is_too_late(&self, event: &Event) -> bool {
        event.has_expired() && !self.env.is_rebuild()
    }

    /// Hands the acknowledgement over, and gives the slot back.
    fn acknowledge(&self, delivery: Delivery, slot: OwnedSemaphorePermit, hop: Option<Traced>) {
        let (source, ack) = acknowledgement(delivery, hop);
        source.ends.push([ack], Some(slot));
    }

    /// Commits a delivery with its effects, of which there may be an answer already; `None`: the
    /// process must end, or the group is gone.
    async fn commit(
        &self,
        delivery: &Delivery,
        request: Arc<CommitRequest>,
        mut known: Option<Answer<Committed>>,
        hop: Option<Traced>,
    ) -> Option<Committed> {
        let mut refused = 0;
        loop {
            let answer = match known.take() {
                Some(answer) => answer,
                None => {
                    let (answer, answered) = oneshot::channel();
                    let commit = Commit {
                        request: request.clone(),
                        waits: Waits::Task(answer),
                        hop: hop.clone(),
                    };
                    delivery.source.ends.push([End::Commit(commit)], None);
                    answered.await.ok()?
                }
            };
            let Answer { value, resent } = answer;
            match value {
                Committed::Refused(error) => {
                    refused += 1;
                    tracing::warn!(stream = &*delivery.source.name, entry = %delivery.fence.id, error, refused,
                        "Redis did not settle a delivery; sending again");
                    tokio::select! {
                        () = self.stop.now.cancelled() => return None,
                        () = tokio::time::sleep(RECONNECT.delay(refused)) => {}
                    }
                }
                Committed::Settled(settled) => {
                    let (resent, fence) = (resent || refused > 0, delivery.fence);
                    report(&delivery.source.holder, fence, settled, resent, "commit");
                    return Some(value);
                }
                Committed::Conflict | Committed::Invalid(_) => return Some(value),
            }
        }
    }

    /// What went wrong, without what routing.yaml hides of the event.
    fn discreet(&self, failure: HandlerError, event: &Event, delivery: &Delivery) -> HandlerError {
        let json = delivery.fields.get(StreamField::EVENT).unwrap_or_default();
        let config = self.config.borrow();
        match config.routing.redact().look(Some(event.event_type()), json) {
            Some(redacted) => failure.reworded(|words| redacted.text(words)),
            None => failure,
        }
    }

    async fn settle_failure(
        &self,
        delivery: &mut Delivery,
        event: &Event,
        failure: HandlerError,
        wait: Duration,
        settings: &SubscriberSettings,
    ) -> Option<()> {
        let charged = failure.kind() != Failure::Unavailable;
        let error = failure.to_string();
        let attempt = delivery.failures() + 1;
        if charged {
            delivery.log.record(&self.identity.consumer(), &error);
        }
        let next = after_failure(
            failure.kind(),
            delivery.failures(),
            settings.max_attempts,
            &settings.backoff,
        );
        tracing::warn!(event = %event.id(), event_type = event.event_type(), stream = &*delivery.source.name,
            entry = %delivery.fence.id, attempt, of = settings.max_attempts, charged, %next, error, "a delivery failed");
        let again = match next {
            // A probe that failed is due after the next ones.
            Next::Retry(delay) => delay.max(wait),
            Next::Wait => wait,
            Next::GiveUp(why) => return self.bury(delivery, why, &error).await,
        };
        if self.park(delivery, again).await? {
            match charged {
                true => metrics::will_be_retried(attempt),
                false => metrics::came_to(WAITING, 1),
            }
        }
        self.tell_failed(event, attempt, &error, again);
        Some(())
    }

    async fn retry_later(&self, delivery: Delivery, delay: Duration) {
        if self.park(&delivery, delay).await == Some(true) {
            metrics::came_to(WAITING, 1);
        }
    }

    async fn give_up(&self, delivery: Delivery, why: GivenUp, error: &str) {
        self.bury(&delivery, why, error).await.unwrap_or(());
    }

    /// Answers whether it was still ours; nothing if the process must end.
    async fn park(&self, delivery: &Delivery, delay: Duration) -> Option<bool> {
        let lease = self.lease_of(delivery).as_millis() as u64;
        let log = if delivery.log.0.is_empty() {
            String::new()
        } else {
            delivery.log.to_json()
        };
        let parked = [Parked {
            fence: delivery.fence,
            delay_ms: delay.as_millis() as u64,
            log,
            starts: delivery.starts,
        }];
        failpoint!("worker.parking");
        let settled = self.settle(delivery, "retry", |mut c| {
            let parked = &parked;
            async move {
                let holder = &delivery.source.holder;
                holder.retry_later(&mut c, lease, parked).await.map(first)
            }
        });
        let ours = settled.await?;
        failpoint!("worker.parked");
        self.due.add(delay);
        Some(ours)
    }

    async fn bury(&self, delivery: &Delivery, why: GivenUp, error: &str) -> Option<()> {
        let (subscriber, group) = (&self.env.subscriber, &self.env.group);
        let error = truncate(error, MAX_REASON);
        let letter = Letter::given_up(
            subscriber,
            &delivery.source.name,
            delivery.fence.id,
            &delivery.fields,
            why.as_str(),
            error,
            &delivery.log,
        )
        .to_fields();
        // What a rebuild gives up becomes the subscriber's with the model.
        let dead = self.env.keys.dead(group);
        failpoint!("worker.burying");
        let settled = self.settle(delivery, "dead letter", |mut c| {
            let (dead, letter) = (&dead, &letter);
            async move {
                let holder = &delivery.source.holder;
                holder
                    .dead_letter(&mut c, delivery.fence, dead, letter)
                    .await
            }
        });
        if settled.await? && metrics::on() {
            GIVEN_UP.add(why.as_str(), 1);
            metrics::came_to(DEAD, 1);
        }
        failpoint!("worker.buried");
        self.tell_dead(delivery, why, error);
        tracing::error!(stream = &*delivery.source.name, entry = %delivery.fence.id, reason = why.as_str(), error, dead,
            "a delivery was given up; see: streamfleet dead list --subscriber {group}");
        Some(())
    }

    async fn settle<Fut>(
        &self,
        delivery: &Delivery,
        what: &str,
        send: impl FnMut(MultiplexedConnection) -> Fut,
    ) -> Option<bool>
    where
        Fut: Future<Output = Result<Settled, RedisError>>,
    {
        let answer = until_answered(&self.link, &self.stop.now, send).await?;
        report(
            &delivery.source.holder,
            delivery.fence,
            answer.value,
            answer.resent,
            what,
        );
        Some(settles(answer.value, answer.resent))
    }

    /// The one in force: a reload may have lengthened it.
    fn lease_of(&self, delivery: &Delivery) -> Duration {
        let source = &delivery.source;
        let sources = self.sources.borrow();
        let current = sources.iter().find(|s| s.name == source.name);
        current.unwrap_or(source).lease
    }
}

/// The answer for a batch of one.
fn first(answers: Vec<Settled>) -> Settled {
    answers.into_iter().next().unwrap_or(Settled::Gone)
}

/// The end of a delivery that asked for nothing.
pub(crate) fn acknowledgement(delivery: Delivery, hop: Option<Traced>) -> (Arc<Source>, End) {
    let ack = Ack {
        fence: delivery.fence,
        troubled: delivery.troubled,
        guard: Some(delivery.guard),
        hop,
    };
    (delivery.source, End::Ack(ack))
}

pub(crate) fn timed_out(timeout: Duration) -> HandlerError {
    HandlerError::retry(format_args!("timed out after {timeout:?}"))
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> HandlerError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
    HandlerError::retry(match text {
        Some(text) => format!("panicked: {text}"),
        None => "panicked".to_owned(),
    })
}
