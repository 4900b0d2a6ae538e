//! Connections: opened with deadlines, rebuilt after any fault, never hidden behind a retry
//! that could apply a command twice.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, ServerErrorKind};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access::{Access, AccessError, Distrust, TlsFiles, distrust};
use super::findings::Finding;
use crate::metrics;
use crate::retry::RECONNECT;

/// How long a short command may go unanswered before its connection is given up.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pooled connections, opened when they are needed; each is held for one command.
const POOL_SIZE: usize = 16;

/// What can go wrong between us and Redis.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is said about the server is nothing that this program can use.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Redis could not be reached, or answered with an error.
    #[error("Redis at {server}: {cause}{}", advice(.cause))]
    Redis {
        /// The server, without credentials.
        server: String,
        /// What the client library reported.
        cause: RedisError,
    },
    /// The pool of short connections could not be used.
    #[error("Redis at {server}: {cause}")]
    Pool {
        /// The server, without credentials.
        server: String,
        /// What the pool reported.
        cause: deadpool_redis::PoolError,
    },
    /// Redis answers, but is none to start on: these are the reasons.
    #[error("Redis at {server}: {}", texts(.reasons))]
    Unfit {
        /// The server, without credentials.
        server: String,
        /// What speaks against it.
        reasons: Vec<Finding>,
    },
}

/// What helps, where the client library's text does not say it.
fn advice(cause: &RedisError) -> &'static str {
    match distrust(cause) {
        Some(Distrust::OfServer) => {
            return ". The server's certificate is not accepted: name who vouches for it in STREAMFLEET_REDIS_CA_FILE, and the server in the URL as the certificate does";
        }
        Some(Distrust::OfUs) => {
            return ". The server asks for a certificate that it can accept: STREAMFLEET_REDIS_CERT_FILE and STREAMFLEET_REDIS_KEY_FILE";
        }
        None => {}
    }
    match cause.kind() {
        redis::ErrorKind::AuthenticationFailed => {
            ". The user or the password is not accepted; if it was changed, restart this process with the new one"
        }
        _ if lacks_a_right(cause) => {
            ". This user of Redis lacks a right: ACL LOG names it to an administrator; scripts/redis/users.acl has what each part needs"
        }
        _ => "",
    }
}

/// In a script, Redis says so in words alone.
fn lacks_a_right(cause: &RedisError) -> bool {
    cause.code() == Some("NOPERM")
        || cause
            .detail()
            .is_some_and(|told| told.starts_with("The user executing the script can't"))
}

fn texts(reasons: &[Finding]) -> String {
    let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    texts.join("; and ")
}

impl StoreError {
    /// The client library's error, where there is one.
    pub fn redis(&self) -> Option<&RedisError> {
        match self {
            Self::Redis { cause, .. } => Some(cause),
            Self::Pool {
                cause: deadpool_redis::PoolError::Backend(cause),
                ..
            } => Some(cause),
            _ => None,
        }
    }
}

/// Whether Redis says that a stream or group is not there (FLUSHALL, an empty replica
/// promoted, a group destroyed): nothing that reconnecting could heal.
pub fn is_dataset_gone(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP")
}

/// A Redis server: how to reach it, and a pool of short connections to it.
#[derive(Clone)]
pub struct Redis {
    client: redis::Client,
    pool: deadpool_redis::Pool,
    server: Arc<str>,
    tls: Arc<TlsFiles>,
}

impl Redis {
    /// Prepares connections; nothing is opened yet. What access needs of files is read now, once.
    pub fn open(access: impl Into<Access>) -> Result<Self, StoreError> {
        let access = access.into();
        let info = access.connection_info()?;
        let server: Arc<str> = info.addr().to_string().into();
        let unusable = |e: RedisError| AccessError::Url(e.to_string());
        let manager =
            deadpool_redis::Manager::new_with_config(info.clone(), config(RESPONSE_TIMEOUT))
                .map_err(unusable)?;
        let pool = deadpool_redis::Pool::builder(manager)
            .max_size(POOL_SIZE)
            .runtime(deadpool_redis::Runtime::Tokio1)
            .wait_timeout(Some(RESPONSE_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|e| AccessError::Url(e.to_string()))?;
        Ok(Self {
            client: redis::Client::open(info).map_err(unusable)?,
            pool,
            server,
            tls: Arc::new(access.into_tls()),
        })
    }

    /// The server's address, without credentials: fit for logs.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// `redis-cli` with what leads it to this server; a password is not among it.
    pub fn redis_cli(&self) -> String {
        super::cli::redis_cli(self.client.get_connection_info(), &self.tls)
    }

    /// A pooled connection for short commands.
    pub async fn pool(&self) -> Result<deadpool_redis::Connection, StoreError> {
        self.pool.get().await.map_err(|cause| StoreError::Pool {
            server: self.server.to_string(),
            cause,
        })
    }

    /// A connection of one's own whose answers may take `patience` (BLOCK) and then some.
    pub async fn dedicated(&self, patience: Duration) -> Result<MultiplexedConnection, StoreError> {
        let config = config(patience + RESPONSE_TIMEOUT);
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|e| self.error(e))
    }

