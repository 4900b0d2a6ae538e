//! Dead letters for the operator: find them, send them back, throw them away.
//!
//! Redis: `dead:<subscriber>`, `dead:router`; a redrive writes `redrive:<subscriber>`, or the
//! inbox for what was refused at the door. A redrive happens once: the letter leaves its stream
//! and enters the other in one script, or neither. Listing reads bounded pages.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::event_type::{EventType, Pattern};
use crate::letter::Letter;
use crate::store::{self, Entry, EntryId, Keys, Link, StoreError};

/// Letters read at a time: each can hold an event of the largest size.
const PAGE: usize = 32;

/// Which letters; everything that is set must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this subscriber, or of `router`.
    pub subscriber: Option<String>,
    /// Only of event types that this selects. A letter without a readable type does not fit.
    pub event_type: Option<Pattern>,
    /// Only with this reason code.
    pub reason: Option<String>,
    /// Only with this text in the error.
    pub error: Option<String>,
    /// Only with this [fingerprint](Letter::fingerprint).
    pub fingerprint: Option<String>,
    /// Only those that died then or later.
    pub since: Option<Timestamp>,
    /// Only those that died before.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether it asks for anything.
    pub fn is_empty(&self) -> bool {
        self.subscriber.is_none()
            && self.event_type.is_none()
            && self.reason.is_none()
            && self.error.is_none()
            && self.fingerprint.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// Whether the content of a letter fits; time and subscriber are decided by where it lies.
    pub fn fits(&self, letter: &Letter) -> bool {
        let typed = |pattern: &Pattern| {
            let parsed = letter.event_type.as_deref().map(EventType::parse);
            matches!(parsed, Some(Ok(event_type)) if pattern.matches(&event_type))
        };
        self.event_type.as_ref().is_none_or(typed)
            && self.reason.as_ref().is_none_or(|r| *r == letter.reason)
            && self
                .error
                .as_ref()
                .is_none_or(|text| letter.error.contains(text))
            && self
                .fingerprint
                .as_ref()
                .is_none_or(|mark| *mark == letter.fingerprint())
    }

    /// The range of entry IDs: a letter's ID is when it died. Empty if none can fit.
    fn range(&self) -> Option<(EntryId, EntryId)> {
        let at = crate::time::to_ms;
        let from = EntryId {
            ms: self.since.map_or(0, at),
            seq: 0,
        };
        let to = match self.until.map(at) {
            None => EntryId::LAST,
            Some(ms) => EntryId {
                ms: ms.checked_sub(1)?,
                seq: u64::MAX,
            },
        };
        Some((from, to))
    }
}

/// Why a letter was not redriven.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// Redis did not do it, or did not say so. Try again: a letter is redriven once at most.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entry was not written by streamfleet.
    #[error(
        "dead:{owner} {id} says that it belongs to {subscriber:?}: it was not written by \
         streamfleet, so it is not sent anywhere. Look at it with XRANGE, then discard it"
    )]
    Foreign {
        /// Whose stream it lies in.
        owner: String,
        /// Its ID.
        id: EntryId,
        /// What it says.
        subscriber: String,
    },
}

/// The dead letters of one Redis.
#[derive(Clone)]
pub struct DeadLetters {
    link: Link,
    keys: Keys,
}

