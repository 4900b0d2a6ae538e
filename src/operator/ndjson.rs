//! Events one per line: reading with bounds, and filling in what a producer may leave out.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};

use jiff::Timestamp;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;
use uuid::Uuid;

const BUFFER: usize = 256 * 1024;

/// One line that is not empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// Its bytes without the line break; nothing if it is longer than allowed.
    pub(super) text: Option<Vec<u8>>,
    /// Bytes of input up to its end.
    pub(super) end: u64,
}

/// Reads lines of at most `max` bytes on a thread of its own. A batch is what was there to be
/// read, so that a file comes in large batches and a slow pipe line by line.
pub(super) fn read_lines(
    input: Box<dyn Read + Send>,
    max: usize,
) -> mpsc::Receiver<io::Result<Vec<Line>>> {
    let (batches, receiver) = mpsc::channel(2);
    // Not a task of the runtime: that would wait at its end for a read that never ends.
    std::thread::spawn(move || {
        let mut reader = Lines {
            input: BufReader::with_capacity(BUFFER, input),
            max,
            number: 0,
            read: 0,
        };
        loop {
            let batch = reader.batch();
            let last = !matches!(&batch, Ok(batch) if !batch.is_empty());
            let ended = matches!(&batch, Ok(batch) if batch.is_empty());
            if ended || batches.blocking_send(batch).is_err() || last {
                return;
            }
        }
    });
    receiver
}

struct Lines<R> {
    input: BufReader<R>,
    max: usize,
    number: u64,
    read: u64,
}

impl<R: Read> Lines<R> {
    /// The next line and all complete lines that are buffered; empty at the end.
    fn batch(&mut self) -> io::Result<Vec<Line>> {
        let mut batch = Vec::new();
        while let Some(line) = self.line()? {
            let blank = matches!(&line.text, Some(text) if text.trim_ascii().is_empty());
            if !blank {
                batch.push(line);
            }
            if !batch.is_empty() && !self.input.buffer().contains(&b'\n') {
                break;
            }
        }
        Ok(batch)
    }

    fn line(&mut self) -> io::Result<Option<Line>> {
        let (mut text, mut complete, mut fits) = (Vec::new(), false, true);
        let start = self.read;
        while !complete {
            let buffer = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|b| *b == b'\n');
            complete = end.is_some();
            let part = buffer
                .get(..end.unwrap_or(buffer.len()))
                .unwrap_or_default();
            fits &= text.len() + part.len() <= self.max;
            if fits {
                text.extend_from_slice(part);
            } else {
                text = Vec::new();
            }
            let used = part.len() + usize::from(complete);
            self.input.consume(used);
            self.read += used as u64;
        }
        if self.read == start {
            return Ok(None);
        }
        self.number += 1;
        // Some editors put a byte order mark before the first line.
        if self.number == 1 && text.starts_with("\u{feff}".as_bytes()) {
            text.drain(..3);
        }
        Ok(Some(Line {
            number: self.number,
            text: fits.then_some(text),
            end: self.read,
        }))
    }
}

/// Fills in `event_id`, `timestamp` and `correlation_id` where they are absent, and leaves every
/// other byte as it is. What is not a JSON object is left alone: admission says what is wrong.
pub(super) fn complete(event: &[u8]) -> Cow<'_, [u8]> {
    let Ok(Members(members)) = serde_json::from_slice(event) else {
        return Cow::Borrowed(event);
    };
    let mut missing = String::new();
    let mut add = |name: &str, value: &dyn Fn() -> String| {
        if !members.contains(name) {
            missing += &format!("\"{name}\":\"{}\",", value());
        }
    };
    add("event_id", &|| Uuid::now_v7().to_string());
    add("timestamp", &|| Timestamp::now().to_string());
    add("correlation_id", &|| Uuid::new_v4().to_string());
    let brace = event.iter().position(|b| *b == b'{');
    let Some((head, tail)) = brace.and_then(|at| event.split_at_checked(at + 1)) else {
        return Cow::Borrowed(event);
    };
    if missing.is_empty() {
        return Cow::Borrowed(event);
    }
    if members.is_empty() {
        missing.pop();
    }
    Cow::Owned([head, missing.as_bytes(), tail].concat())
}

/// The names of an object's members.
struct Members(HashSet<String>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut names = HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.insert(name);
                }
                Ok(Members(names))
            }
        }
        input.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn all(input: &str, max: usize) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines {
            input: BufReader::with_capacity(8, input.as_bytes()),
            max,
            number: 0,
            read: 0,
        };
        let mut all = Vec::new();
        loop {
            let batch = lines.batch().unwrap();
            if batch.is_empty() {
                assert_eq!(lines.read, input.len() as u64);
                return all;
            }
            let text = |l: Line| (l.number, l.text.map(|t| String::from_utf8(t).unwrap()));
            all.extend(batch.into_iter().map(text));
        }
    }

    #[test]
    fn lines_are_numbered_bounded_and_never_lost() {
        let some = |n, text: &str| (n, Some(text.to_owned()));
        let input = "\u{feff}a\n\n  \r\nbbbbbbbbbbbbbbbbbbbb\nccccccccccccccccccccc\nd";
        assert_eq!(
            all(input, 20),
            [
                some(1, "a"),
                some(4, &"b".repeat(20)),
                (5, None),
                some(6, "d")
            ]
        );
        assert_eq!(all("", 20), []);
        assert_eq!(all("\n\n", 20), []);
    }

    #[test]
    fn fills_in_what_is_missing_and_keeps_every_other_byte() {
        let text = br#" { "total" : 1.10, "event_id":"x" }"#;
        let full = complete(text);
        let value: Value = serde_json::from_slice(&full).unwrap();
        assert_eq!(value["event_id"], "x");
        assert!(value["timestamp"].is_string() && value["correlation_id"].is_string());
        assert!(full.ends_with(br#" "total" : 1.10, "event_id":"x" }"#));
        let empty: Value = serde_json::from_slice(&complete(b"{ }")).unwrap();
        assert_eq!(empty.as_object().unwrap().len(), 3);
        for odd in ["", "[1]", "{\"a\":", "7", "{} x"] {
            assert_eq!(&*complete(odd.as_bytes()), odd.as_bytes());
        }
        let done = br#"{"event_id":null,"timestamp":1,"correlation_id":""}"#;
        assert_eq!(&*complete(done), done);
    }
}
