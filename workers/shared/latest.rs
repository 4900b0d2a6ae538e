//! A value that many events set, in whatever order they arrive: the newest by event time stays.
//! Applying events is commutative and idempotent, so what comes out is the same for every order
//! and every repetition. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use streamfleet::Event;
use uuid::Uuid;

/// What decides between two events: event time; at the same time the greater event ID, because
/// something must decide that does not depend on who arrived first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) at: Timestamp,
    pub(crate) by: Uuid,
}

impl Stamp {
    pub(crate) fn of(event: &Event) -> Self {
        Self {
            at: event.timestamp(),
            by: event.id(),
        }
    }
}

/// A value, and the event that set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latest<T> {
    pub(crate) value: T,
    pub(crate) at: Timestamp,
    pub(crate) by: Uuid,
}

/// Takes the value of an event that has one, unless a newer event was there before.
pub(crate) fn offer<T>(held: &mut Option<Latest<T>>, value: Option<T>, stamp: Stamp) {
    let Stamp { at, by } = stamp;
    let newer = held.as_ref().is_none_or(|held| {
        let held = Stamp {
            at: held.at,
            by: held.by,
        };
        held < stamp
    });
    match value {
        Some(value) if newer => *held = Some(Latest { value, at, by }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(second: i64, id: u128) -> Stamp {
        Stamp {
            at: Timestamp::from_second(second).unwrap(),
            by: Uuid::from_u128(id),
        }
    }

    #[test]
    fn a_stamp_is_event_time_and_then_the_id() {
        let json = r#"{"event_id":"00000000-0000-4000-8000-000000000007","event_type":"A.Happened","version":"1",
            "timestamp":"1970-01-01T00:00:09Z","correlation_id":"00000000-0000-4000-8000-000000000001","data":{}}"#;
        let event = Event::from_json(json.as_bytes()).unwrap();
        assert_eq!(Stamp::of(&event).at, Timestamp::from_second(9).unwrap());
        assert_eq!(Stamp::of(&event).by, event.id());
        assert!(stamp(1, 9) < stamp(2, 0));
        assert!(stamp(1, 0) < stamp(1, 9));
    }

    #[test]
    fn what_an_event_does_not_say_stays() {
        let mut held = None;
        offer(&mut held, None::<i64>, stamp(9, 1));
        assert_eq!(held, None);
        offer(&mut held, Some(5), stamp(1, 1));
        offer(&mut held, None, stamp(2, 2));
        assert_eq!(held.unwrap().value, 5);
    }

    proptest::proptest! {
        /// In whatever order and however often they come, the newest stays.
        #[test]
        fn the_newest_stays(
            events in proptest::collection::vec((0..4_i64, 0..4_u128), 1..12),
            order in proptest::collection::vec(0..12_usize, 0..30),
        ) {
            let mut held = None;
            // Each at least once, and some of them again.
            let again = order.iter().map(|i| &events[i % events.len()]);
            for &(second, id) in again.chain(&events) {
                offer(&mut held, Some((second, id)), stamp(second, id));
            }
            assert_eq!(held.unwrap().value, *events.iter().max().unwrap());
        }
    }
}
