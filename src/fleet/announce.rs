//! Events that tell of the fleet itself, `System.…`: made only where the configuration admits them.
//! Without their schemas, or a stream that takes them, they would do nothing but fill `dead:router`.

use serde::Serialize;
use uuid::Uuid;

use crate::admission::{self, Refusal};
use crate::event::Event;
use crate::event_type::EventType;
use crate::routing::Config;

/// Such an event about a subscriber, within a flow, as JSON; empty if it would not pass the door.
pub(crate) fn announcement(
    event_type: &str,
    subscriber: &str,
    flow: Uuid,
    data: &impl Serialize,
    config: &Config,
) -> Vec<u8> {
    let event = EventType::parse(event_type)
        .ok()
        .and_then(|event_type| Event::new(&event_type, data).ok())
        .map(|event| event.within(flow, subscriber))
        .and_then(|event| serde_json::to_vec(&event).ok())
        .unwrap_or_default();
    match admission::admit(&event, 0, config) {
        Ok(_) => event,
        Err(refused) if refused.code == Refusal::UnknownType => Vec::new(),
        Err(refused) => {
            tracing::warn!(event_type, subscriber, %refused, "the configuration does not admit an event that tells of the fleet");
            Vec::new()
        }
    }
}
