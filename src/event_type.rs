//! Names of event types, and the patterns that select them. Pure: no I/O, no Redis.
//!
//! An event type is `Order.Created` or `Payment.Order.Paid`; its version is not part of the name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest name of an event type, in bytes.
pub const MAX_EVENT_TYPE_BYTES: usize = 128;
const SEGMENTS: std::ops::RangeInclusive<usize> = 2..=4;

/// The name of an event type: 2 to 4 segments of `[A-Za-z][A-Za-z0-9]*` joined by dots, at most
/// 128 bytes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(Arc<str>);

/// Why a text is not the name of an event type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidEventType {
    /// Longer than [`MAX_EVENT_TYPE_BYTES`].
    #[error("it is longer than {MAX_EVENT_TYPE_BYTES} bytes")]
    TooLong,
    /// Fewer than 2 or more than 4 segments.
    #[error("it has {0} segments between dots, an event type has 2 to 4, like `Order.Created`")]
    Segments(usize),
    /// The segment with this number, counted from 1, is empty or has a character that names lack.
    #[error("segment {0} must be a letter followed by letters and digits, like in `Order.Created`")]
    Segment(usize),
}

impl EventType {
    /// Reads the name of an event type.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, InvalidEventType> {
        if name.len() > MAX_EVENT_TYPE_BYTES {
            return Err(InvalidEventType::TooLong);
        }
        let segments = || name.as_bytes().split(|byte| *byte == b'.');
        let count = segments().count();
        if !SEGMENTS.contains(&count) {
            return Err(InvalidEventType::Segments(count));
        }
        match segments().position(|segment| !is_segment(segment)) {
            Some(at) => Err(InvalidEventType::Segment(at + 1)),
            None => Ok(Self(Arc::from(name))),
        }
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets a map keyed by event types be asked with a plain `&str`.
impl Borrow<str> for EventType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_segment(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(u8::is_ascii_alphanumeric)
}

/// Selects event types: a plain name, `*` for exactly one segment, a trailing `**` for one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// One entry per segment before a trailing `**`; `None` is `*`.
    segments: Vec<Option<Box<str>>>,
    /// Whether the pattern ends in `**`.
    open: bool,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidPattern {
    /// Longer than [`MAX_EVENT_TYPE_BYTES`].
    #[error("it is longer than {MAX_EVENT_TYPE_BYTES} bytes")]
    TooLong,
    /// `**` anywhere but at the end.
    #[error("`**` may only be the last segment, like in `Order.**`")]
    OpenInside,
    /// The segment with this number, counted from 1, is neither a name nor a wildcard.
    #[error("segment {0} must be a name of letters and digits, `*`, or a trailing `**`")]
    Segment(usize),
    /// No event type can ever match it.
    #[error("nothing can match it: an event type has 2 to 4 segments")]
    MatchesNothing,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says which rule it breaks; a pattern that no event type could ever match is refused too.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_EVENT_TYPE_BYTES {
            return Err(InvalidPattern::TooLong);
        }
        let (fixed, open) = match text.strip_suffix("**") {
            Some("") => (None, true),
            Some(head) => match head.strip_suffix('.') {
                Some(head) => (Some(head), true),
                None => return Err(InvalidPattern::Segment(text.split('.').count())),
            },
            None => (Some(text), false),
        };
        let mut segments = Vec::new();
        for (at, segment) in fixed.iter().flat_map(|f| f.split('.')).enumerate() {
            segments.push(match segment {
                "*" => None,
                "**" => return Err(InvalidPattern::OpenInside),
                name if is_segment(name.as_bytes()) => Some(Box::from(name)),
                _ => return Err(InvalidPattern::Segment(at + 1)),
            });
        }
        let pattern = Self {
            text: Box::from(text),
            segments,
            open,
        };
        if SEGMENTS.clone().any(|len| pattern.takes_length(len)) {
            Ok(pattern)
        } else {
            Err(InvalidPattern::MatchesNothing)
        }
    }

    /// Whether this event type is one that the pattern selects.
    pub fn matches(&self, event_type: &EventType) -> bool {
        let name = event_type.as_str();
        self.takes_length(name.split('.').count())
            && self
                .segments
                .iter()
                .zip(name.split('.'))
                .all(|(want, is)| want.as_deref().is_none_or(|want| want == is))
    }

