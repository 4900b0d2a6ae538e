//! Who a process is, and whether it still is.

use std::sync::LazyLock;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use super::{configuration, figures};
use crate::routing::Config;
pub use crate::store::Membership;
use crate::store::{self, Announce, Holder, Keys, Link, StoreError, name_wrong_type};

/// How long a worker counts as alive after its last sign of life.
pub const WORKER_TTL: Duration = Duration::from_secs(15);
/// How often it gives one.
pub const HEARTBEAT: Duration = Duration::from_secs(4);

/// Field of `fleet`: the configuration that a router was the last to begin to route by.
pub(crate) const ROUTING: &str = "routing";
/// When this process announced itself first.
static STARTED: LazyLock<jiff::Timestamp> = LazyLock::new(jiff::Timestamp::now);

/// Who a process is within its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group: a subscriber, or [`ROUTER`](super::ROUTER).
    pub subscriber: String,
    /// Stable across restarts.
    pub name: String,
    /// Drawn at every start, so that a predecessor is told apart.
    pub nonce: String,
}

impl Identity {
    /// The consumer in Redis.
    pub fn consumer(&self) -> String {
        format!("{}.{}", self.name, self.nonce)
    }

    /// Announces itself under `name`, replacing whoever had it; without a name under
    /// `<host>-<n>` with the first number that nobody alive uses.
    pub async fn announce(
        link: &Link,
        keys: &Keys,
        subscriber: &str,
        name: Option<&str>,
    ) -> Result<Self, StoreError> {
        let mut identity = Self {
            subscriber: subscriber.to_owned(),
            name: String::new(),
            nonce: Self::fresh_nonce(),
        };
        let how = if name.is_some() {
            Announce::Replace
        } else {
            Announce::Claim
        };
        for number in 1.. {
            identity.name = name.map_or_else(|| format!("{}-{number}", host()), str::to_owned);
            if identity.register(link, keys, how).await? {
                break;
            }
        }
        Ok(identity)
    }

    /// Announces itself under a name that is to be had once: nothing if somebody alive has it.
    pub async fn claim(
        link: &Link,
        keys: &Keys,
        subscriber: &str,
        name: &str,
    ) -> Result<Option<Self>, StoreError> {
        let identity = Self {
            subscriber: subscriber.to_owned(),
            name: name.to_owned(),
            nonce: Self::fresh_nonce(),
        };
        let ours = identity.register(link, keys, Announce::Claim).await?;
        Ok(ours.then_some(identity))
    }

    fn fresh_nonce() -> String {
        Uuid::new_v4().simple().to_string()[..8].to_owned()
    }

    /// A sign of life. False: another process has taken the name over.
    pub async fn renew(&self, link: &Link, keys: &Keys) -> Result<bool, StoreError> {
        self.register(link, keys, Announce::Renew).await
    }

    async fn register(&self, link: &Link, keys: &Keys, how: Announce) -> Result<bool, StoreError> {
        let key = keys.worker(&self.subscriber, &self.name);
        let (fleet, field) = (
            keys.fleet(),
            Keys::fleet_worker(&self.subscriber, &self.name),
        );
        let fields: Vec<_> = [
            ("host", host()),
            ("pid", std::process::id().to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("seen", jiff::Timestamp::now().to_string()),
            ("started", STARTED.to_string()),
            ("draining", u8::from(figures::is_draining()).to_string()),
        ]
        .into_iter()
        .chain(configuration::fields())
        .chain(figures::fields())
        .collect();
        let ttl = WORKER_TTL.as_millis() as u64;
        link.run(|mut c| async move {
            let found_by = (fleet.as_str(), field.as_str());
            store::register_worker(&mut c, &key, found_by, &self.nonce, ttl, how, &fields).await
        })
        .await
    }

    /// Takes the announcement back, unless another process has the name by now.
    pub async fn withdraw(&self, link: &Link, keys: &Keys) -> Result<(), StoreError> {
        self.register(link, keys, Announce::Withdraw)
            .await
            .map(drop)
    }
}

/// This machine's name, for consumers and letters.
pub fn host() -> String {
    let system = rustix::system::uname();
    let plain: String = system
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(64)
        .collect();
    if plain.is_empty() {
        "host".to_owned()
    } else {
        plain
    }
}

/// Whether a consumer is an earlier life of this name.
fn is_predecessor(consumer: &str, identity: &Identity) -> bool {
    match consumer.rsplit_once('.') {
        Some((name, nonce)) => name == identity.name && nonce != identity.nonce && nonce.len() == 8,
        None => false,
    }
}

/// Joins the fleet with a configuration.
pub async fn join(link: &Link, keys: &Keys, config: &Config) -> Result<Membership, StoreError> {
    let fleet = keys.fleet();
    let fresh = Uuid::new_v4().to_string();
    let fingerprint = &config.fingerprint();
    link.run(|mut c| async move { store::join_fleet(&mut c, &fleet, &fresh, fingerprint).await })
        .await
}

/// A router says which configuration it routes by from now on.
pub async fn route_by(link: &Link, keys: &Keys, config: &Config) -> Result<(), StoreError> {
    let (fleet, fingerprint) = (keys.fleet(), config.fingerprint());
    link.run(|mut c| async move {
        let mut say = redis::cmd("HSET");
        say.arg(fleet).arg(ROUTING).arg(fingerprint);
        say.exec_async(&mut c).await
    })
    .await
}

/// The fingerprint of the configuration that a router was the last to begin to route by.
pub async fn routed_by(link: &Link, keys: &Keys) -> Result<Option<String>, StoreError> {
    let fleet = keys.fleet();
    link.run(|mut c| async move {
        let mut ask = redis::cmd("HGET");
        ask.arg(fleet).arg(ROUTING).query_async(&mut c).await
    })
    .await
}

/// The dataset that Redis holds now, if it holds one.
pub async fn current_dataset(link: &Link, keys: &Keys) -> Result<Option<String>, StoreError> {
    let fleet = keys.fleet();
    let fleet = fleet.as_str();
    link.run(|mut c| async move {
        let mut query = redis::cmd("HGET");
        let answer = query.arg(fleet).arg("dataset").query_async(&mut c).await;
        match answer {
            Err(cause) => Err(name_wrong_type(link, cause, &[fleet], "hash").await),
            Ok(dataset) => Ok(dataset),
        }
    })
    .await
}

/// Why a process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum MembershipLost {
    /// Another process runs under this name.
    #[error("another process has taken over the name {0}: give each process a --name of its own")]
    Replaced(String),
    /// Redis holds other data than when this process started.
    #[error(
        "the data in Redis were replaced under this process (FLUSHALL, or an empty replica promoted): stopping, \
         because its view of the streams no longer holds. A restart begins on the new data"
    )]
    DatasetChanged,
}