    /// A connection that blocks its thread, for who has no runtime.
    pub fn blocking(&self) -> Result<redis::Connection, StoreError> {
        self.client.get_connection().map_err(|e| self.error(e))
    }

    /// Wraps an error of the client library with the server's address.
    pub fn error(&self, cause: RedisError) -> StoreError {
        StoreError::Redis {
            server: self.server.to_string(),
            cause,
        }
    }

    /// A shared connection that heals.
    pub fn link(&self) -> Link {
        Link {
            redis: self.clone(),
            state: Arc::default(),
            epoch: Arc::default(),
            proven: Arc::default(),
            answers: Arc::default(),
        }
    }
}

fn config(response: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response))
}

/// One multiplexed connection shared by the tasks of a process. A fault drops it; the next
/// user builds a new one. A command is sent once: whether to send it again is the caller's
/// decision, because only the caller knows what a repetition means.
#[derive(Clone)]
pub struct Link {
    redis: Redis,
    state: Arc<Mutex<LinkState>>,
    epoch: Arc<AtomicU64>,
    /// The newest connection on which anything was answered without an error.
    proven: Arc<AtomicU64>,
    /// How many exchanges were.
    answers: Arc<AtomicU64>,
}

#[derive(Default)]
struct LinkState {
    connection: Option<MultiplexedConnection>,
    failed: Option<Failed>,
}

/// A connection that could not be built, or was useless from the start.
struct Failed {
    at: Instant,
    cause: RedisError,
    in_a_row: u32,
    /// No attempt before. The users of a link back off each on their own: a hundred deliveries
    /// that wait to be settled would be a hundred attempts at a time.
    next: Instant,
}

/// The longest pause: shorter than what a process that must end waits for its last exchanges.
const MOST_PAUSE: Duration = Duration::from_millis(500);

/// A failure this long after the one before is none of the same outage.
const CALM: Duration = Duration::from_secs(10);

impl LinkState {
    fn fail(&mut self, cause: RedisError) {
        let at = Instant::now();
        let before = self.failed.as_ref().filter(|f| at - f.at < CALM);
        let in_a_row = before.map_or(0, |f| f.in_a_row).saturating_add(1);
        self.failed = Some(Failed {
            at,
            cause,
            in_a_row,
            next: at + RECONNECT.delay(in_a_row).min(MOST_PAUSE),
        });
    }
}

impl Link {
    /// The server behind it.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// How many connections were built so far: a change tells of an outage in between.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Runs one exchange on the shared connection.
    pub async fn run<T, F, Fut>(&self, exchange: F) -> Result<T, StoreError>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = Result<T, RedisError>>,
    {
        let (connection, epoch) = self.connect().await?;
        self.exchange(connection, epoch, exchange).await
    }

    /// Runs one exchange only if no outage came between: `None` if the connection is another
    /// than the one of `epoch`.
    pub async fn run_on<T, F, Fut>(&self, epoch: u64, exchange: F) -> Result<Option<T>, StoreError>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = Result<T, RedisError>>,
    {
        let (connection, current) = self.connect().await?;
        if current != epoch {
            return Ok(None);
        }
        self.exchange(connection, epoch, exchange).await.map(Some)
    }

