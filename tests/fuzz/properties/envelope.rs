//! The door: bytes become an event, or exactly one rejection that says why and where.

use std::sync::LazyLock;

use streamfleet::Event;
use streamfleet::admission::{Admitted, Refusal, Rejection, admit};
use streamfleet::routing::Config;

use super::{in_bounded_time, says_something};

/// Small, so that inputs soon go beyond them.
const MAX_BYTES: usize = 4096;
const MAX_DEPTH: usize = 8;

/// One type that takes anything, one with the schema that is shipped.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("schemas")).unwrap();
    write("schemas/Test.Happened.v1.json", "{}");
    write(
        "schemas/Order.Created.v1.json",
        include_str!("../../../schemas/Order.Created.v1.json"),
    );
    let routing = format!(
        "version: 1\nlimits: {{ event_bytes: {MAX_BYTES}, depth: {MAX_DEPTH} }}\n\
         streams: {{ all-events: {{ events: [\"**\"] }} }}\nroutes: {{ \"**\": [all-service] }}\n"
    );
    write("routing.yaml", &routing);
    Config::load(&dir.path().join("routing.yaml")).unwrap()
});

/// Judges one event and holds the answer against what is promised about it.
pub fn check(bytes: &[u8]) {
    match in_bounded_time("admission", || admit(bytes, 0, &CONFIG)) {
        Ok(admitted) => accepted(bytes, &admitted),
        Err(rejection) => refused(bytes, &rejection),
    }
}

fn accepted(bytes: &[u8], admitted: &Admitted) {
    assert!(bytes.len() <= MAX_BYTES);
    let text = std::str::from_utf8(bytes).expect("what is admitted is UTF-8");
    let event = Event::from_json(bytes).expect("a worker reads what the router admits");
    assert_eq!(event.id(), admitted.envelope.event_id);
    assert_eq!(event.event_type(), admitted.envelope.event_type.as_str());
    assert_eq!(event.version(), admitted.envelope.version.to_string());
    // Every digit of every number, because it is the text that was sent.
    assert!(text.contains(event.data_text()), "data is as sent");
    assert_eq!(
        (&*admitted.stream, &*admitted.to),
        ("all-events", "all-service")
    );

    // A second look sees the same event, and so does a look at the event written anew.
    let again = serde_json::to_vec(&event).unwrap();
    for copy in [bytes, &again] {
        if copy.len() > MAX_BYTES {
            continue; // a UUID without hyphens grows
        }
        let copy = admit(copy, 0, &CONFIG).expect("it was admitted before");
        assert_eq!(copy.envelope, admitted.envelope);
        assert_eq!(
            copy.content, admitted.content,
            "the same data is no conflict"
        );
    }
    let hops = admit(bytes, u32::MAX, &CONFIG).expect_err("the chain is too long");
    assert_eq!(hops.code, Refusal::TooManyHops);
}

fn refused(bytes: &[u8], rejection: &Rejection) {
    says_something(&rejection.error, 1_000);
    assert_eq!(rejection.code == Refusal::TooLarge, bytes.len() > MAX_BYTES);
    let details = &rejection.details;
    assert!(details.len() <= 16);
    for detail in details {
        assert!(
            detail.pointer.is_empty() || detail.pointer.starts_with('/'),
            "{detail:?}"
        );
        assert!(detail.pointer.len() <= 300, "{detail:?}");
        says_something(&detail.message, 300);
    }
    for text in [
        rejection.event_id.as_deref(),
        rejection.event_type.as_deref(),
        rejection.published_by.as_deref(),
    ]
    .into_iter()
    .flatten()
    {
        assert!(text.chars().count() <= 128);
    }
    let error = &rejection.error;
    let somewhere = match rejection.code {
        Refusal::BadEnvelope | Refusal::SchemaViolation => !details.is_empty(),
        Refusal::InvalidUtf8 => error.starts_with("byte "),
        Refusal::InvalidJson | Refusal::TooDeep | Refusal::DuplicateKey => {
            error.contains("line ") && error.contains(" column ")
        }
        Refusal::TooLarge => error.contains(&bytes.len().to_string()),
        Refusal::UnknownType | Refusal::UnknownVersion => rejection.event_type.is_some(),
        Refusal::Expired => error.contains("expires_at"),
        Refusal::EventIdConflict | Refusal::TooManyHops => panic!("{rejection}"),
    };
    assert!(somewhere, "it says where: {rejection:?}");
    assert_eq!(admit(bytes, 0, &CONFIG).expect_err("as before"), *rejection);
}
