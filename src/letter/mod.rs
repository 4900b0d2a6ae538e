//! Dead letters as entries: the one place that writes and reads their fields.
//!
//! Redis: `dead:<subscriber>`, `dead:router`. A letter has everything that is needed to
//! understand it and to redrive it.

mod fingerprint;

use jiff::Timestamp;
use serde_json::json;

use crate::admission::Rejection;
use crate::fleet::{INBOX, ROUTER};
use crate::routing::{Redact, STARS};
use crate::schemas::Violation;
use crate::store::{Entry, EntryId, Fields, Keys, StreamField as F};
use crate::worker::AttemptLog;

/// Name of the prefix under which fields of an odd inbox entry are kept.
const EXTRA: &str = "x:";
/// Where an event comes from that was refused when it was due.
const SCHEDULED: &str = "scheduled";
/// How many of them are kept: the script that writes the letter cannot take any number.
const MAX_EXTRA: usize = 1_000;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its entry ID in the dead-letter stream; 0-0 while it is not written yet.
    pub id: EntryId,
    /// Event ID, where it could be read.
    pub event_id: Option<String>,
    /// Event type, where it could be read.
    pub event_type: Option<String>,
    /// The event's bytes as received; absent if the entry had none.
    pub event: Option<Vec<u8>>,
    /// Stream that it was delivered from first, without namespace; `scheduled` for what was
    /// refused when it was due.
    pub stream: String,
    /// Its entry ID there (its event ID in `scheduled`).
    pub entry: String,
    /// Who gave it up: a subscriber, or `router`.
    pub subscriber: String,
    /// Reason code.
    pub reason: String,
    /// What went wrong, in one sentence.
    pub error: String,
    /// What is wrong where, JSON: `[{"pointer": …, "message": …}]`.
    pub errors: String,
    /// All attempts in all its lives.
    pub attempts: AttemptLog,
    /// Length of the chain of follow-ups.
    pub hops: u64,
    /// How often it was redriven before it died again.
    pub redrives: u64,
    /// When it died, RFC 3339.
    pub died: String,
    /// Fields that an inbox entry had besides `event`.
    pub extra: Fields,
}

impl Letter {
    /// The letter as it may be shown; never to be sent back.
    pub fn redacted(mut self, redact: &Redact) -> Self {
        let event = self.event.as_deref().unwrap_or_default();
        let Some(redacted) = redact.look(self.event_type.as_deref(), event) else {
            return self;
        };
        self.error = redacted.text(&self.error);
        for attempt in &mut self.attempts.0 {
            attempt.error = redacted.text(&attempt.error);
        }
        // Of a letter from before there was the rule.
        let errors: Vec<Violation> = serde_json::from_str(&self.errors).unwrap_or_default();
        let errors = errors.into_iter().map(|error| Violation {
            message: match redacted.covers(&error.pointer) {
                true => STARS.to_owned(),
                false => redacted.text(&error.message),
            },
            ..error
        });
        self.errors = json!(errors.collect::<Vec<_>>()).to_string();
        self.event = self.event.map(|_| redacted.event.into_bytes());
        self
    }

    /// The letter of an inbox entry that was refused.
    pub fn refused(id: EntryId, fields: Fields, rejection: &Rejection) -> Self {
        let (hops, redrives) = (
            fields.number(F::HOPS).unwrap_or(0),
            fields.number(F::REDRIVES).unwrap_or(0),
        );
        let (event, mut extra) = split_inbox(fields);
        let mut error = rejection.error.clone();
        if extra.0.len() > MAX_EXTRA {
            let dropped = extra.0.len() - MAX_EXTRA;
            error += &format!("; {dropped} further fields of the entry are not kept here");
            extra.0.truncate(MAX_EXTRA);
        }
        Self {
            id: EntryId::default(),
            event_id: rejection.event_id.clone(),
            event_type: rejection.event_type.clone(),
            event,
            stream: INBOX.to_owned(),
            entry: id.to_string(),
            subscriber: ROUTER.to_owned(),
            reason: rejection.code.as_str().to_owned(),
            error,
            errors: json!(rejection.details).to_string(),
            attempts: AttemptLog::default(),
            hops,
            redrives,
            died: Timestamp::now().to_string(),
            extra,
        }
    }

    /// The letter of an event that was accepted to be delivered later, and is refused when it is due.
    pub fn refused_when_due(id: &[u8], hops: u32, event: Vec<u8>, rejection: &Rejection) -> Self {
        let fields = Fields(vec![
            (F::EVENT.as_bytes().to_vec(), event),
            (F::HOPS.as_bytes().to_vec(), hops.to_string().into_bytes()),
        ]);
        Self {
            stream: SCHEDULED.to_owned(),
            entry: String::from_utf8_lossy(id).into_owned(),
            ..Self::refused(EntryId::default(), fields, rejection)
        }
    }

