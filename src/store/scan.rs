//! Walking the key space, and streams from end to end, for the operator only: it costs Redis a look
//! at everything, in steps that block nobody.

use super::{Entry, EntryId, Link, StoreError};

/// Keys looked at per step.
const STEP: usize = 2_000;
/// Entries read per step.
const PAGE: usize = 500;

/// All keys that match a glob, of one type or of any, sorted.
pub async fn scan(link: &Link, glob: &str, kind: Option<&str>) -> Result<Vec<String>, StoreError> {
    let (mut found, mut cursor) = (Vec::new(), 0_u64);
    loop {
        let mut step = redis::cmd("SCAN");
        step.arg(cursor).arg("MATCH").arg(glob);
        step.arg("COUNT").arg(STEP);
        if let Some(kind) = kind {
            step.arg("TYPE").arg(kind);
        }
        let (next, keys): (u64, Vec<String>) = link
            .run(|mut c| async move { step.query_async(&mut c).await })
            .await?;
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    // SCAN may answer a key twice.
    found.sort();
    found.dedup();
    Ok(found)
}

/// A walk along a stream, oldest entry first.
pub struct Walk {
    key: String,
    next: Option<EntryId>,
    last: EntryId,
}

impl Walk {
    /// From the first entry to `last`.
    pub fn to(key: String, last: EntryId) -> Self {
        let next = Some(EntryId::default());
        Self { key, next, last }
    }

    /// The next entries; none at the end. That is where it is when it is reached: a stream that grows is
    /// not followed.
    ///
    /// # Errors
    /// Redis could not be asked. The same entries come next.
    pub async fn page(&mut self, link: &Link) -> Result<Vec<Entry>, StoreError> {
        let Some(next) = self.next.filter(|next| *next <= self.last) else {
            return Ok(Vec::new());
        };
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.key).arg(next.to_string());
        range.arg(self.last.to_string()).arg("COUNT").arg(PAGE);
        let page: Vec<Entry> = link
            .run(|mut c| async move { range.query_async(&mut c).await })
            .await?;
        let full = page.last().filter(|_| page.len() == PAGE);
        self.next = full.and_then(|entry| entry.id.following());
        Ok(page)
    }
}
