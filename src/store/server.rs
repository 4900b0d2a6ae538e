//! What a Redis server says of itself: settings, state, clock.
//!
//! Redis: INFO, CONFIG GET and TIME, nothing else. A user whom the server's ACL denies one of
//! them, or a service that hides it, gets facts that say so instead of an error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};

use super::link::{Redis, StoreError};

/// The settings that INFO does not tell.
const SETTINGS: [&str; 2] = ["save", "stop-writes-on-bgsave-error"];
/// The quickest of so many answers tells the time best.
const CLOCK_SAMPLES: usize = 3;

/// What INFO answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(String);

impl Info {
    /// One field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }

    /// All lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.lines()
    }

    /// One field, if it is there and a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

#[cfg(test)]
impl From<&str> for Info {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// How far the clock of Redis is from this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// By how much Redis' clock is ahead; below zero: behind.
    pub ahead_ms: i64,
    /// How far off that may be: half the time that the answer took.
    pub within_ms: u64,
}

impl ClockOffset {
    /// From one answer of TIME: when it was asked, how long it took, what it said.
    fn measured(asked: Duration, took: Duration, answered: Duration) -> Self {
        let half = took / 2;
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self {
            ahead_ms: ms(answered).saturating_sub(ms(asked + half)),
            within_ms: half.as_millis() as u64 + 1,
        }
    }
}

/// What is known of a server; `None` is what it would not tell this user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// What INFO answers.
    pub info: Option<Info>,
    /// What CONFIG GET answers.
    pub settings: Option<BTreeMap<String, String>>,
    /// What TIME answers.
    pub clock: Option<ClockOffset>,
}

impl ServerFacts {
    /// Asks the server.
    ///
    /// # Errors
    /// It cannot be reached, or is not ready to answer.
    pub async fn read(redis: &Redis) -> Result<Self, StoreError> {
        let mut connection = redis.dedicated(Duration::ZERO).await?;
        let asked = async {
            // Other than INFO, PING is refused while the server loads its data; that it is also
            // refused while the disk fails is for INFO to explain.
            match redis::cmd("PING").exec_async(&mut connection).await {
                Err(error) if error.code() != Some("MISCONF") => return Err(error),
                _ => {}
            }
            Ok(Self {
                info: info(&mut connection, "default").await?,
                settings: settings(&mut connection).await?,
                clock: clock(&mut connection).await?,
            })
        };
        asked.await.map_err(|e| redis.error(e))
    }
}

/// What INFO answers for a section; `None` if this user may not ask.
///
/// # Errors
/// The server cannot be reached.
pub async fn info(
    connection: &mut MultiplexedConnection,
    section: &str,
) -> Result<Option<Info>, RedisError> {
    let mut query = redis::cmd("INFO");
    let answer = query.arg(section).query_async(connection).await;
    Ok(if_told(answer)?.map(Info))
}

/// How long the server process has been running; `None` if this user may not ask.
///
/// # Errors
/// The server cannot be reached.
pub async fn uptime(
    connection: &mut MultiplexedConnection,
) -> Result<Option<Duration>, RedisError> {
    let seconds = info(connection, "server")
        .await?
        .and_then(|info| info.number("uptime_in_seconds"));
    Ok(seconds.map(Duration::from_secs))
}

/// What the clock of Redis says, since 1970.
///
/// # Errors
/// The server cannot be reached.
pub async fn time(connection: &mut MultiplexedConnection) -> Result<Duration, RedisError> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

async fn settings(
    connection: &mut MultiplexedConnection,
) -> Result<Option<BTreeMap<String, String>>, RedisError> {
    let mut all = BTreeMap::new();
    for name in SETTINGS {
        let mut query = redis::cmd("CONFIG");
        let answer = query.arg("GET").arg(name).query_async(connection).await;
        match if_told::<BTreeMap<String, String>>(answer)? {
            Some(found) => all.extend(found),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

async fn clock(connection: &mut MultiplexedConnection) -> Result<Option<ClockOffset>, RedisError> {
    let mut best: Option<ClockOffset> = None;
    for _ in 0..CLOCK_SAMPLES {
        let (asked, since) = (SystemTime::now(), Instant::now());
        let answer = time(connection).await;
        let took = since.elapsed();
        let Some(answered) = if_told(answer)? else {
            return Ok(None);
        };
        let sample = ClockOffset::measured(
            asked.duration_since(UNIX_EPOCH).unwrap_or_default(),
            took,
            answered,
        );
        if best.is_none_or(|best| sample.within_ms < best.within_ms) {
            best = Some(sample);
        }
    }
    Ok(best)
}

/// `None` for what this user may not ask (ACL), or nobody (a service that took the command away).
fn if_told<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            let unknown = || {
                error
                    .detail()
                    .is_some_and(|d| d.starts_with("unknown command"))
            };
            let hidden = matches!(error.kind(), ErrorKind::Server(_)) && unknown();
            match error.code() == Some("NOPERM") || hidden {
                true => Ok(None),
                false => Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_whole_name() {
        let info = Info::from("# Memory\r\nused_memory_human:1M\r\nused_memory: 12 \r\n");
        assert_eq!(info.field("used_memory"), Some("12"));
        assert_eq!(info.number("used_memory"), Some(12));
        assert_eq!(info.number("used_memory_human"), None);
        assert_eq!(info.field("memory"), None);
    }

    /// The answer was given about halfway between question and arrival.
    #[test]
    fn half_the_round_trip_is_no_skew() {
        let s = Duration::from_secs;
        let even = ClockOffset::measured(s(100), s(4), s(102));
        assert_eq!((even.ahead_ms, even.within_ms), (0, 2001));
        let ahead = ClockOffset::measured(s(100), Duration::ZERO, s(160));
        assert_eq!((ahead.ahead_ms, ahead.within_ms), (60_000, 1));
        let behind = ClockOffset::measured(s(100), Duration::ZERO, s(40));
        assert_eq!(behind.ahead_ms, -60_000);
    }
}
