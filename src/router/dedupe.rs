//! The dedupe window: which buckets of seen event IDs to read, and which to write.
//!
//! Redis: `seen:<size>:<n>` hashes that expire one by one; `fleet` remembers which sizes of
//! bucket are in use, so that a changed window, or a router with another, forgets nothing.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::store::{Keys, Link, StoreError};

/// A window is cut into this many buckets.
const BUCKETS: u64 = 2;

/// The window in force, and those whose marks still matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Window {
    size_ms: u64,
    others: Vec<u64>,
}

impl Window {
    /// Registers a window as being in use, and learns of the others.
    pub(super) async fn join(
        link: &Link,
        keys: &Keys,
        window: Duration,
    ) -> Result<Self, StoreError> {
        let size_ms = (window.as_millis() as u64 / BUCKETS).max(1);
        let fleet = keys.fleet();
        let until = now_ms() + life_ms(size_ms);
        let fields: HashMap<String, String> = link
            .run(|mut c| async move {
                let mut register = redis::pipe();
                register
                    .atomic()
                    .hset(&fleet, Keys::fleet_dedupe(size_ms), until)
                    .ignore()
                    .hgetall(&fleet);
                let (fields,) = register.query_async(&mut c).await?;
                Ok(fields)
            })
            .await?;
        Ok(Self {
            size_ms,
            others: in_use(&fields, size_ms, now_ms()),
        })
    }

    /// The buckets to read, the one to write first; and the life of a bucket, ms.
    pub(super) fn buckets(&self, keys: &Keys) -> (Vec<String>, u64) {
        let now = now_ms();
        let current = now / self.size_ms;
        let mut buckets = vec![keys.seen(self.size_ms, current)];
        for size in std::iter::once(self.size_ms).chain(self.others.iter().copied()) {
            let current = now / size;
            // One in the future as well: another router's clock may be ahead of ours.
            let around = current.saturating_sub(BUCKETS)..=current + 1;
            buckets.extend(
                around
                    .map(|bucket| keys.seen(size, bucket))
                    .filter(|key| *key != buckets[0])
                    .collect::<Vec<_>>(),
            );
        }
        (buckets, life_ms(self.size_ms))
    }
}

/// A bucket lives until the window of its last entry has passed, with a bucket to spare.
fn life_ms(size_ms: u64) -> u64 {
    size_ms * (BUCKETS + 2)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

fn in_use(fields: &HashMap<String, String>, own: u64, now: u64) -> Vec<u64> {
    let mut sizes: Vec<u64> = fields
        .iter()
        .filter(|(_, until)| until.parse::<u64>().is_ok_and(|until| until > now))
        .filter_map(|(field, _)| field.strip_prefix("dedupe:")?.parse().ok())
        .filter(|&size| size > 0 && size != own)
        .collect();
    sizes.sort_unstable();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_window_and_those_of_earlier_windows() {
        let day = 86_400_000;
        let window = Window {
            size_ms: day / 2,
            others: vec![1000],
        };
        let (buckets, life) = window.buckets(&Keys::new(None));
        assert_eq!(buckets.len(), 8);
        assert!(buckets[0].starts_with("seen:43200000:"));
        assert!(
            life >= day * 3 / 2,
            "a bucket outlives the window of its last entry"
        );
    }

    #[test]
    fn a_window_matters_until_its_marks_have_expired() {
        let fields = [
            ("dedupe:500", "100"),
            ("dedupe:700", "99"),
            ("dedupe:900", "200"),
            ("dataset", "x"),
            ("dedupe:0", "200"),
        ];
        let fields = fields.map(|(f, v)| (f.to_owned(), v.to_owned())).into();
        assert_eq!(in_use(&fields, 900, 99), [500]);
    }
}