/// Whether Redis still holds the dataset that was joined.
pub async fn check_dataset(link: &Link, keys: &Keys, joined: &str) -> Result<bool, StoreError> {
    Ok(current_dataset(link, keys).await?.as_deref() == Some(joined))
}

/// Gives signs of life, and watches whether name and dataset are still ours. Ends only when
/// they are not. What became of a reload is told at once.
pub async fn keep_alive(
    link: &Link,
    keys: &Keys,
    identity: &Identity,
    membership: &Membership,
) -> MembershipLost {
    let mut news = configuration::configurations();
    loop {
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT) => {}
            // (Its other end is never dropped.)
            _ = news.changed() => {}
        }
        let beat = async {
            if !check_dataset(link, keys, &membership.dataset).await? {
                return Ok(Some(MembershipLost::DatasetChanged));
            }
            let ours = identity.renew(link, keys).await?;
            Ok::<_, StoreError>((!ours).then(|| MembershipLost::Replaced(identity.name.clone())))
        };
        match beat.await {
            Ok(None) => {}
            Ok(Some(lost)) => return lost,
            // The next beat asks again.
            Err(error) => tracing::warn!(%error, "Redis took no sign of life; trying again"),
        }
    }
}

/// Moves the deliveries of earlier lives of this name to where they are reclaimed at once.
/// Not being able to is not fatal: they come back after their lease.
pub async fn take_over(link: &Link, holder: &Holder, identity: &Identity) {
    const STEP: usize = 256;
    let taken = link.run(|mut c| async move {
        let mut taken = 0;
        for predecessor in predecessors(&mut c, holder, identity).await? {
            loop {
                let moved = holder.take_over(&mut c, &predecessor, STEP).await?;
                taken += moved;
                if moved < STEP {
                    break;
                }
            }
        }
        Ok(taken)
    });
    match taken.await {
        Ok(0) => {}
        Ok(deliveries) => tracing::info!(
            stream = holder.stream,
            deliveries,
            "took over what an earlier life left"
        ),
        Err(error) => tracing::warn!(%error, stream = holder.stream, "could not take over at once"),
    }
}

async fn predecessors(
    connection: &mut MultiplexedConnection,
    holder: &Holder,
    identity: &Identity,
) -> Result<Vec<String>, RedisError> {
    let mut query = redis::cmd("XINFO");
    query
        .arg("CONSUMERS")
        .arg(&holder.stream)
        .arg(&holder.group);
    let reply: redis::streams::StreamInfoConsumersReply = query.query_async(connection).await?;
    Ok(reply
        .consumers
        .into_iter()
        .map(|c| c.name)
        .filter(|name| is_predecessor(name, identity))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_life_of_the_same_name_is_a_predecessor() {
        let me = Identity {
            subscriber: "s".into(),
            name: "host.example-1".into(),
            nonce: "0a1b2c3d".into(),
        };
        assert!(is_predecessor("host.example-1.ffffffff", &me));
        for other in [
            "host.example-1.0a1b2c3d",
            "host.example-11.ffffffff",
            "retry",
            "host.example-1",
        ] {
            assert!(!is_predecessor(other, &me), "{other}");
        }
    }
}
