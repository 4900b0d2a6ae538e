//! Whether the process gets on: its loop says so, and whoever asks hears for how long it has not.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Without a sign of the loop for so long, it hangs. All that it waits for is bounded: an exchange
/// with a Redis that is away takes no longer than ten seconds.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(30);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static LAST_MS: AtomicU64 = AtomicU64::new(0);
static READS: AtomicBool = AtomicBool::new(false);

/// The loop got on.
pub(crate) fn beat() {
    if super::on() {
        let ms = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
        LAST_MS.fetch_max(ms, Relaxed);
    }
}

/// The process reads: groups exist, and it is announced.
pub(crate) fn reads() {
    READS.store(true, Relaxed);
}

/// Whether it does.
pub(crate) fn has_begun() -> bool {
    READS.load(Relaxed)
}

/// Since the last beat, or since the start.
pub(crate) fn silent_for() -> Duration {
    let last = Duration::from_millis(LAST_MS.load(Relaxed));
    START.elapsed().saturating_sub(last)
}