    /// The letter of a delivery that a subscriber gave up. One that came from a redrive keeps
    /// the place it was first delivered from, and the attempts of its earlier lives.
    pub fn given_up(
        subscriber: &str,
        stream: &str,
        id: EntryId,
        fields: &Fields,
        reason: &str,
        error: &str,
        log: &AttemptLog,
    ) -> Self {
        let text = |name| fields.text(name).map(str::to_owned);
        let mut attempts = fields
            .get(F::HISTORY)
            .map(AttemptLog::parse)
            .unwrap_or_default();
        attempts.0.extend(log.0.iter().cloned());
        let redriven = stream == Keys::redrive_name(subscriber);
        Self {
            id: EntryId::default(),
            event_id: text(F::ID),
            event_type: text(F::TYPE),
            event: fields.get(F::EVENT).map(<[u8]>::to_vec),
            stream: text(F::STREAM)
                .filter(|_| redriven)
                .unwrap_or_else(|| stream.to_owned()),
            entry: text(F::ENTRY)
                .filter(|_| redriven)
                .unwrap_or_else(|| id.to_string()),
            subscriber: subscriber.to_owned(),
            reason: reason.to_owned(),
            error: error.to_owned(),
            errors: "[]".to_owned(),
            attempts,
            hops: fields.number(F::HOPS).unwrap_or(0),
            redrives: fields.number(F::REDRIVES).unwrap_or(0),
            died: Timestamp::now().to_string(),
            extra: Fields::default(),
        }
    }

    /// As it is written.
    pub fn to_fields(&self) -> Fields {
        let mut fields = Vec::new();
        let mut push =
            |name: &str, value: &[u8]| fields.push((name.as_bytes().to_vec(), value.to_vec()));
        if let Some(id) = &self.event_id {
            push(F::ID, id.as_bytes());
        }
        if let Some(event_type) = &self.event_type {
            push(F::TYPE, event_type.as_bytes());
        }
        if let Some(event) = &self.event {
            push(F::EVENT, event);
        }
        push(F::STREAM, self.stream.as_bytes());
        push(F::ENTRY, self.entry.as_bytes());
        push("subscriber", self.subscriber.as_bytes());
        push("reason", self.reason.as_bytes());
        push("error", self.error.as_bytes());
        push("errors", self.errors.as_bytes());
        push("attempts", self.attempts.to_json().as_bytes());
        push(F::HOPS, self.hops.to_string().as_bytes());
        push(F::REDRIVES, self.redrives.to_string().as_bytes());
        push("died", self.died.as_bytes());
        fields.extend(
            self.extra
                .0
                .iter()
                .map(|(name, value)| ([EXTRA.as_bytes(), name].concat(), value.clone())),
        );
        Fields(fields)
    }

    /// As it is read; what is missing reads as empty, because a letter must always be shown.
    pub fn from_entry(entry: Entry) -> Self {
        let fields = &entry.fields;
        let text = |name: &str| {
            fields
                .get(name)
                .map(|v| String::from_utf8_lossy(v).into_owned())
        };
        let extra = fields.0.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix(EXTRA.as_bytes())?.to_vec(), value.clone()))
        });
        Self {
            id: entry.id,
            event_id: text(F::ID),
            event_type: text(F::TYPE),
            event: fields.get(F::EVENT).map(<[u8]>::to_vec),
            stream: text(F::STREAM).unwrap_or_default(),
            entry: text(F::ENTRY).unwrap_or_default(),
            subscriber: text("subscriber").unwrap_or_default(),
            reason: text("reason").unwrap_or_default(),
            error: text("error").unwrap_or_default(),
            errors: text("errors").unwrap_or_else(|| "[]".to_owned()),
            attempts: fields
                .get("attempts")
                .map(AttemptLog::parse)
                .unwrap_or_default(),
            hops: fields.number(F::HOPS).unwrap_or(0),
            redrives: fields.number(F::REDRIVES).unwrap_or(0),
            died: text("died").unwrap_or_default(),
            extra: Fields(extra.collect()),
        }
    }

    /// What tells this kind of failure from others: the same for letters of the same reason whose
    /// errors differ in numbers and IDs only.
    pub fn fingerprint(&self) -> String {
        fingerprint::of(&self.reason, &self.error)
    }

    /// Whether it was refused at the door, so that a redrive goes through the inbox again.
    pub fn is_refusal(&self) -> bool {
        self.subscriber == ROUTER
    }

    /// The entry that a redrive writes: into the inbox for what was refused at the door, into
    /// `redrive:<subscriber>` for the rest. What was given up as `expired` has not become any
    /// younger: it comes back as a letter with the same reason, one redrive older.
    pub fn redriven(&self) -> Fields {
        let mut fields = Vec::new();
        let mut push =
            |name: &str, value: &[u8]| fields.push((name.as_bytes().to_vec(), value.to_vec()));
        let redrives = self.redrives.saturating_add(1).to_string();
        if let Some(event) = &self.event {
            push(F::EVENT, event);
        }
        if self.is_refusal() {
            // The chain of follow-ups starts anew: the operator has looked at it.
            push(F::REDRIVES, redrives.as_bytes());
            fields.extend(self.extra.0.iter().cloned());
            return Fields(fields);
        }
        push(
            F::ID,
            self.event_id.as_deref().unwrap_or_default().as_bytes(),
        );
        push(
            F::TYPE,
            self.event_type.as_deref().unwrap_or_default().as_bytes(),
        );
        push(F::TO, self.subscriber.as_bytes());
        push(F::HOPS, self.hops.to_string().as_bytes());
        push(F::STREAM, self.stream.as_bytes());
        push(F::ENTRY, self.entry.as_bytes());
        push(F::REDRIVES, redrives.as_bytes());
        push(F::HISTORY, self.attempts.to_json().as_bytes());
        Fields(fields)
    }
}

