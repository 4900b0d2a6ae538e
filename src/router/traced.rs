//! The hops of a batch, for the traces of the flows that its events belong to.

use crate::store::{Deliver, Fence, Routed, StreamField};
use crate::trace::{Flow, Traced, Tracer, What};

/// What is to be told of a decided batch once it is routed; nothing where nothing is traced.
pub(super) fn hops(
    tracer: &Tracer,
    decided: &[(Fence, Routed)],
    targets: &[String],
) -> Vec<Traced> {
    if !tracer.is_on() {
        return Vec::new();
    }
    let hops = decided.iter().filter_map(|(_, routed)| match routed {
        Routed::Append {
            target, to, event, ..
        } => tracer.hop(
            || Flow::of_json(event),
            || What::Routed {
                stream: targets.get(*target).cloned().unwrap_or_default(),
                to: to.to_string(),
            },
        ),
        Routed::Schedule { due_ms, event, .. } => tracer.hop(
            || Flow::of_json(event),
            || What::Scheduled { due_ms: *due_ms },
        ),
        Routed::Dead(letter) => {
            let text = |name| letter.text(name).unwrap_or_default().to_owned();
            tracer.hop(
                || Flow::of_json(letter.get(StreamField::EVENT)?),
                || What::Refused {
                    reason: text("reason"),
                    error: text("error"),
                },
            )
        }
    });
    hops.collect()
}

/// What is to be told of scheduled events once they are delivered.
pub(super) fn delivered(tracer: &Tracer, stream: &str, events: &[Deliver]) -> Vec<Traced> {
    let hops = events.iter().filter_map(|event| {
        tracer.hop(
            || Flow::of_json(&event.event),
            || What::Routed {
                stream: stream.to_owned(),
                to: event.to.to_string(),
            },
        )
    });
    hops.collect()
}
