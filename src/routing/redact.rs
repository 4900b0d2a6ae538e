//! What of an event is not shown: JSON pointers by event type. Stored events stay whole, so that they can
//! be handled and redriven; what is said of them (errors in logs, traces and dead letters) and what
//! commands show of them has `***` instead. Pure.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event_type::{EventType, Pattern};

/// What stands where something is hidden.
pub const STARS: &str = "***";
/// Of shorter values, texts are not searched: they would be found in everything.
const MIN_SEARCHED: usize = 3;
const MAX_SEGMENTS: usize = 32;
/// By these an event is found and told from others.
const ENVELOPE: [&str; 5] = [
    "event_id",
    "event_type",
    "version",
    "timestamp",
    "correlation_id",
];

/// What a rule's key begins with that is for the histories of entities.
pub(super) const ENTITY: &str = "entity:";

/// The rules, in the order of the file.
#[derive(Debug, Default)]
pub struct Redact {
    rules: Vec<(Of, Vec<Pointer>)>,
}

/// What a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Events of these types.
    Events(Pattern),
    /// What histories of these entities hold; of every kind if none is named.
    Entities(Option<String>),
}

/// A JSON pointer into an event, in which the segment `*` is every field or element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Every,
    Named(String),
}

impl Pointer {
    /// Reads one; else says what is wrong, and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let like = "write a JSON pointer into the event, like /data/email or /data/items/*/price";
        let rest = text
            .strip_prefix('/')
            .ok_or(("it does not begin with `/`", like))?;
        let segments: Vec<_> = rest
            .split('/')
            .map(|segment| match segment {
                "*" => Some(Segment::Every),
                named => unescape(named).map(Segment::Named),
            })
            .collect::<Option<_>>()
            .ok_or((
                "`~` stands alone in it",
                "write `~0` for a `~` in the name of a field, and `~1` for a `/`",
            ))?;
        if segments.len() > MAX_SEGMENTS {
            return Err(("it goes deeper than 32 levels", like));
        }
        match &segments[..] {
            [Segment::Every, ..] => Err((
                "`*` would hide what tells events apart",
                "name a field of the event, such as /data",
            )),
            [Segment::Named(first), ..] if ENVELOPE.contains(&first.as_str()) => Err((
                "events are found and told apart by this field",
                "hide something of /data, or another field",
            )),
            _ => Ok(Self(segments)),
        }
    }

    /// The way within the data; nothing if it leads elsewhere.
    fn within_data(&self) -> Option<&[Segment]> {
        match self.0.split_first() {
            Some((Segment::Named(first), rest)) if first == "data" => Some(rest),
            _ => None,
        }
    }

    /// Whether there is such a place in the history of an entity, of which data are all that is shown
    /// beside what tells its events apart.
    pub(super) fn is_of_entities(&self) -> bool {
        self.within_data().is_some()
    }
}

fn unescape(segment: &str) -> Option<String> {
    let mut parts = segment.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Some(text)
}

/// An event as it may be shown.
#[derive(Debug)]
pub struct Redacted {
    /// Its JSON with stars; of what is no JSON, nothing but stars.
    pub event: String,
    /// What was hidden, longest first: whatever is said about the event may repeat it.
    hidden: Vec<String>,
    pointers: Vec<Pointer>,
}

impl Redact {
    pub(super) fn new(rules: Vec<(Of, Vec<Pointer>)>) -> Self {
        Self { rules }
    }

    /// An event as it may be shown; nothing if no rule is for it. Where its type is not known, every
    /// rule is for it.
    pub fn look(&self, event_type: Option<&str>, event: &[u8]) -> Option<Redacted> {
        let known = event_type.and_then(|name| EventType::parse(name).ok());
        let pointers: Vec<Pointer> = self
            .rules
            .iter()
            .filter(|(of, _)| match of {
                Of::Events(pattern) => known.as_ref().is_none_or(|known| pattern.matches(known)),
                Of::Entities(_) => false,
            })
            .flat_map(|(_, pointers)| pointers.iter().cloned())
            .collect();
        if pointers.is_empty() {
            return None;
        }
        let mut hidden = Vec::new();
        let event = match serde_json::from_slice::<&RawValue>(event) {
            Ok(json) => {
                let paths: Vec<&[Segment]> = pointers.iter().map(|p| &p.0[..]).collect();
                hide(json, &paths, &mut hidden)
            }
            Err(_) => STARS.to_owned(),
        };
        hidden.retain(|text| text.chars().count() >= MIN_SEARCHED);
        hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Some(Redacted {
            event,
            hidden,
            pointers,
        })
    }

