//! One delivery in one slot: run the handler, then settle by what it returned.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinError;

use super::core::Core;
use super::delivery::{Delivery, GivenUp, Next, Start, after_failure, truncate};
use super::handler::{Context, Effects, Handler};
use super::settle::{Ack, Answer, End, report, until_answered};
use crate::error::{Failure, HandlerError};
use crate::event::Event;
use crate::failpoint::failpoint;
use crate::letter::Letter;
use crate::retry::RECONNECT;
use crate::routing::SubscriberSettings;
use crate::store::{CommitRequest, Committed, Parked, Settled, StreamField};

/// Conflicts in a row after which a delivery steps back instead of running again at once.
const MAX_CONFLICTS: u32 = 20;
/// Bytes of an error that a dead letter shows as its reason.
const MAX_REASON: usize = 2_000;

/// What running a handler came to.
enum Ran {
    Returned(Result<(), HandlerError>, Box<Context>),
    Failed(HandlerError),
    /// The delivery is another's by now: nothing to settle.
    Lost,
    /// The process ends.
    Interrupted,
}

/// Runs one delivery to its settlement. The permit is its slot.
pub(crate) async fn execute<H: Handler>(
    core: Arc<Core<H>>,
    mut delivery: Delivery,
    permit: OwnedSemaphorePermit,
) {
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
    let event = match read_event(&delivery) {
        Ok(event) => Arc::new(event),
        Err(error) => return core.give_up(delivery, GivenUp::Undecodable, &error).await,
    };
    let mut conflicts = 0;
    loop {
        let settings = core.settings.borrow().clone();
        let failure = match core.run_handler(&delivery, &event, settings.timeout).await {
            Ran::Lost => return,
            Ran::Interrupted => return core.release(vec![delivery]).await,
            Ran::Returned(Err(error), cx) if error.kind() == Failure::Retry && cx.gave_way() => {
                return core.release(vec![delivery]).await;
            }
            Ran::Failed(error) | Ran::Returned(Err(error), _) => error,
            Ran::Returned(Ok(()), cx) if cx.effects.is_empty() => {
                core.throttle.available();
                return core.acknowledge(delivery, permit).await;
            }
            Ran::Returned(Ok(()), cx) => match core.commit(&delivery, cx.effects).await {
                None => return,
                Some(Committed::Settled(_)) => return core.throttle.available(),
                Some(Committed::Invalid(error) | Committed::Refused(error)) => {
                    HandlerError::retry(error)
                }
                Some(Committed::Conflict) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(jitter(conflicts)).await;
                    continue;
                }
                Some(Committed::Conflict) => {
                    tracing::warn!(event = %event.id(), "{MAX_CONFLICTS} conflicts in a row; waiting a moment, uncharged");
                    return core
                        .retry_later(delivery, settings.backoff.initial, &settings)
                        .await;
                }
            },
        };
        return core
            .settle_failure(&mut delivery, &event, failure, &settings)
            .await
            .unwrap_or(());
    }
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

fn read_event(delivery: &Delivery) -> Result<Event, String> {
    let json = delivery
        .fields
        .get(StreamField::EVENT)
        .ok_or("the entry has no field `event`")?;
    if delivery.fields.get(StreamField::TO).is_none() {
        return Err("the entry has no field `to`: it was not written by the router".to_owned());
    }
    Event::from_json(json).map_err(|e| format!("`event` is not an event: {e}"))
}

impl<H: Handler> Core<H> {
    /// Runs the handler in a task of its own, so that a panic is a failure and not a crash, and so
    /// that one that blocks its thread costs neither the slot nor the stop more than its timeout.
    async fn run_handler(
        self: &Arc<Self>,
        delivery: &Delivery,
        event: &Arc<Event>,
        timeout: Duration,
    ) -> Ran {
        let config = self.config.borrow().clone();
        let attempt = delivery.failures() + 1;
        let stop = self.stop.reading.clone();
        let cx = Context::new(self.env.clone(), config, event.clone(), attempt, stop);
        let (core, event) = (self.clone(), event.clone());
        let handling = tokio::spawn(async move {
            let mut cx = Box::new(cx);
            failpoint!("worker.handling");
            let result = core.handler.handle(&event, &mut cx).await;
            failpoint!("worker.handled");
            (result, cx)
        });
        let abort = handling.abort_handle();
        let mut handling = pin!(handling);
        let ran = tokio::select! {
            biased;
            joined = &mut handling => match joined {
                Ok((result, cx)) => Ran::Returned(result, cx),
                Err(error) => Ran::Failed(panicked(error)),
            },
            () = delivery.guard.lost.cancelled() => Ran::Lost,
            () = self.stop.now.cancelled() => Ran::Interrupted,
            () = tokio::time::sleep(timeout) => {
                Ran::Failed(HandlerError::retry(format_args!("timed out after {timeout:?}")))
            }
        };
        abort.abort();
        ran
    }

    async fn mark_started(&self, delivery: &mut Delivery, starts: u32) -> Option<Settled> {
        delivery.troubled = true;
        let (holder, fence) = (&delivery.holder, delivery.fence);
        let answer = until_answered(&self.link, &self.stop.now, |mut c| async move {
            holder.mark_started(&mut c, fence, starts).await
        });
        answer.await.map(|answer| answer.value)
    }

