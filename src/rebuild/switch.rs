//! The switch: finds the keys of both models, and lets one script exchange them.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::positions::{At, Pair};
use super::shadow::Shadow;
use crate::dead::{DeadLetters, Filter};
use crate::failpoint::failpoint;
use crate::store::{
    Entry, EntryId, Keys, StoreError, StreamField, Switch, SwitchStream, Switched, Walk,
    retry_until, scan, switch,
};

/// How long the script may take: with some millions of keys, seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is asked again whether it was done, when its answer was lost.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What was exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Entries that were run again.
    pub entries: u64,
    /// Keys of the old model.
    pub old_keys: usize,
    /// Keys of the new one.
    pub keys: usize,
    /// Letters that stayed, because their entries were no part of the history.
    pub kept_letters: usize,
    /// How long Redis ran the script, as seen from here.
    pub took: Duration,
}

impl Shadow {
    /// Exchanges the models, if this is a moment for it: see [`Switched`].
    ///
    /// # Errors
    /// Redis could not be asked, or did not say whether it was done.
    pub async fn switch(&self) -> Result<(Switched, Replaced), StoreError> {
        let (link, keys) = (&self.link, &self.keys);
        // First where the live group is, then its keys: if it is still there when the script runs, it
        // has settled nothing since, and these are all the keys that it has.
        let before = self.positions().await?;
        let refused = |answer| Ok((answer, Replaced::default()));
        let Some(redrive) = before.redrive else {
            return refused(Switched::Lost);
        };
        let mut streams = Vec::new();
        for Pair {
            stream,
            live,
            shadow,
        } in &before.pairs
        {
            let (
                Some(At {
                    delivered, pending, ..
                }),
                Some(_),
            ) = (live, shadow)
            else {
                let lost = live.is_none();
                return refused(if lost { Switched::Lost } else { Switched::Gone });
            };
            streams.push(SwitchStream {
                stream: keys.stream(stream),
                live_field: Keys::fleet_group(stream, &self.subscriber),
                shadow_field: Keys::fleet_group(stream, &self.group),
                live_at: *delivered,
                live_pending: *pending,
            });
        }
        let kept_letters = self.letters_to_keep().await?;
        let old = scan(link, &keys.effect(&self.subscriber, "*"), None).await?;
        let prefix = keys.effect(&self.group, "");
        let new = scan(link, &format!("{prefix}*"), None).await?;
        failpoint!("rebuild.gathered");

        let replaced = Replaced {
            entries: before.progress().0,
            old_keys: old.len(),
            keys: new.len(),
            kept_letters: kept_letters.len(),
            took: Duration::ZERO,
        };
        let mut unlinked = old;
        for stream in &self.streams {
            unlinked.push(keys.attempts(stream, &self.subscriber));
            unlinked.push(keys.attempts(stream, &self.group));
        }
        unlinked.push(keys.stream(&Keys::restored_name(&self.group)));
        unlinked.push(keys.stats(&self.group));
        unlinked.push(keys.control(&self.group));
        let renamed: Vec<(String, String)> = new
            .into_iter()
            .filter_map(|from| {
                let to = keys.effect(&self.subscriber, from.strip_prefix(&prefix)?);
                Some((from, to))
            })
            .collect();
        let (fleet, dead, shadow_dead) = (
            keys.fleet(),
            keys.dead(&self.subscriber),
            keys.dead(&self.group),
        );
        let (redrive_key, rebuilt_field) = (
            keys.stream(&Keys::redrive_name(&self.subscriber)),
            Keys::fleet_rebuilt(&self.subscriber),
        );
        let request = Switch {
            fleet: &fleet,
            rebuilt_field: &rebuilt_field,
            number: self.number,
            live: &self.subscriber,
            shadow: &self.group,
            dead: &dead,
            shadow_dead: &shadow_dead,
            redrive: &redrive_key,
            redrive_at: redrive.delivered,
            streams: &streams,
            unlinked: &unlinked,
            renamed: &renamed,
            kept_letters: &kept_letters,
        };
        let began = Instant::now();
        // A repetition answers DONE if the first one did it, so a lost answer can be asked for.
        let answer = retry_until(
            Some(began + ASK_AGAIN),
            |error| error.redis().is_some_and(|e| !e.is_io_error()),
            |_| async {
                let mut connection = link.redis().dedicated(PATIENCE).await?;
                let answer = switch(&mut connection, &request).await;
                answer.map_err(|e| link.redis().error(e))
            },
        )
        .await?;
        failpoint!("rebuild.switched");
        let took = began.elapsed();
        Ok((answer, Replaced { took, ..replaced }))
    }

    /// Letters of the live group that the new model knows nothing of: their entries are gone, or
    /// were on a stream that is not the subscriber's any more, and nothing brought their events back.
    async fn letters_to_keep(&self) -> Result<Vec<EntryId>, StoreError> {
        let letters = DeadLetters::new(self.link.clone(), self.keys.clone());
        let filter = Filter {
            subscriber: Some(self.subscriber.clone()),
            ..Filter::default()
        };
        let (mut found, mut kept) = (letters.find(filter).await?, Vec::new());
        while let Some((_, letter)) = found.next().await? {
            let entry = letter.entry.parse();
            if !entry.is_ok_and(|entry| self.history.has(&letter.stream, entry)) {
                kept.push((letter.id, letter.event_id));
            }
        }
        let restored = self.keys.stream(&Keys::restored_name(&self.group));
        let mut walk = Walk::to(restored, EntryId::LAST);
        while !kept.is_empty() {
            let page = walk.page(&self.link).await?;
            if page.is_empty() {
                break;
            }
            let id = |entry: &Entry| entry.fields.text(StreamField::ID).map(str::to_owned);
            let back: HashSet<String> = page.iter().filter_map(id).collect();
            kept.retain(|(_, event)| event.as_ref().is_none_or(|id| !back.contains(id)));
        }
        Ok(kept.into_iter().map(|(letter, _)| letter).collect())
    }
}
