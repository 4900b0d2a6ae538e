//! What goes by: entries of the domain streams as they are appended.
//!
//! Redis: blocking XREAD, without a group, so that nothing is claimed, counted or held back by who
//! looks. At most [`COUNT`] entries per stream and read, and a read every [`PAUSE`] at most.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::read::{Answers, ask};
use crate::store::{Entry, EntryId, Keys, Link, StoreError, read_streams};

/// Entries of one stream that one read brings at most.
const COUNT: usize = 100;
/// How long a read waits for something new.
const BLOCK: Duration = Duration::from_secs(1);
/// From the start of a read to that of the next one.
const PAUSE: Duration = Duration::from_millis(20);

/// Follows streams.
pub struct Tap {
    link: Link,
    connection: MultiplexedConnection,
    /// Where each stream was read to; by key.
    read: BTreeMap<String, EntryId>,
    next: Instant,
}

impl Tap {
    /// Begins with what is appended from now on, or since a time, as far as it is kept.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn open(
        link: &Link,
        keys: &Keys,
        streams: &[&str],
        since: Option<Timestamp>,
    ) -> Result<Self, StoreError> {
        let names: Vec<_> = streams.iter().map(|name| keys.stream(name)).collect();
        let mut read = BTreeMap::new();
        match since {
            Some(since) => {
                // The last ID before that time.
                let ms = crate::time::to_ms(since);
                let before = match ms.checked_sub(1) {
                    Some(ms) => EntryId { ms, seq: u64::MAX },
                    None => EntryId::default(),
                };
                read.extend(names.into_iter().map(|name| (name, before)));
            }
            None => {
                let mut newest = redis::pipe();
                for name in &names {
                    newest.cmd("XREVRANGE").arg(name).arg("+").arg("-");
                    newest.arg("COUNT").arg(1);
                }
                let mut answers = Answers(ask(link, newest).await?.into_iter());
                for name in names {
                    let id = answers.id().map_err(|e| link.redis().error(e))?;
                    read.insert(name, id.unwrap_or_default());
                }
            }
        }
        Ok(Self {
            connection: link.redis().dedicated(BLOCK).await?,
            link: link.clone(),
            read,
            next: Instant::now(),
        })
    }

    /// What came, the oldest first, with the key of its stream; nothing if nothing came for a second.
    ///
    /// # Errors
    /// Redis could not be asked.
    pub async fn read(&mut self) -> Result<Vec<(String, Entry)>, StoreError> {
        tokio::time::sleep_until(self.next).await;
        self.next = Instant::now() + PAUSE;
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(COUNT);
        command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS");
        command.arg(self.read.keys().collect::<Vec<_>>());
        command.arg(self.read.values().collect::<Vec<_>>());
        let found = command.query_async(&mut self.connection).await;
        let found = found.and_then(|value: redis::Value| Ok(read_streams(value)?));
        let found = found.map_err(|e| self.link.redis().error(e))?;
        let mut entries = Vec::new();
        for (stream, new) in found {
            if let (Some(read), Some(last)) = (self.read.get_mut(&stream), new.last()) {
                *read = last.id;
            }
            entries.extend(new.into_iter().map(|entry| (stream.clone(), entry)));
        }
        entries.sort_by_key(|(_, entry)| entry.id);
        Ok(entries)
    }
}