    /// The data of an event in the history of an entity, as they may be shown; nothing if no rule is
    /// for it.
    pub fn stored(&self, entity: &str, data: &RawValue) -> Option<String> {
        let rules = self.rules.iter().filter(|(of, _)| match of {
            Of::Entities(kind) => kind.as_ref().is_none_or(|kind| kind == entity),
            Of::Events(_) => false,
        });
        let paths: Vec<_> = rules
            .flat_map(|(_, pointers)| pointers.iter().filter_map(Pointer::within_data))
            .collect();
        (!paths.is_empty()).then(|| hide(data, &paths, &mut Vec::new()))
    }
}

impl Redacted {
    /// A text about the event, without what is hidden of it.
    pub fn text(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, hidden| {
            match text.contains(hidden.as_str()) {
                true => text.replace(hidden.as_str(), STARS),
                false => text,
            }
        })
    }

    /// Whether something hidden is at this place, or this place within it.
    pub fn covers(&self, pointer: &str) -> bool {
        let place: Vec<_> = pointer.split('/').skip(1).map(unescape).collect();
        self.pointers.iter().any(|Pointer(path)| {
            path.len() <= place.len()
                && path
                    .iter()
                    .zip(&place)
                    .all(|(segment, name)| match segment {
                        Segment::Every => true,
                        Segment::Named(segment) => {
                            name.as_ref().is_some_and(|name| name == segment)
                        }
                    })
        })
    }
}

/// The fields of an object in their order, as they are written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The value with stars where one of the paths ends; goes only where one of them leads, and leaves
/// everything else as it is written.
fn hide(json: &RawValue, paths: &[&[Segment]], hidden: &mut Vec<String>) -> String {
    if paths.iter().any(|path| path.is_empty()) {
        collect(json, hidden);
        return format!("\"{STARS}\"");
    }
    let below = |name: &str| -> Vec<&[Segment]> {
        let lead = |path: &&[Segment]| match &path[0] {
            Segment::Every => true,
            Segment::Named(segment) => segment == name,
        };
        let led = paths.iter().copied().filter(lead);
        led.map(|path| &path[1..]).collect()
    };
    let mut go_on = |name: &str, value: &RawValue| match below(name) {
        paths if paths.is_empty() => value.get().to_owned(),
        paths => hide(value, &paths, hidden),
    };
    if let Ok(Members(members)) = serde_json::from_str(json.get()) {
        let members = members.iter().map(|(name, value)| {
            let quoted = serde_json::Value::from(name.as_str());
            format!("{quoted}:{}", go_on(name, value))
        });
        return format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    }
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json.get()) {
        let items = items.iter().enumerate();
        let items = items.map(|(at, value)| go_on(&at.to_string(), value));
        return format!("[{}]", items.collect::<Vec<_>>().join(","));
    }
    json.get().to_owned()
}

