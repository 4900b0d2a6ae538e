//! What a handler may do when history is run again.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Context, EffectError, Environment, NewEvent};
use crate::event::Event;
use crate::event_type::EventType;
use crate::routing::Config;
use crate::store::{Keys, Redis};

fn context(group: &str) -> Context {
    let routing = Path::new(env!("CARGO_MANIFEST_DIR")).join("routing.yaml");
    let env = Environment {
        redis: Redis::open("unix:///nowhere").unwrap(),
        keys: Keys::new(None),
        subscriber: "analytics-service".into(),
        group: group.into(),
        stop: CancellationToken::new(),
    };
    let event = Event::new(&EventType::parse("Order.Created").unwrap(), &json!({})).unwrap();
    let config = Arc::new(Config::load(&routing).unwrap());
    Context::new(Arc::new(env), config, Arc::new(event), 1)
}

#[test]
fn a_rebuild_writes_its_own_keys_and_nothing_else() {
    let confirmed = json!({"order_id": 1, "user_id": 1, "confirmed_at": "2026-01-01T00:00:00Z"});
    let stored = [NewEvent::new("Done", &()).unwrap()];
    let mut live = context("analytics-service");
    let mut again = context("analytics-service@7");
    assert!(!live.is_rebuild() && again.is_rebuild());
    for cx in [&mut live, &mut again] {
        cx.publish("Order.Confirmed", &confirmed).unwrap();
        cx.set("k", "v").unwrap();
    }
    // What was right when it was published may be wrong by the schemas of today.
    let unknown = live.publish("Nothing.Knows", &confirmed);
    assert!(matches!(unknown, Err(EffectError::FollowUp { .. })));
    again.publish("Nothing.Knows", &confirmed).unwrap();
    assert!(live.append_events("Order", "1", 0, &stored).is_ok());
    let refused = again.append_events("Order", "1", 0, &stored);
    assert_eq!(refused, Err(EffectError::InRebuild));
    // To the outside both are the same.
    assert!(again.idempotency_key().starts_with("analytics-service:"));

    let (live, again) = (live.effects.encode(1), again.effects.encode(1));
    assert_eq!((live.follow_ups, again.follow_ups), (1, 0));
    // (With the count of what is appended.)
    let expected = ["analytics-service:k", "es:Order:1", "es:Order:1"];
    assert_eq!(live.keys[1..], expected);
    assert_eq!(again.keys, ["analytics-service@7:k"]);
}
