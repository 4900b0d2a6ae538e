//! What keeps a reload from leaving a subscriber behind: one that has not settled its entries is
//! taken out of the routes only together with a line that says so (`retired:`).
//!
//! Why in the file: every process reads the same file, so that all of them judge alike, it says what
//! was meant to whoever reads it later, and by it a worker of the subscriber can be started, which a
//! mark elsewhere would not allow.
//!
//! Why not at a start: the configuration from before is not there any more, so to refuse would be to
//! stand still with everybody's events. Nothing is lost either way, since the group stays and holds
//! trimming back; it is said loudly.

use std::time::Duration;

use crate::fleet::ROUTER;
use crate::routing::{Config, Routing};
use crate::status::{self, Orphan, Snapshot, orphans};
use crate::store::{Keys, Link, StoreError};

/// How long Redis may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a configuration must not follow another, if it must not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Hindrance {
    /// Somebody would be left behind.
    #[error("{}", told(.0))]
    Orphans(Vec<Orphan>),
    /// It is not known.
    #[error("cannot tell whether a subscriber that is in no route any more owes anything: {0}")]
    Unknown(#[from] StoreError),
    /// The same.
    #[error(
        "cannot tell whether a subscriber that is in no route any more owes anything: Redis does not answer"
    )]
    Silence,
}

fn told(orphans: &[Orphan]) -> String {
    let all: Vec<_> = orphans.iter().map(ToString::to_string).collect();
    all.join(". ")
}

/// Looks what speaks against it. Redis is asked only if the new one drops somebody.
pub(super) async fn check(link: &Link, running: &Config, new: &Config) -> Result<(), Hindrance> {
    let dropped: Vec<&str> = dropped(&running.routing, &new.routing).collect();
    if dropped.is_empty() {
        return Ok(());
    }
    let snapshot = look(link, &new.routing).await?;
    // One that a router works by is not to be stopped here any more: all must run the same.
    if is_routed_by(&snapshot, &new.fingerprint()) {
        return Ok(());
    }
    let mut left = orphans(&snapshot, &new.routing);
    left.retain(|orphan| dropped.contains(&orphan.subscriber.as_str()));
    match left.is_empty() {
        true => Ok(()),
        false => Err(Hindrance::Orphans(left)),
    }
}

/// Says who was left behind before this start.
pub(super) async fn warn(link: &Link, config: &Config) {
    match look(link, &config.routing).await {
        Ok(snapshot) => {
            for orphan in orphans(&snapshot, &config.routing) {
                tracing::error!("LEFT BEHIND: {orphan}");
            }
        }
        Err(error) => tracing::warn!("{error}"),
    }
}

async fn look(link: &Link, routing: &Routing) -> Result<Snapshot, Hindrance> {
    let keys = Keys::new(routing.namespace());
    let looking = status::collect(link, &keys, routing);
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(snapshot) => Ok(snapshot?),
        Err(_) => Err(Hindrance::Silence),
    }
}

fn dropped<'a>(running: &'a Routing, new: &'a Routing) -> impl Iterator<Item = &'a str> {
    let served = running.subscribers().chain(running.retired());
    served
        .map(|s| &*s.name)
        .filter(|name| new.served(name).is_none())
}

fn is_routed_by(snapshot: &Snapshot, fingerprint: &str) -> bool {
    let routers = snapshot.processes.iter().filter(|p| p.subscriber == ROUTER);
    routers
        .map(|p| &p.configuration)
        .any(|c| c.fingerprint == fingerprint)
}
