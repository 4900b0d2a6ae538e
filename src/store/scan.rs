//! Walking the key space, for the operator only: it costs Redis a look at every key, in steps
//! that block nobody.

use super::{Link, StoreError};

/// Keys looked at per step.
const STEP: usize = 2_000;

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
