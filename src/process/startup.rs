//! Whether a process may start on its Redis: waits until it can, refuses what it must not trust,
//! and says what the operator should know.

use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;
use crate::store::{Finding, Redis, ServerFacts, Severity, StoreError, findings, retry_until};

/// How long a starting process waits for Redis before it gives up with exit code 69. Longer than
/// systemd's default interval for 5 starts (10 s) divided by 5, so that a unit that restarts it
/// never reaches that limit, however long Redis is away.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Redis may be starting at the same time, loading its data, or waiting for its promotion.
pub(super) async fn accept(redis: &Redis) -> Result<(), StoreError> {
    let deadline = Instant::now() + START_PATIENCE;
    let hopeless = |error: &StoreError| Exit::from(error) != Exit::Unreachable;
    let found = retry_until(Some(deadline), hopeless, |_| async {
        fit(redis, findings(&ServerFacts::read(redis).await?))
    })
    .await?;
    for finding in found {
        match finding.severity() {
            Severity::Note => tracing::info!(server = redis.server(), "note: {finding}"),
            _ => tracing::warn!(server = redis.server(), "{finding}"),
        }
    }
    Ok(())
}

/// What is left to say about a server that may be used.
fn fit(redis: &Redis, found: Vec<Finding>) -> Result<Vec<Finding>, StoreError> {
    let (against, rest): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|f| matches!(f.severity(), Severity::Refuse | Severity::Wait));
    match against.is_empty() {
        true => Ok(rest),
        false => Err(StoreError::Unfit {
            server: redis.server().to_owned(),
            reasons: against,
        }),
    }
}
