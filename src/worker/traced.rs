//! The hops of deliveries, for the traces of the flows that their events belong to. Nothing is done
//! for them where nothing is traced.

use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::delivery::{Delivery, GivenUp};
use super::handler::Handler;
use crate::event::Event;
use crate::metrics;
use crate::store::StreamField;
use crate::trace::{Flow, Traced, What};

impl<H: Handler> Core<H> {
    /// That its handler, called at `began`, is done: to be told once that is settled.
    pub(crate) fn handled(
        &self,
        event: &Event,
        delivery: &Delivery,
        began: Instant,
    ) -> Option<Traced> {
        metrics::called(|| began.elapsed(), true);
        self.tracer.hop(
            || Some(Flow::of(event)),
            || What::Handled {
                subscriber: self.env.subscriber.to_string(),
                attempt: delivery.failures() + 1,
                took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            },
        )
    }

    /// That an attempt failed, and that there will be another.
    pub(crate) fn tell_failed(&self, event: &Event, attempt: u32, error: &str, again: Duration) {
        self.tracer.tell(self.tracer.hop(
            || Some(Flow::of(event)),
            || What::Failed {
                subscriber: self.env.subscriber.to_string(),
                attempt,
                error: error.to_owned(),
                again_ms: u64::try_from(again.as_millis()).unwrap_or(u64::MAX),
            },
        ));
    }

    /// That it was given up.
    pub(crate) fn tell_dead(&self, delivery: &Delivery, why: GivenUp, error: &str) {
        self.tracer.tell(self.tracer.hop(
            || Flow::of_json(delivery.fields.get(StreamField::EVENT)?),
            || What::Dead {
                subscriber: self.env.subscriber.to_string(),
                reason: why.as_str().to_owned(),
                error: error.to_owned(),
            },
        ));
    }
}
