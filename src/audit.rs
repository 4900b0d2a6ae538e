//! The audit as it is read: what came to the door, and what became of it.
//!
//! Redis: `audit`, which the router's scripts write while routing.yaml asks for it and the janitor
//! trims. Reading goes back from the newest in bounded pages.

use crate::store::{Entry, EntryId, Keys, Link, StoreError};

/// Records read at a time.
const PAGE: usize = 500;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its entry ID.
    pub entry: EntryId,
    /// Event ID, where it could be read.
    pub event_id: Option<String>,
    /// Event type, where it could be read.
    pub event_type: Option<String>,
    /// Who published it, where the event says so.
    pub source: Option<String>,
    /// When it was at the door, RFC 3339.
    pub at: String,
    /// `routed`, `scheduled`, `duplicate`, or `refused:<reason>`.
    pub outcome: String,
    /// The key that it went to; nothing for a duplicate.
    pub stream: Option<String>,
}

impl Record {
    fn from_entry(entry: &Entry) -> Self {
        let text = |name: &str| {
            let value = entry.fields.get(name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Self {
            entry: entry.id,
            event_id: text("id"),
            event_type: text("type"),
            source: text("source"),
            at: text("at").unwrap_or_default(),
            outcome: text("outcome").unwrap_or_default(),
            stream: text("stream"),
        }
    }
}

/// Which records; everything that is set must fit.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this event.
    pub event_id: Option<String>,
    /// Only of events that this published.
    pub source: Option<String>,
}

impl AuditFilter {
    /// Whether a record fits.
    pub fn fits(&self, record: &Record) -> bool {
        let fit = |wanted: &Option<String>, found: &Option<String>| {
            wanted.is_none() || wanted.as_deref() == found.as_deref()
        };
        fit(&self.event_id, &record.event_id) && fit(&self.source, &record.source)
    }
}

/// The newest records that fit, the newest first, `limit` at most; and whether there are more.
///
/// # Errors
/// Redis could not be asked.
pub async fn newest(
    link: &Link,
    keys: &Keys,
    filter: &AuditFilter,
    limit: usize,
) -> Result<(Vec<Record>, bool), StoreError> {
    let (key, mut found) = (keys.audit(), Vec::new());
    let mut before = "+".to_owned();
    loop {
        let mut read = redis::cmd("XREVRANGE");
        read.arg(&key).arg(&before).arg("-");
        read.arg("COUNT").arg(PAGE);
        let page: Vec<Entry> = link
            .run(|mut c| async move { read.query_async(&mut c).await })
            .await?;
        for record in page.iter().map(Record::from_entry) {
            if !filter.fits(&record) {
                continue;
            }
            if found.len() == limit {
                return Ok((found, true));
            }
            found.push(record);
        }
        match page.last() {
            Some(oldest) if page.len() == PAGE => before = format!("({}", oldest.id),
            _ => return Ok((found, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Fields;

    #[test]
    fn everything_that_is_set_must_fit() {
        let fields = [("id", "e1"), ("source", "web"), ("outcome", "duplicate")];
        let pair = |(n, v): (&str, &str)| (n.as_bytes().to_vec(), v.as_bytes().to_vec());
        let record = Record::from_entry(&Entry {
            id: EntryId::default(),
            fields: Fields(fields.map(pair).into()),
        });
        assert_eq!(
            (record.stream.as_deref(), &*record.outcome),
            (None, "duplicate")
        );
        let filter = |event_id: Option<&str>, source: Option<&str>| AuditFilter {
            event_id: event_id.map(Into::into),
            source: source.map(Into::into),
        };
        assert!(filter(None, None).fits(&record));
        assert!(filter(Some("e1"), Some("web")).fits(&record));
        assert!(!filter(Some("e1"), Some("app")).fits(&record));
        assert!(!filter(Some("e2"), None).fits(&record));
    }
}
