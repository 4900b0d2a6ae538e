//! Cutting history.

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::super::codec::EntryId;
use super::TRIM;

/// What one step of trimming did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Entries deleted.
    pub trimmed: u64,
    /// Entries above `maxlen` that remain.
    pub excess: u64,
    /// The group that holds back what should go, or empty.
    pub held_by: String,
    /// A group that must exist and does not (nothing is trimmed then), or empty.
    pub missing: String,
}

/// Trims one step of a stream.
pub async fn trim(
    connection: &mut MultiplexedConnection,
    stream: &str,
    maxlen: Option<u64>,
    oldest: Option<EntryId>,
    step: usize,
    groups: &[String],
) -> Result<Trimmed, RedisError> {
    let mut call = TRIM.key(stream);
    call.arg(maxlen.map(|n| n.to_string()).unwrap_or_default());
    call.arg(oldest.map(|id| id.to_string()).unwrap_or_default())
        .arg(step)
        .arg(groups);
    let (trimmed, excess, held_by, missing) = call.invoke_async(connection).await?;
    Ok(Trimmed {
        trimmed,
        excess,
        held_by,
        missing,
    })
}
