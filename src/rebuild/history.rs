//! Whether all of the history is there.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::store::{EntryId, Keys, Link, StoreError, StreamInfo};
use crate::time::from_ms;

/// What is kept of the streams.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The first entry that is kept, by stream; the next to come where none is.
    first: HashMap<String, EntryId>,
    /// What is not kept any more.
    pub gaps: Vec<Gap>,
}

/// A stream of which something is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its name, without namespace.
    pub stream: String,
    /// How many of its entries are gone: trimmed or deleted, whomever they were for.
    pub missing: u64,
    /// How many are kept.
    pub kept: u64,
    /// From when the first is that is kept.
    pub since: Option<Timestamp>,
    /// The stream was deleted as a whole since the subscriber joined it: nobody knows how much is gone.
    pub begun_anew: bool,
}

impl History {
    /// Looks at the streams; `joined`: the last ID that each had when the live group joined.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn read(
        link: &Link,
        keys: &Keys,
        streams: &[(String, EntryId)],
    ) -> Result<Self, StoreError> {
        let mut history = Self::default();
        for (stream, joined) in streams {
            let mut ask = redis::cmd("XINFO");
            ask.arg("STREAM").arg(keys.stream(stream));
            let info: StreamInfo = link
                .run(|mut c| async move { ask.query_async(&mut c).await })
                .await?;
            let first = info.first.unwrap_or_else(|| info.last.next());
            history.first.insert(stream.clone(), first);
            history.gaps.extend(gap(&info, stream, *joined));
        }
        Ok(history)
    }

    /// Whether an entry was there to be run again.
    pub fn has(&self, stream: &str, entry: EntryId) -> bool {
        self.first.get(stream).is_some_and(|first| *first <= entry)
    }
}

/// What is gone. Whom it was for is not known, so that it counts whomever it was for.
fn gap(info: &StreamInfo, stream: &str, joined: EntryId) -> Option<Gap> {
    let missing = info.added.saturating_sub(info.length);
    let begun_anew = joined > info.last;
    (missing > 0 || begun_anew).then(|| Gap {
        stream: stream.to_owned(),
        missing,
        kept: info.length,
        since: info.first.and_then(|id| from_ms(id.ms)),
        begun_anew,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    #[test]
    fn history_is_whole_only_if_nothing_ever_left_the_stream() {
        let info = |length, added, last, first: Option<u64>| StreamInfo {
            length,
            added,
            last: id(last),
            first: first.map(id),
        };
        assert_eq!(gap(&info(0, 0, 0, None), "s", id(0)), None);
        assert_eq!(gap(&info(3, 3, 9, Some(7)), "s", id(7)), None);
        let found = gap(&info(3, 5, 9_000, Some(7_000)), "s", id(0)).unwrap();
        assert_eq!((found.missing, found.kept, found.begun_anew), (2, 3, false));
        assert_eq!(found.since, Some("1970-01-01T00:00:07Z".parse().unwrap()));
        // All of it is gone.
        assert_eq!(gap(&info(0, 5, 9, None), "s", id(0)).unwrap().missing, 5);
        // The stream is younger than the group.
        assert!(
            gap(&info(3, 3, 9, Some(7)), "s", id(10))
                .unwrap()
                .begun_anew
        );
    }

    #[test]
    fn what_is_older_than_the_first_entry_was_not_run_again() {
        let history = History {
            first: HashMap::from([("s".to_owned(), id(7))]),
            gaps: Vec::new(),
        };
        assert!(history.has("s", id(7)) && history.has("s", id(8)));
        assert!(!history.has("s", id(6)) && !history.has("other", id(8)));
    }
}
