//! What stops all workers of a subscriber, and lets them go on: pause, resume, circuit breaker.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value};

use super::{END_PROBE, OPEN_BREAKER, PAUSE, READ_CONTROL, RESUME, TAKE_PROBE};

/// The server's clock (ms, 1970), and these fields of a subscriber's control.
pub async fn read_control<const N: usize>(
    connection: &mut MultiplexedConnection,
    control: &str,
    fields: &[&str; N],
) -> Result<(u64, [Option<String>; N]), RedisError> {
    let mut call = READ_CONTROL.key(control);
    call.arg(fields.as_slice());
    call.invoke_async(connection).await
}

/// Pauses a subscriber until that moment (ms, 1970, the server's clock), or until it is resumed.
pub async fn pause(
    connection: &mut MultiplexedConnection,
    control: &str,
    until_ms: Option<i64>,
    by: &str,
    why: &str,
) -> Result<(), RedisError> {
    let until = until_ms.map_or_else(|| "resumed".to_owned(), |ms| ms.to_string());
    let mut call = PAUSE.key(control);
    call.arg(until).arg(by).arg(why);
    call.invoke_async::<Value>(connection).await.map(drop)
}

/// Ends a pause; answers whether there was one.
pub async fn resume(
    connection: &mut MultiplexedConnection,
    control: &str,
) -> Result<bool, RedisError> {
    RESUME.key(control).invoke_async(connection).await
}

/// The keys that a change of the circuit breaker touches.
#[derive(Clone, Debug)]
pub struct BreakerKeys {
    /// Of its state.
    pub control: String,
    /// Of the counters.
    pub stats: String,
    /// Where an event tells of the change.
    pub inbox: String,
}

/// Opens the breaker; false if it was not closed. `event` tells of it, if it is not empty.
pub async fn open_breaker(
    connection: &mut MultiplexedConnection,
    keys: &BreakerKeys,
    for_ms: u64,
    why: &str,
    flow: &str,
    event: &[u8],
) -> Result<bool, RedisError> {
    let mut call = OPEN_BREAKER.key(&keys.control);
    call.key(&keys.stats).key(&keys.inbox);
    call.arg(for_ms).arg(why).arg(flow).arg(event);
    call.invoke_async(connection).await
}

/// What became of the wish for a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTaken {
    /// None is needed.
    Closed,
    /// It is too early.
    Open,
    /// Others have all of them.
    None,
    /// One delivery may run.
    Given {
        /// How often the breaker has opened in a row.
        opened: u32,
        /// When it opened first (ms, 1970, the server's clock).
        first_ms: u64,
        /// Correlation ID of the events that tell of this outage.
        flow: String,
    },
}

/// Takes a probe under the name `token`, good for `good_for_ms`, if fewer than `most` are under way
/// or have passed.
pub async fn take_probe(
    connection: &mut MultiplexedConnection,
    control: &str,
    token: &str,
    most: u32,
    good_for_ms: u64,
) -> Result<ProbeTaken, RedisError> {
    let mut call = TAKE_PROBE.key(control);
    call.arg(token).arg(most).arg(good_for_ms);
    let mut words = call
        .invoke_async::<Vec<Value>>(connection)
        .await?
        .into_iter();
    let mut next = || words.next().unwrap_or(Value::Nil);
    let word = String::from_redis_value(next())?;
    Ok(match word.as_str() {
        "CLOSED" => ProbeTaken::Closed,
        "OPEN" => ProbeTaken::Open,
        "GIVEN" => ProbeTaken::Given {
            opened: FromRedisValue::from_redis_value(next())?,
            first_ms: FromRedisValue::from_redis_value(next())?,
            flow: FromRedisValue::from_redis_value(next())?,
        },
        _ => ProbeTaken::None,
    })
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeEnd<'a> {
    /// What the handler depends on is there; so many must find that.
    Passed(u32),
    /// It is still down.
    Failed {
        /// For how long the breaker opens again.
        for_ms: u64,
        /// What the handler said.
        why: &'a str,
    },
    /// Nothing: it is given back.
    Back,
}

/// What the end of a probe led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeEnded {
    /// It came too late, or the breaker had changed before: nothing was written.
    Gone,
    /// It counts, and changes nothing yet.
    Taken,
    /// The breaker is closed.
    Closed,
    /// It is open again.
    Opened,
}

/// Ends a probe; `event` tells of the change that it may lead to, if it is not empty.
pub async fn end_probe(
    connection: &mut MultiplexedConnection,
    keys: &BreakerKeys,
    token: &str,
    end: ProbeEnd<'_>,
    event: &[u8],
) -> Result<ProbeEnded, RedisError> {
    let (word, must_pass, for_ms, why) = match end {
        ProbeEnd::Passed(must_pass) => ("passed", must_pass, 0, ""),
        ProbeEnd::Failed { for_ms, why } => ("failed", 0, for_ms, why),
        ProbeEnd::Back => ("back", 0, 0, ""),
    };
    let mut call = END_PROBE.key(&keys.control);
    call.key(&keys.stats).key(&keys.inbox);
    call.arg(token).arg(word).arg(must_pass).arg(for_ms);
    call.arg(why).arg(event);
    let word: String = call.invoke_async(connection).await?;
    Ok(match word.as_str() {
        "TAKEN" => ProbeEnded::Taken,
        "CLOSED" => ProbeEnded::Closed,
        "OPENED" => ProbeEnded::Opened,
        _ => ProbeEnded::Gone,
    })
}