impl DeadLetters {
    /// Works over `link`.
    pub fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys }
    }

    /// Everyone who has dead letters: subscribers, also retired ones, and `router`.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn owners(&self) -> Result<Vec<String>, StoreError> {
        let prefix = self.keys.dead("");
        let keys = store::scan(&self.link, &format!("{prefix}*"), Some("stream")).await?;
        let owner = |key: &String| key.strip_prefix(&prefix).map(str::to_owned);
        Ok(keys.iter().filter_map(owner).collect())
    }

    /// How many letters there are of one owner.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn count(&self, owner: &str) -> Result<u64, StoreError> {
        let key = self.keys.dead(owner);
        self.link
            .run(|mut c| async move { redis::cmd("XLEN").arg(key).query_async(&mut c).await })
            .await
    }

    /// The letters that fit, oldest first within each owner. Those that arrive after the first
    /// page was asked for are not among them, so that a letter which is redriven and dies again
    /// is met once.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn find(&self, filter: Filter) -> Result<Letters, StoreError> {
        let owners = match &filter.subscriber {
            Some(subscriber) => vec![subscriber.clone()],
            None => self.owners().await?,
        };
        let mut ranges = VecDeque::new();
        if let Some((from, to)) = filter.range() {
            for owner in owners {
                let newest = self
                    .read(&owner, "XREVRANGE", EntryId::LAST, from, 1)
                    .await?;
                if let Some(newest) = newest.first() {
                    ranges.push_back((owner, from, to.min(newest.id)));
                }
            }
        }
        Ok(Letters {
            letters: self.clone(),
            filter,
            ranges,
            page: VecDeque::new(),
        })
    }

    /// One letter.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn get(&self, owner: &str, id: EntryId) -> Result<Option<Letter>, StoreError> {
        let found = self.read(owner, "XRANGE", id, id, 1).await?;
        Ok(found.into_iter().next().map(Letter::from_entry))
    }

    /// Sends a letter of `owner` back; false if it is no longer there.
    ///
    /// # Errors
    /// Redis did not do it, or it is not a letter of ours.
    pub async fn redrive(&self, owner: &str, letter: &Letter) -> Result<bool, RedriveError> {
        if letter.subscriber != owner {
            return Err(RedriveError::Foreign {
                owner: owner.to_owned(),
                id: letter.id,
                subscriber: letter.subscriber.clone(),
            });
        }
        let dead = self.keys.dead(owner);
        let target = if letter.is_refusal() {
            self.keys.inbox()
        } else {
            self.keys.stream(&Keys::redrive_name(owner))
        };
        let (id, fields) = (letter.id, letter.redriven());
        let sent = self
            .link
            .run(|mut c| async move { store::redrive(&mut c, &dead, &target, id, &fields).await });
        Ok(sent.await?)
    }

    /// Throws a letter away for good; false if it is no longer there.
    ///
    /// # Errors
    /// Redis did not do it.
    pub async fn discard(&self, owner: &str, id: EntryId) -> Result<bool, StoreError> {
        let mut delete = redis::cmd("XDEL");
        delete.arg(self.keys.dead(owner)).arg(id.to_string());
        let deleted: u64 = self
            .link
            .run(|mut c| async move { delete.query_async(&mut c).await })
            .await?;
        Ok(deleted > 0)
    }

    async fn read(
        &self,
        owner: &str,
        command: &str,
        from: EntryId,
        to: EntryId,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut read = redis::cmd(command);
        read.arg(self.keys.dead(owner));
        read.arg(from.to_string()).arg(to.to_string());
        read.arg("COUNT").arg(count);
        self.link
            .run(|mut c| async move { read.query_async(&mut c).await })
            .await
    }
}

/// Letters that are being read, page by page.
pub struct Letters {
    letters: DeadLetters,
    filter: Filter,
    /// What is left to read: owner, and the first and last ID.
    ranges: VecDeque<(String, EntryId, EntryId)>,
    page: VecDeque<(String, Letter)>,
}

impl Letters {
    /// The next letter and whose it is; nothing after the last.
    ///
    /// # Errors
    /// Redis could not be asked; asking again goes on where this stopped.
    pub async fn next(&mut self) -> Result<Option<(String, Letter)>, StoreError> {
        loop {
            if let Some(letter) = self.page.pop_front() {
                return Ok(Some(letter));
            }
            let Some((owner, from, to)) = self.ranges.front_mut() else {
                return Ok(None);
            };
            let entries = self.letters.read(owner, "XRANGE", *from, *to, PAGE).await?;
            let next = entries.last().and_then(|last| last.id.following());
            for entry in entries {
                let letter = Letter::from_entry(entry);
                if self.filter.fits(&letter) {
                    self.page.push_back((owner.clone(), letter));
                }
            }
            match next {
                Some(next) if next <= *to => *from = next,
                _ => drop(self.ranges.pop_front()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fields;

    fn letter(pairs: &[(&str, &str)]) -> Letter {
        let pair = |(n, v): &(&str, &str)| (n.as_bytes().to_vec(), v.as_bytes().to_vec());
        let fields = Fields(pairs.iter().map(pair).collect());
        Letter::from_entry(Entry {
            id: EntryId::default(),
            fields,
        })
    }

    #[test]
    fn everything_that_is_set_must_fit() {
        let stock = letter(&[
            ("type", "Order.Created"),
            ("reason", "exhausted"),
            ("error", "no route to host"),
        ]);
        let pattern = |text| Some(Pattern::parse(text).unwrap());
        let mut filter = Filter::default();
        assert!(filter.is_empty() && filter.fits(&stock));
        filter.event_type = pattern("Order.*");
        filter.reason = Some("exhausted".into());
        filter.error = Some("route".into());
        assert!(!filter.is_empty() && filter.fits(&stock));
        filter.error = Some("timeout".into());
        assert!(!filter.fits(&stock));
        let typed = Filter {
            event_type: pattern("User.*"),
            ..Filter::default()
        };
        assert!(!typed.fits(&stock));
        assert!(!typed.fits(&letter(&[("reason", "invalid_json")])));
    }

    #[test]
    fn time_is_a_range_of_ids() {
        let at = |ms| Some(Timestamp::from_millisecond(ms).unwrap());
        let filter = Filter {
            since: at(1_000),
            until: at(2_000),
            ..Filter::default()
        };
        let (from, to) = filter.range().unwrap();
        assert_eq!((from.to_string(), to.ms), ("1000-0".to_owned(), 1_999));
        let before_all = Filter {
            until: at(-5),
            ..Filter::default()
        };
        assert!(before_all.range().is_none());
    }
}
