//! Who announced itself. Processes are found by their fields in `fleet`, so that looking for them costs the
//! same however many keys there are; `worker:<subscriber>:<name>` expires when one gives no sign of life.

use crate::store::{self, Keys, Link, StoreError};

/// Subscriber and name of every process that announced itself, sorted; some may be dead by now.
pub async fn announced(link: &Link, keys: &Keys) -> Result<Vec<(String, String)>, StoreError> {
    let fleet = keys.fleet();
    let fields: Vec<String> = link
        .run(|mut c| async move { redis::cmd("HKEYS").arg(fleet).query_async(&mut c).await })
        .await?;
    let found = fields.iter().filter_map(|field| Keys::worker_of(field));
    let mut names: Vec<_> = found
        .map(|(subscriber, name)| (subscriber.to_owned(), name.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Forgets those that died without a goodbye.
pub(crate) async fn forget_dead(link: &Link, keys: &Keys) -> Result<(), StoreError> {
    for (subscriber, name) in announced(link, keys).await? {
        let (fleet, worker) = (keys.fleet(), keys.worker(&subscriber, &name));
        let field = Keys::fleet_worker(&subscriber, &name);
        link.run(
            |mut c| async move { store::forget_worker(&mut c, &fleet, &worker, &field).await },
        )
        .await?;
    }
    Ok(())
}
