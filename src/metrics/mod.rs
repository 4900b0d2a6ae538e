//! Layer 0: what a process counts about itself, for `/metrics`. Every metric is described here once,
//! those of the whole fleet in `process::monitor`; docs/metrics.md explains them.
//!
//! Nothing is counted before [`switch_on`]: each place that counts asks [`on`] first, one relaxed
//! load. Counting is atomics of a fixed number: no lock, no allocation, a batch at a time where there
//! are batches. Labels have the values that are listed here, and none that comes from outside.

mod cells;
mod page;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

pub(crate) use cells::micros;
use cells::{Histogram, Labelled, Number};
pub(crate) use page::{Format, Labels, Page};

static ON: AtomicBool = AtomicBool::new(false);

/// Whether anything is counted.
pub(crate) fn on() -> bool {
    ON.load(Relaxed)
}

/// Counts from now on.
pub(crate) fn switch_on() {
    ON.store(true, Relaxed);
}

const MS: u64 = 1_000;
const S: u64 = 1_000 * MS;

/// Of work: from a tenth of a millisecond to half a minute.
const WORK: [u64; 16] = [
    100,
    250,
    500,
    MS,
    2_500,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    10 * S,
    30 * S,
];
/// Of waiting and work together: from a millisecond to a quarter of an hour.
const WAY: [u64; 16] = [
    MS,
    2_500,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    15 * S,
    60 * S,
    300 * S,
    900 * S,
];
/// Of counts.
const COUNTS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 4_096];

/// Times of work.
pub(crate) type WorkTimes = Histogram<{ WORK.len() }>;

/// None yet.
#[cfg(test)]
pub(crate) const fn work_times() -> WorkTimes {
    Histogram::of_times(&WORK)
}

/// Entries of the inbox that were routed together.
pub(crate) static BATCHES: Histogram<{ COUNTS.len() }> = Histogram::of_counts(&COUNTS);
/// From XADD to the inbox until the router has sent the event on.
pub(crate) static ROUTING: Histogram<{ WAY.len() }> = Histogram::of_times(&WAY);
/// Events refused at the door, by reason.
pub(crate) static REFUSED: Labelled<13> = Labelled::new([
    "invalid_json",
    "invalid_utf8",
    "too_large",
    "too_deep",
    "duplicate_key",
    "bad_envelope",
    "unknown_type",
    "unknown_version",
    "schema_violation",
    "event_id_conflict",
    "too_many_hops",
    "expired",
    "other",
]);
/// What deliveries came to.
static DELIVERIES: Labelled<6> =
    Labelled::new([HANDLED, RETRIED, WAITING, DEAD, RELEASED, OVERTAKEN]);
/// Handled: settled with its effects.
pub(crate) const HANDLED: &str = "handled";
/// Failed, charged, and to be tried again.
pub(crate) const RETRIED: &str = "retried";
/// Not charged, and to be tried again: something was unavailable, or it met too many conflicts.
pub(crate) const WAITING: &str = "waiting";
/// Given up.
pub(crate) const DEAD: &str = "dead";
/// Given back, because the process stops.
pub(crate) const RELEASED: &str = "released";
/// Another worker's by the time it was to be settled.
pub(crate) const OVERTAKEN: &str = "overtaken";
/// Charged failures that will be tried again, by the number of the attempt that failed.
static RETRIES: Labelled<4> = Labelled::new(["1", "2", "3", "more"]);
/// Deliveries that were given up, by reason.
pub(crate) static GIVEN_UP: Labelled<6> = Labelled::new([
    "exhausted",
    "rejected",
    "crashed",
    "undecodable",
    "expired",
    "other",
]);
/// Commits that found a version or a value changed.
pub(crate) static CONFLICTS: Number = Number::new();
/// Calls of handlers that returned Ok, and others.
static CALLS_OK: WorkTimes = Histogram::of_times(&WORK);
static CALLS_FAILED: WorkTimes = Histogram::of_times(&WORK);
/// From XADD to the stream until it is settled.
static SETTLING: Histogram<{ WAY.len() }> = Histogram::of_times(&WAY);
/// Histories that were read, and what they had. Always counted: signs of life carry it.
pub(crate) static LOADS: WorkTimes = Histogram::of_times(&WORK);
/// Events of the histories that were read.
pub(crate) static LOADED: Histogram<{ COUNTS.len() }> = Histogram::of_counts(&COUNTS);
/// Commits that append to a history. Always counted: signs of life carry it.
pub(crate) static APPENDS: WorkTimes = Histogram::of_times(&WORK);
/// Events that this process put into the inbox, or could not.
static PUBLISHED: Labelled<2> = Labelled::new(["ok", "failed"]);
/// Exchanges that put some there.
static PUBLISHING: WorkTimes = Histogram::of_times(&WORK);
/// Exchanges with Redis on the shared connection.
pub(crate) static REDIS: WorkTimes = Histogram::of_times(&WORK);
/// Those that failed.
pub(crate) static REDIS_ERRORS: Number = Number::new();
/// Reads of routing.yaml after the start.
pub(crate) static RELOADS: Labelled<3> = Labelled::new(["taken", "unchanged", "refused"]);
/// Number of the configuration that this process runs.
pub(crate) static GENERATION: Number = Number::new();

/// Counts a failed attempt that will be followed by another.
pub(crate) fn will_be_retried(attempt: u32) {
    if on() {
        let few = ["1", "2", "3"].get(attempt.saturating_sub(1) as usize);
        RETRIES.add(few.copied().unwrap_or("more"), 1);
        DELIVERIES.add(RETRIED, 1);
    }
}

