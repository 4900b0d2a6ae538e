//! Writing what a command asked for: outside of any delivery, once, wholly or not at all.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ParsingError, RedisError, Value};
use uuid::Uuid;

use super::{Asked, WRITE};

/// What became of a command's writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// They happened.
    Done,
    /// Another writer had done it before, under the same mark; nothing was written.
    Repeated,
    /// A condition no longer held; nothing was written.
    Conflict,
    /// An effect could not be applied; nothing was written. Why.
    Invalid(String),
}

impl FromRedisValue for Written {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        if let Value::Array(_) = value {
            let (_, why) = <(String, String)>::from_redis_value(value)?;
            return Ok(Self::Invalid(why));
        }
        match String::from_redis_value(value)?.as_str() {
            "DONE" => Ok(Self::Done),
            "REPEATED" => Ok(Self::Repeated),
            "CONFLICT" => Ok(Self::Conflict),
            other => Err(format!("unknown answer {other:?} of the write script").into()),
        }
    }
}

/// Writes what was asked for, unless `mark` tells that this was done before, by this writer or by
/// another. The mark is kept for `mark_ttl_ms`.
///
/// # Errors
/// Whether it happened is unknown: to be sent again, with the same mark.
pub async fn write(
    connection: &mut MultiplexedConnection,
    mark: &str,
    mark_ttl_ms: u64,
    writer: Uuid,
    inbox: &str,
    asked: &Asked,
) -> Result<Written, RedisError> {
    let mut call = WRITE.key(mark);
    call.key(inbox).key(&asked.keys);
    let shape = format!(
        "{} {} {}",
        asked.conditions, asked.effects, asked.follow_ups
    );
    call.arg(mark_ttl_ms)
        .arg(writer.to_string())
        .arg(shape)
        .arg(&asked.values);
    call.invoke_async(connection).await
}