    /// How many exchanges were answered so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// If nothing was answered since there were so many answers: the next exchange builds a
    /// connection of its own, and those under way keep theirs.
    pub async fn replace_if_silent(&self, since: u64) {
        let mut state = self.state.lock().await;
        if self.answers() == since {
            state.connection = None;
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), self.epoch()));
        }
        if let Some(failed) = &state.failed {
            // Who waited in line while an attempt failed shares its failure: otherwise the last
            // of n would wait for n time-outs.
            if failed.at >= asked {
                return Err(self.redis.error(failed.cause.clone()));
            }
            tokio::time::sleep_until(failed.next).await;
        }
        match self.redis.dedicated(Duration::ZERO).await {
            Ok(fresh) => {
                state.connection = Some(fresh.clone());
                Ok((fresh, self.epoch.fetch_add(1, Ordering::Relaxed) + 1))
            }
            Err(error) => {
                if let Some(cause) = error.redis() {
                    state.fail(cause.clone());
                }
                Err(error)
            }
        }
    }

    async fn exchange<T, F, Fut>(
        &self,
        connection: MultiplexedConnection,
        epoch: u64,
        exchange: F,
    ) -> Result<T, StoreError>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = Result<T, RedisError>>,
    {
        let asked = metrics::on().then(Instant::now);
        match exchange(connection).await {
            Ok(answer) => {
                if let Some(asked) = asked {
                    metrics::REDIS.took(asked.elapsed());
                }
                self.proven.fetch_max(epoch, Ordering::Relaxed);
                self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Err(cause) => {
                if asked.is_some() {
                    metrics::REDIS_ERRORS.add(1);
                }
                if loses_connection(&cause) {
                    let mut state = self.state.lock().await;
                    if self.epoch() == epoch && state.connection.take().is_some() {
                        // One that worked and broke is replaced at once. One that never did, or
                        // whose server is the wrong one, may be followed by many of its kind.
                        let worked = self.proven.load(Ordering::Relaxed) == epoch;
                        if !(worked && cause.is_io_error()) {
                            state.fail(cause.clone());
                        }
                    }
                }
                Err(self.redis.error(cause))
            }
        }
    }
}

/// After these the answers on a connection can no longer be trusted to belong to their
/// questions, or the server behind it is not the one to write to.
pub fn loses_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            redis::ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
                | redis::ErrorKind::AuthenticationFailed
        )
}

/// Whether Redis refuses a key, because it is not of the type that it should be or this user has no right to it.
/// Others may be well.
pub fn refuses_key(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGTYPE" | "NOPERM"))
}

/// To a plain command Redis answers that a key has the wrong type, but not which of `keys`: this
/// finds it, and says so as our scripts do.
pub async fn name_wrong_type(
    link: &Link,
    cause: RedisError,
    keys: &[&str],
    kind: &str,
) -> RedisError {
    if cause.code() != Some("WRONGTYPE") {
        return cause;
    }
    for key in keys {
        let query = |mut c| async move {
            redis::cmd("TYPE")
                .arg(key)
                .query_async::<String>(&mut c)
                .await
        };
        match link.run(query).await {
            Ok(actual) if actual != kind && actual != "none" => {
                let detail = format!("key {key} is a {actual}, expected a {kind}");
                return redis::make_extension_error("WRONGTYPE".to_owned(), Some(detail));
            }
            _ => {}
        }
    }
    cause
}

/// Redis says that a right to a key is lacking, but not to which of those of a script: this names them.
pub fn name_denied(cause: RedisError, keys: &[&str]) -> RedisError {
    if cause.code() != Some("NOPERM") || !cause.to_string().contains("to access") {
        return cause;
    }
    let detail = format!(
        "this user has no right to one of the keys {}",
        keys.join(", ")
    );
    redis::make_extension_error("NOPERM".to_owned(), Some(detail))
}

/// Repeats `exchange` with bounded backoff until it succeeds, `give_up` says that its error
/// cannot heal, or `deadline` has passed. For exchanges whose repetition is harmless.
pub async fn retry_until<T, Fut>(
    deadline: Option<Instant>,
    give_up: impl Fn(&StoreError) -> bool,
    mut exchange: impl FnMut(u32) -> Fut,
) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut failures = 0;
    loop {
        let error = match exchange(failures).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        failures += 1;
        let delay = RECONNECT.delay(failures);
        if give_up(&error) || deadline.is_some_and(|d| Instant::now() + delay >= d) {
            return Err(error);
        }
        tracing::warn!(%error, failures, "Redis did not answer as it should; trying again");
        tokio::time::sleep(delay).await;
    }
}