/// Counts deliveries that came to something else.
pub(crate) fn came_to(outcome: &str, deliveries: u64) {
    if on() && deliveries > 0 {
        DELIVERIES.add(outcome, deliveries);
    }
}

/// Counts a call of a handler.
pub(crate) fn called(took: impl FnOnce() -> Duration, ok: bool) {
    if on() {
        if ok { &CALLS_OK } else { &CALLS_FAILED }.took(took());
    }
}

/// Counts events that one exchange put into the inbox, or failed to.
pub(crate) fn published(events: usize, took: Duration, ok: bool) {
    PUBLISHED.add(if ok { "ok" } else { "failed" }, events as u64);
    PUBLISHING.took(took);
}

/// Counts deliveries that are handled, whose entries were appended at these times (ms, 1970, the clock
/// of Redis).
pub(crate) fn handled(appended_ms: impl Iterator<Item = u64>) {
    let (now, mut count) = (now_ms(), 0);
    SETTLING.observe_all(appended_ms.map(|ms| {
        count += 1;
        now.saturating_sub(ms).saturating_mul(MS)
    }));
    DELIVERIES.add(HANDLED, count);
}

/// Counts a batch of the inbox, by when its entries came there (ms, 1970, the clock of Redis).
pub(crate) fn routed(came_ms: impl Iterator<Item = u64>) {
    let now = now_ms();
    ROUTING.observe_all(came_ms.map(|ms| now.saturating_sub(ms).saturating_mul(MS)));
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// What every process shows.
pub(crate) fn of_process(page: &mut Page, role: &str) {
    page.info(
        "build",
        "The version that runs, and as what.",
        &[("version", env!("CARGO_PKG_VERSION")), ("role", role)],
    );
    page.counters(
        "config_reloads",
        "Times that routing.yaml was read again since the start, by result.",
        "result",
        &RELOADS,
    );
    page.number(
        "config_generation",
        "Number of the configuration that this process runs.",
        &GENERATION,
    );
    page.times(
        "redis_exchange_duration",
        "Round trips to Redis on the shared connection, without waiting reads.",
        &[],
        &REDIS,
    );
    page.counter(
        "redis_exchange_errors",
        "Round trips to Redis on the shared connection that failed.",
        &[],
        REDIS_ERRORS.get(),
    );
    page.counters(
        "published_events",
        "Events that this process put into the inbox, or could not, by result.",
        "result",
        &PUBLISHED,
    );
    page.times(
        "publish_duration",
        "Round trips that put events into the inbox; of a worker, the commits that carry follow-ups.",
        &[],
        &PUBLISHING,
    );
}

/// What a router shows of itself.
pub(crate) fn of_router(page: &mut Page) {
    page.sizes(
        "router_batch_entries",
        "Entries of the inbox that were routed together.",
        &BATCHES,
    );
    page.times(
        "routing_latency",
        "From XADD to the inbox until the router has sent the event on.",
        &[],
        &ROUTING,
    );
    page.counters(
        "refused_events",
        "Events that this router refused, by reason.",
        "reason",
        &REFUSED,
    );
}

/// What a worker shows.
pub(crate) fn of_worker(page: &mut Page) {
    page.counters(
        "deliveries",
        "Deliveries that this process had in its hands, by what they came to.",
        "outcome",
        &DELIVERIES,
    );
    page.counters(
        "retries",
        "Failed attempts that are followed by another, by the number of the one that failed.",
        "attempt",
        &RETRIES,
    );
    page.counters(
        "dead_letters",
        "Deliveries that this process gave up, by reason.",
        "reason",
        &GIVEN_UP,
    );
    page.counter(
        "commit_conflicts",
        "Commits that found a version or a required value changed; the handler ran again.",
        &[],
        CONFLICTS.get(),
    );
    for (result, calls) in [("ok", &CALLS_OK), ("failed", &CALLS_FAILED)] {
        page.times(
            "handler_duration",
            "Calls of the handler, by whether it returned Ok.",
            &[("result", result)],
            calls,
        );
    }
    page.times(
        "delivery_latency",
        "From XADD to the stream until the delivery is handled and settled, retries included.",
        &[],
        &SETTLING,
    );
    page.times(
        "store_load_duration",
        "Reads of histories of the event store.",
        &[],
        &LOADS,
    );
    page.sizes(
        "store_loaded_events",
        "Events of the histories that were read.",
        &LOADED,
    );
    page.times(
        "store_append_duration",
        "Commits that append to a history of the event store.",
        &[],
        &APPENDS,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Refusal;

    #[test]
    fn every_reason_of_a_refusal_has_its_series() {
        use Refusal::{
            BadEnvelope, DuplicateKey, EventIdConflict, Expired, InvalidJson, InvalidUtf8,
            SchemaViolation, TooDeep, TooLarge, TooManyHops, UnknownType, UnknownVersion,
        };
        let all = [
            InvalidJson,
            InvalidUtf8,
            TooLarge,
            TooDeep,
            DuplicateKey,
            BadEnvelope,
            UnknownType,
            UnknownVersion,
            SchemaViolation,
            EventIdConflict,
            TooManyHops,
            Expired,
        ];
        let known = all.map(Refusal::as_str);
        assert_eq!(REFUSED.values[..known.len()], known);
    }
}