    /// Hands the acknowledgement over, and then gives the slot back: so no more deliveries wait
    /// for a stream that cannot be settled than there are slots.
    async fn acknowledge(&self, delivery: Delivery, slot: OwnedSemaphorePermit) {
        let Delivery {
            ends,
            fence,
            troubled,
            guard,
            ..
        } = delivery;
        if let Ok(place) = ends.reserve().await {
            drop(slot);
            place.send(End::Ack(Ack {
                fence,
                troubled,
                guard: Some(guard),
            }));
        }
    }

    /// Commits a delivery with its effects; `None`: the process must end, or the group is gone.
    async fn commit(&self, delivery: &Delivery, effects: Effects) -> Option<Committed> {
        let request = Arc::new(CommitRequest {
            fence: delivery.fence,
            troubled: delivery.troubled,
            asked: effects.encode(delivery.hops().saturating_add(1)),
        });
        let mut refused = 0;
        loop {
            let (answer, answered) = oneshot::channel();
            let end = End::Commit((request.clone(), answer));
            delivery.ends.send(end).await.ok()?;
            let Answer { value, resent } = answered.await.ok()?;
            failpoint!("worker.committed");
            match value {
                Committed::Refused(error) => {
                    refused += 1;
                    tracing::warn!(stream = &*delivery.stream, entry = %delivery.fence.id, error, refused,
                        "Redis did not settle a delivery; sending again");
                    tokio::select! {
                        () = self.stop.now.cancelled() => return None,
                        () = tokio::time::sleep(RECONNECT.delay(refused)) => {}
                    }
                }
                Committed::Settled(settled) => {
                    let resent = resent || refused > 0;
                    report(&delivery.holder, delivery.fence, settled, resent, "commit");
                    return Some(value);
                }
                Committed::Conflict | Committed::Invalid(_) => return Some(value),
            }
        }
    }

    async fn settle_failure(
        &self,
        delivery: &mut Delivery,
        event: &Event,
        failure: HandlerError,
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
        tracing::warn!(event = %event.id(), event_type = event.event_type(), stream = &*delivery.stream,
            entry = %delivery.fence.id, attempt, of = settings.max_attempts, charged, ?next, error, "a delivery failed");
        match next {
            Next::Retry(delay) => self.park(delivery, delay, settings).await,
            Next::Wait => {
                let delay = self.throttle.unavailable(&settings.backoff);
                self.park(delivery, delay, settings).await
            }
            Next::GiveUp(why) => self.bury(delivery, why, &error).await,
        }
    }

    async fn retry_later(
        &self,
        delivery: Delivery,
        delay: Duration,
        settings: &SubscriberSettings,
    ) {
        self.park(&delivery, delay, settings).await.unwrap_or(());
    }

    async fn give_up(&self, delivery: Delivery, why: GivenUp, error: &str) {
        self.bury(&delivery, why, error).await.unwrap_or(());
    }

    async fn park(
        &self,
        delivery: &Delivery,
        delay: Duration,
        settings: &SubscriberSettings,
    ) -> Option<()> {
        let lease = self
            .lease_of(delivery)
            .unwrap_or(settings.lease)
            .as_millis() as u64;
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
        self.settle(delivery, "retry", |mut c| {
            let parked = &parked;
            async move {
                delivery
                    .holder
                    .retry_later(&mut c, lease, parked)
                    .await
                    .map(first)
            }
        })
        .await?;
        failpoint!("worker.parked");
        self.due.add(delay);
        Some(())
    }

    async fn bury(&self, delivery: &Delivery, why: GivenUp, error: &str) -> Option<()> {
        let subscriber = &self.env.subscriber;
        let error = truncate(error, MAX_REASON);
        let letter = Letter::given_up(
            subscriber,
            &delivery.stream,
            delivery.fence.id,
            &delivery.fields,
            why.as_str(),
            error,
            &delivery.log,
        )
        .to_fields();
        let dead = self.env.keys.dead(subscriber);
        failpoint!("worker.burying");
        self.settle(delivery, "dead letter", |mut c| {
            let (dead, letter) = (&dead, &letter);
            async move {
                delivery
                    .holder
                    .dead_letter(&mut c, delivery.fence, dead, letter)
                    .await
            }
        })
        .await?;
        failpoint!("worker.buried");
        tracing::error!(stream = &*delivery.stream, entry = %delivery.fence.id, reason = why.as_str(), error, dead,
            "a delivery was given up; see: streamfleet dead list --subscriber {subscriber}");
        Some(())
    }

    async fn settle<Fut>(
        &self,
        delivery: &Delivery,
        what: &str,
        send: impl FnMut(MultiplexedConnection) -> Fut,
    ) -> Option<()>
    where
        Fut: Future<Output = Result<Settled, RedisError>>,
    {
        let answer = until_answered(&self.link, &self.stop.now, send).await?;
        report(
            &delivery.holder,
            delivery.fence,
            answer.value,
            answer.resent,
            what,
        );
        Some(())
    }

    fn lease_of(&self, delivery: &Delivery) -> Option<Duration> {
        self.sources
            .borrow()
            .iter()
            .find(|s| s.name == delivery.stream)
            .map(|s| s.lease)
    }
}

/// The answer for a batch of one.
fn first(answers: Vec<Settled>) -> Settled {
    answers.into_iter().next().unwrap_or(Settled::Gone)
}

fn panicked(error: JoinError) -> HandlerError {
    let message = match error.try_into_panic() {
        Ok(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => format!("panicked: {text}"),
            (_, Some(text)) => format!("panicked: {text}"),
            _ => "panicked".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    HandlerError::retry(message)
}
