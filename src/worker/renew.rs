//! Renewing: a sign of life for every delivery in our hands, from a thread of its own that no
//! busy handler can starve.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::Held;
use crate::failpoint::failpoint;
use crate::progress::Beat;
use crate::retry::RECONNECT;
use crate::store::{Fence, Holder, Link, Redis, Settled, StoreError, loses_connection};

/// Deliveries that one call renews: it must not hold Redis up.
const STEP: usize = 500;

/// From one round to the next.
pub(crate) fn pause(lease: Duration) -> Duration {
    lease / 6
}

/// Starts the thread, with what else must run on it. It ends when `stop` fires.
pub(crate) fn spawn(
    redis: Redis,
    held: Held,
    lease: Duration,
    stop: CancellationToken,
    beat: Beat,
    supervising: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("renew".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = run(redis, held, lease, beat) => {}
                    () = supervising => {}
                }
            });
        })?;
    Ok(())
}

async fn run(redis: Redis, held: Held, lease: Duration, beat: Beat) {
    // Opened before it is needed: no lease is to be lost because the password has changed since,
    // or because Redis takes no more clients. What goes wrong now is met again below.
    let mut connection = redis.dedicated(Duration::ZERO).await.ok();
    let (mut failures, mut after_outage) = (0, false);
    loop {
        let began = Instant::now();
        beat.touch();
        match renew(&redis, &mut connection, &held, lease, after_outage, &beat).await {
            Ok(()) => {
                (failures, after_outage) = (0, false);
                // Paced from start to start: while an answer was held up (a frozen or paused
                // Redis) the leases of what was too young to be asked for ran out as well.
                tokio::time::sleep_until(began + pause(lease)).await;
            }
            Err(error) => {
                tracing::warn!(%error, failures, "cannot renew leases; trying again");
                failures += 1;
                if error.redis().is_none_or(loses_connection) {
                    (connection, after_outage) = (None, true);
                }
                tokio::time::sleep(RECONNECT.delay(failures).min(pause(lease))).await;
            }
        }
    }
}

/// Renews what had no sign of life for a third of the lease; after an outage everything.
async fn renew(
    redis: &Redis,
    connection: &mut Option<MultiplexedConnection>,
    held: &Held,
    lease: Duration,
    all: bool,
    beat: &Beat,
) -> Result<(), StoreError> {
    let open = match connection {
        Some(open) => open,
        none => none.insert(redis.dedicated(Duration::ZERO).await?),
    };
    let groups = held.older_than(if all { Duration::ZERO } else { lease / 3 });
    let mut failed = None;
    for (holder, tickets) in groups {
        for tickets in tickets.chunks(STEP) {
            beat.touch();
            failpoint!("worker.renewing");
            match renew_some(open, held, &holder, tickets).await {
                Ok(()) => failpoint!("worker.renewed"),
                Err(error) if loses_connection(&error) => return Err(redis.error(error)),
                // One stream whose group is gone must not cost the others their leases.
                Err(error) => failed = Some(redis.error(error)),
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Renews at once, on the shared connection, what had no sign of life for `age`: so it is known
/// what is another's by now. What Redis does not answer is left to the thread.
pub(crate) async fn renew_now(link: &Link, held: &Held, age: Duration) {
    for (holder, tickets) in held.older_than(age) {
        for tickets in tickets.chunks(STEP) {
            let holder = &holder;
            let renewed =
                link.run(|mut c| async move { renew_some(&mut c, held, holder, tickets).await });
            if let Err(error) = renewed.await {
                tracing::debug!(%error, stream = holder.stream, "cannot renew at once");
            }
        }
    }
}

async fn renew_some(
    connection: &mut MultiplexedConnection,
    held: &Held,
    holder: &Holder,
    tickets: &[(u64, Fence)],
) -> Result<(), RedisError> {
    let fences: Vec<_> = tickets.iter().map(|(_, fence)| *fence).collect();
    let since = Instant::now();
    let answers = holder.renew(connection, &fences).await?;
    note(held, holder, tickets, answers, since);
    Ok(())
}

fn note(
    held: &Held,
    holder: &Holder,
    tickets: &[(u64, Fence)],
    answers: Vec<Settled>,
    since: Instant,
) {
    for (&(ticket, fence), answer) in tickets.iter().zip(answers) {
        match answer {
            Settled::Done => held.renewed(ticket, since),
            // Gone: settled a moment ago, or settled by another. Either way not ours.
            Settled::Gone | Settled::Fenced => {
                tracing::debug!(stream = holder.stream, entry = %fence.id, ?answer, "not ours any more");
                held.lost(ticket);
            }
            Settled::Lost => {
                tracing::error!(stream = holder.stream, entry = %fence.id,
                    "LOST: the entry was deleted from its stream while it was pending");
                held.lost(ticket);
            }
        }
    }
}
