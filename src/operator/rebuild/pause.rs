//! Keeping the live subscriber from reading while the models are exchanged. The pause ends by itself,
//! should this process be killed.

use std::time::Duration;

use crate::fleet::control;
use crate::operator::{CommandError, Session};
use crate::store::{StoreError, time};
use crate::time::from_ms;

/// Who pauses it.
const BY: &str = "streamfleet rebuild";

/// Pauses the subscriber for so long at most. One that somebody else has paused stays as it is.
pub(super) async fn begin(
    session: &Session,
    subscriber: &str,
    at_most: Duration,
) -> Result<(), CommandError> {
    let (link, keys) = (&session.link, &session.keys);
    let paused = control::read(link, keys, subscriber).await?.paused;
    if paused.is_some_and(|pause| pause.by != BY) {
        return Ok(());
    }
    let now = link.run(|mut c| async move { time(&mut c).await }).await?;
    let until = u64::try_from((now + at_most).as_millis());
    let until = until.ok().and_then(from_ms);
    let why = "a rebuilt read model takes its place";
    control::pause(link, keys, subscriber, until, BY, why).await?;
    Ok(())
}

/// Ends such a pause, also that of a rebuild that was killed; not that of somebody else.
pub(super) async fn end(session: &Session, subscriber: &str) -> Result<(), StoreError> {
    let (link, keys) = (&session.link, &session.keys);
    let paused = control::read(link, keys, subscriber).await?.paused;
    if paused.is_some_and(|pause| pause.by == BY) {
        control::resume(link, keys, subscriber).await?;
    }
    Ok(())
}