/// Every text and number within, as it may be repeated.
fn collect(json: &RawValue, hidden: &mut Vec<String>) {
    let text = json.get().trim();
    match text.as_bytes().first() {
        Some(b'"') => {
            hidden.push(text.trim_matches('"').to_owned());
            if let Ok(plain) = serde_json::from_str::<String>(text) {
                let debug = format!("{plain:?}");
                hidden.push(debug.trim_matches('"').to_owned());
                hidden.push(plain);
            }
        }
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).unwrap_or(Members(Vec::new()));
            members.iter().for_each(|(_, value)| collect(value, hidden));
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            items.iter().for_each(|value| collect(value, hidden));
        }
        Some(b'-' | b'0'..=b'9') => {
            hidden.push(text.to_owned());
            // As who reads it as a double writes it again.
            if let Ok(number) = text.parse::<f64>() {
                hidden.push(number.to_string());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(rules: &[(&str, &[&str])]) -> Redact {
        let rule = |(pattern, pointers): &(&str, &[&str])| {
            let pointers = pointers.iter().map(|p| Pointer::parse(p).unwrap());
            let of = match pattern.strip_prefix(ENTITY) {
                Some("*") => Of::Entities(None),
                Some(kind) => Of::Entities(Some(kind.to_owned())),
                None => Of::Events(Pattern::parse(pattern).unwrap()),
            };
            (of, pointers.collect())
        };
        Redact::new(rules.iter().map(rule).collect())
    }

    #[test]
    fn what_a_pointer_names_is_hidden_and_the_rest_stays_as_it_is_written() {
        let rules = redact(&[
            (
                "User.**",
                &["/data/email", "/data/items/*/price", "/data/a~1b/~0"],
            ),
            ("User.Created", &["/source"]),
            ("Order.**", &["/data"]),
        ]);
        let event = br#"{"z": 1.50, "source":"shop", "data":{"email":"eve@example.org","n":12345678901234567890.10,
            "items":[{"price":9.99,"q":1},{"q":2}],"a/b":{"~":[1,2]}}}"#;
        let shown = |kind| rules.look(kind, event).map(|r| r.event);
        assert_eq!(
            shown(Some("User.Created")).unwrap(),
            r#"{"z":1.50,"source":"***","data":{"email":"***","n":12345678901234567890.10,"items":[{"price":"***","q":1},{"q":2}],"a/b":{"~":"***"}}}"#
        );
        let updated = shown(Some("User.Updated")).unwrap();
        assert!(updated.contains(r#""source":"shop""#), "{updated}");
        assert_eq!(shown(Some("Product.Created")), None);
        // Whose type is not known may be any.
        let unknown = shown(None).unwrap();
        assert!(
            unknown.contains(r#""source":"***","data":"***""#),
            "{unknown}"
        );
        assert_eq!(shown(Some("no type")), shown(None));
        assert_eq!(rules.look(None, b"eve@example.org").unwrap().event, STARS);
        assert!(Redact::default().look(None, event).is_none());
    }

    #[test]
    fn what_is_said_of_an_event_does_not_repeat_what_is_hidden() {
        let rules = redact(&[("**", &["/data"])]);
        let event =
            br#"{"data":{"mail":"e\"ve@x","pin":"7","price":20.50,"deep":[{"x":"secret"}]}}"#;
        let redacted = rules.look(Some("User.Created"), event).unwrap();
        for (said, shown) in [
            ("mail to e\"ve@x refused", "mail to *** refused"),
            (r#""e\"ve@x" is not of type"#, "\"***\" is not of type"),
            ("20.50 and 20.5 are no cents", "*** and *** are no cents"),
            ("secret, secret!", "***, ***!"),
            ("7 of 17", "7 of 17"),
        ] {
            assert_eq!(redacted.text(said), shown);
        }
        assert!(redacted.covers("/data/mail") && redacted.covers("/data"));
        assert!(!redacted.covers("") && !redacted.covers("/source"));
    }

    #[test]
    fn histories_have_rules_of_their_own() {
        let rules = redact(&[
            ("**", &["/data/event"]),
            ("entity:User", &["/data/email", "/data/*/zip"]),
            ("entity:*", &["/data/pin"]),
            ("entity:Card", &["/data"]),
        ]);
        let data = r#"{"event":1,"email":"e@x","home":{"zip":"1","n":1.50},"pin":[1]}"#;
        let data = serde_json::from_str::<&RawValue>(data).unwrap();
        let shown = |entity| rules.stored(entity, data).unwrap();
        assert_eq!(
            shown("User"),
            r#"{"event":1,"email":"***","home":{"zip":"***","n":1.50},"pin":"***"}"#
        );
        assert!(
            shown("Order").contains(r#""email":"e@x","home":{"zip":"1","n":1.50},"pin":"***""#)
        );
        assert_eq!(shown("Card"), "\"***\"");
        assert_eq!(redact(&[("**", &["/data"])]).stored("User", data), None);
        // Nor are they rules for events.
        let event = rules.look(None, br#"{"data":{"pin":1}}"#).unwrap();
        assert_eq!(event.event, r#"{"data":{"pin":1}}"#);
    }

    #[test]
    fn bad_pointers_are_refused() {
        for (text, why) in [
            ("data/email", "begin"),
            ("", "begin"),
            ("/data/a~b", "`~`"),
            ("/data/a~", "`~`"),
            ("/event_id", "told apart"),
            ("/event_type/x", "told apart"),
            ("/*", "tells events apart"),
        ] {
            let (problem, _) = Pointer::parse(text).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
        }
        assert!(Pointer::parse(&"/x".repeat(33)).is_err());
        assert!(Pointer::parse("/data").is_ok() && Pointer::parse("/").is_ok());
    }
}