    /// Whether an event type exists that both patterns select.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        SEGMENTS
            .clone()
            .any(|len| self.takes_length(len) && other.takes_length(len))
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|pair| match pair {
                    (Some(one), Some(two)) => one == two,
                    _ => true,
                })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a plain name, without wildcards.
    pub fn is_plain(&self) -> bool {
        !self.open && self.segments.iter().all(Option::is_some)
    }

    fn takes_length(&self, segments: usize) -> bool {
        if self.open {
            segments > self.segments.len()
        } else {
            segments == self.segments.len()
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for good in [
            "Order.Created",
            "Payment.Order.Paid",
            "a.b.c.d",
            "SKU2.Created",
        ] {
            assert_eq!(EventType::parse(good).unwrap().to_string(), good);
        }
        assert_eq!(
            EventType::parse("Order"),
            Err(InvalidEventType::Segments(1))
        );
        assert_eq!(EventType::parse(""), Err(InvalidEventType::Segments(1)));
        assert_eq!(
            EventType::parse("a.b.c.d.e"),
            Err(InvalidEventType::Segments(5))
        );
        assert_eq!(
            EventType::parse("Order.1st"),
            Err(InvalidEventType::Segment(2))
        );
        assert_eq!(
            EventType::parse("Order..Paid"),
            Err(InvalidEventType::Segment(2))
        );
        assert_eq!(
            EventType::parse("Örder.Paid"),
            Err(InvalidEventType::Segment(1))
        );
        assert_eq!(
            EventType::parse(&format!("A.{}", "b".repeat(127))),
            Err(InvalidEventType::TooLong)
        );
    }

    #[test]
    fn patterns_match_by_segment() {
        let table = [
            ("Order.Created", "Order.Created", true),
            ("Order.Created", "Order.Create", false),
            ("Order.*", "Order.Created", true),
            ("Order.*", "Order.Line.Added", false),
            ("Order.**", "Order.Created", true),
            ("Order.**", "Order.Line.Added", true),
            ("Order.**", "Orders.Created", false),
            ("*.Created", "User.Created", true),
            ("*.Created", "User.Account.Created", false),
            ("*.Order.**", "Payment.Order.Paid", true),
            ("*.Order.**", "Payment.Order", false),
            ("**", "A.B.C.D", true),
        ];
        for (pattern, name, expected) in table {
            let pattern = Pattern::parse(pattern).unwrap();
            let name = EventType::parse(name).unwrap();
            assert_eq!(pattern.matches(&name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn bad_patterns() {
        assert_eq!(
            Pattern::parse("**.Created"),
            Err(InvalidPattern::OpenInside)
        );
        assert_eq!(Pattern::parse("Order**"), Err(InvalidPattern::Segment(1)));
        assert_eq!(
            Pattern::parse("Order.Cre*"),
            Err(InvalidPattern::Segment(2))
        );
        assert_eq!(Pattern::parse(""), Err(InvalidPattern::Segment(1)));
        assert_eq!(Pattern::parse("***"), Err(InvalidPattern::Segment(1)));
        for nothing in ["*", "Order", "A.B.C.D.**", "a.b.c.d.e"] {
            assert_eq!(Pattern::parse(nothing), Err(InvalidPattern::MatchesNothing));
        }
    }

    #[test]
    fn overlap_means_a_common_name() {
        let table = [
            ("Order.**", "Order.Created", true),
            ("Order.*", "*.Created", true),
            ("Order.*", "Order.*.*", false),
            ("Order.**", "User.**", false),
            ("**", "A.B", true),
            ("A.**", "*.B.**", true),
            ("A.B.C.**", "*.*", false),
        ];
        for (one, two, expected) in table {
            let (one, two) = (Pattern::parse(one).unwrap(), Pattern::parse(two).unwrap());
            assert_eq!(one.overlaps(&two), expected, "{one} and {two}");
            assert_eq!(two.overlaps(&one), expected, "{two} and {one}");
        }
    }

    proptest! {
        #[test]
        fn two_patterns_that_match_one_name_overlap(
            one in "([AB*]\\.){1,3}([AB*]|\\*\\*)",
            two in "([AB*]\\.){1,3}([AB*]|\\*\\*)",
            name in "([AB]\\.){1,3}[AB]",
        ) {
            let name = EventType::parse(&name).unwrap();
            if let (Ok(one), Ok(two)) = (Pattern::parse(&one), Pattern::parse(&two))
                && one.matches(&name) && two.matches(&name)
            {
                prop_assert!(one.overlaps(&two));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = EventType::parse(&text);
            let _ = Pattern::parse(&text);
        }
    }
}