/// Separates the event of an inbox entry from what else was in it, and drops our own counters.
fn split_inbox(fields: Fields) -> (Option<Vec<u8>>, Fields) {
    let mut event = None;
    let mut extra = Vec::new();
    for (name, value) in fields.0 {
        if name == F::EVENT.as_bytes() && event.is_none() {
            event = Some(value);
        } else if name != F::HOPS.as_bytes() && name != F::REDRIVES.as_bytes() {
            extra.push((name, value));
        }
    }
    (event, Fields(extra))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Refusal;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields(
            pairs
                .iter()
                .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
                .collect(),
        )
    }

    fn refusal(code: Refusal) -> Rejection {
        Rejection {
            code,
            error: "why".into(),
            details: vec![],
            event_id: None,
            event_type: None,
            published_by: None,
        }
    }

    #[test]
    fn a_refused_entry_keeps_every_byte_and_goes_back_through_the_inbox() {
        let odd = fields(&[("evnt", "{}"), ("event", "\u{0}x"), ("redrives", "1")]);
        let letter = Letter::refused(
            EntryId { ms: 5, seq: 0 },
            odd,
            &refusal(Refusal::InvalidJson),
        );
        let read = Letter::from_entry(Entry {
            id: EntryId::default(),
            fields: letter.to_fields(),
        });
        assert_eq!(read, letter);
        let again = read.redriven();
        assert_eq!(again.get("event"), Some(&b"\0x"[..]));
        assert_eq!(again.get("evnt"), Some(&b"{}"[..]));
        assert_eq!(again.number("redrives"), Some(2));
        // A producer may have written anything there.
        let most = Letter {
            redrives: u64::MAX,
            ..read
        };
        assert_eq!(most.redriven().number("redrives"), Some(u64::MAX));
    }

    #[test]
    fn a_letter_keeps_a_bounded_number_of_fields_and_says_so() {
        let odd = fields(&vec![("f", "v"); MAX_EXTRA + 5]);
        let letter = Letter::refused(EntryId::default(), odd, &refusal(Refusal::BadEnvelope));
        assert_eq!(letter.extra.0.len(), MAX_EXTRA);
        assert_eq!(
            letter.error,
            "why; 5 further fields of the entry are not kept here"
        );
    }

    #[test]
    fn a_redriven_delivery_keeps_its_origin_and_history() {
        let mut log = AttemptLog::default();
        log.record("w.1", "first life");
        let entry = fields(&[
            ("id", "e"),
            ("type", "A.B"),
            ("to", "x-service,y-service"),
            ("event", "{}"),
        ]);
        let dead = Letter::given_up(
            "x-service",
            "a-events",
            EntryId { ms: 7, seq: 1 },
            &entry,
            "exhausted",
            "e",
            &log,
        );
        let again = dead.redriven();
        assert_eq!(again.text("to"), Some("x-service"));
        let second = Letter::given_up(
            "x-service",
            "redrive:x-service",
            EntryId { ms: 9, seq: 0 },
            &again,
            "rejected",
            "e",
            &log,
        );
        assert_eq!(
            (
                second.stream.as_str(),
                second.entry.as_str(),
                second.redrives
            ),
            ("a-events", "7-1", 1)
        );
        assert_eq!(second.attempts.0.len(), 2);
    }
}
