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

use crate::fleet;
use crate::routing::{Config, Routing};
use crate::status::{self, Orphan};
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
/// `before`: the one in force, and the one that may be by the time the new one is.
pub(super) async fn check(
    link: &Link,
    before: [&Config; 2],
    new: &Config,
) -> Result<(), Hindrance> {
    let dropped: Vec<&str> = before
        .iter()
        .flat_map(|config| dropped(&config.routing, &new.routing))
        .collect();
    if dropped.is_empty() {
        return Ok(());
    }
    let keys = Keys::new(new.routing.namespace());
    let looking = async {
        // One that a router works by is not to be stopped here any more: all must run the same.
        if fleet::routed_by(link, &keys).await? == Some(new.fingerprint()) {
            return Ok(Vec::new());
        }
        status::left_behind(link, &keys, &new.routing).await
    };
    let mut left = match tokio::time::timeout(PATIENCE, looking).await {
        Ok(Ok(left)) => left,
        Ok(Err(error)) if is_denied(&error) => {
            tracing::debug!(%error, "whether a subscriber is left behind is for the router to say");
            return Ok(());
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(Hindrance::Silence),
    };
    left.retain(|orphan| dropped.contains(&orphan.subscriber.as_str()));
    match left.is_empty() {
        true => Ok(()),
        false => Err(Hindrance::Orphans(left)),
    }
}

/// The user of a worker need not be allowed to see what concerns others.
fn is_denied(error: &StoreError) -> bool {
    let code = error.redis().and_then(|error| error.code());
    matches!(code, Some("NOPERM" | "EXECABORT"))
}

/// Says who was left behind before this start.
pub(super) async fn warn(link: &Link, config: &Config) {
    let keys = Keys::new(config.routing.namespace());
    match status::left_behind(link, &keys, &config.routing).await {
        Ok(left) => {
            for orphan in left {
                tracing::error!("LEFT BEHIND: {orphan}");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot tell whether a subscriber was left behind"),
    }
}

fn dropped<'a>(running: &'a Routing, new: &'a Routing) -> impl Iterator<Item = &'a str> {
    let served = running.subscribers().chain(running.retired());
    served
        .map(|s| &*s.name)
        .filter(|name| new.served(name).is_none())
}
