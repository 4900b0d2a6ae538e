//! Whether a Redis server is one that the fleet may trust with its events.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::link::{Redis, StoreError};

/// What makes a server unfit: its settings, not its state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Older than 7.0.
    #[error("Redis {0} is too old: 7.0 or newer is needed (or Valkey 8)")]
    TooOld(String),
    /// It may throw keys away when memory is short, and with them events that it accepted.
    #[error(
        "maxmemory-policy is {0}: Redis may evict accepted events. Set it to noeviction: redis-cli CONFIG SET maxmemory-policy noeviction (and in redis.conf)"
    )]
    Evicts(String),
    /// Redis Cluster, whose slots our scripts would cross.
    #[error("this Redis runs in cluster mode, which is not supported yet: use one that does not")]
    Cluster,
}

/// Reads what the server says of itself.
///
/// # Errors
/// It cannot be reached. Whether it is fit is the inner result.
pub async fn check_server(redis: &Redis) -> Result<Result<(), Unfit>, StoreError> {
    let mut connection = redis.pool().await?;
    let info: String = redis::cmd("INFO")
        .query_async(&mut connection)
        .await
        .map_err(|e| redis.error(e))?;
    Ok(judge(&info))
}

/// How long the server process has been running.
///
/// # Errors
/// It cannot be reached.
pub async fn uptime(connection: &mut MultiplexedConnection) -> Result<Duration, RedisError> {
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(connection)
        .await?;
    let seconds = field(&info, "uptime_in_seconds").and_then(|text| text.parse().ok());
    Ok(Duration::from_secs(seconds.unwrap_or(u64::MAX)))
}

/// A field of what INFO answers.
pub fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn judge(info: &str) -> Result<(), Unfit> {
    let field = |name| field(info, name);
    // Valkey answers redis_version 7.2.4 for compatibility.
    let version = field("redis_version").unwrap_or("unknown");
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if major < 7 {
        return Err(Unfit::TooOld(version.to_owned()));
    }
    match field("maxmemory_policy") {
        Some("noeviction") | None => {}
        Some(policy) => return Err(Unfit::Evicts(policy.to_owned())),
    }
    match field("cluster_enabled") {
        Some("1") => Err(Unfit::Cluster),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_keeps_what_it_accepts_is_fit() {
        let info = |version: &str, policy: &str, cluster: u8| {
            format!(
                "# Server\r\nredis_version:{version}\r\nmaxmemory_policy:{policy}\r\ncluster_enabled:{cluster}\r\n"
            )
        };
        assert_eq!(judge(&info("7.0.15", "noeviction", 0)), Ok(()));
        assert_eq!(
            judge(&info("6.2.1", "noeviction", 0)),
            Err(Unfit::TooOld("6.2.1".into()))
        );
        assert_eq!(
            judge(&info("8.0.0", "allkeys-lru", 0)),
            Err(Unfit::Evicts("allkeys-lru".into()))
        );
        assert_eq!(judge(&info("7.2.4", "noeviction", 1)), Err(Unfit::Cluster));
        assert!(judge("").is_err());
    }
}
