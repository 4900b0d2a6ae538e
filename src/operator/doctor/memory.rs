//! Where memory and history are heading. Pure.

use std::time::Duration;

use crate::router::MEMORY_LIMIT;
use crate::store::Info;

/// Below this many entries or this long a history there is no trend.
const MIN_ENTRIES: u64 = 100;
const MIN_SPAN_MS: u64 = 60_000;

/// What Redis says of its memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) used: u64,
    /// 0 for no limit.
    pub(super) max: u64,
    /// How many bytes of a stream are in one node, if it is told.
    pub(super) node_max_bytes: Option<u64>,
}

/// What a stream takes.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamSize {
    pub(super) name: String,
    pub(super) entries: u64,
    /// From the oldest entry to the newest.
    pub(super) span_ms: u64,
    pub(super) bytes: u64,
}

impl Memory {
    pub(super) fn of(info: &Info, node_max_bytes: Option<u64>) -> Self {
        Self {
            used: info.number("used_memory").unwrap_or(0),
            max: info.number("maxmemory").unwrap_or(0),
            node_max_bytes,
        }
    }

    /// The share of the limit that is used; nothing without one.
    pub(super) fn share(self) -> Option<f64> {
        (self.max > 0).then(|| self.used as f64 / self.max as f64)
    }

    /// How long until the router pauses, if the streams that still grow go on as they did.
    pub(super) fn until_full(self, bytes_per_hour: f64) -> Option<Duration> {
        let room = MEMORY_LIMIT * self.max as f64 - self.used as f64;
        hours(room, bytes_per_hour).filter(|_| self.max > 0)
    }

    /// Whether the router pauses by now.
    pub(super) fn is_full(self) -> bool {
        self.share().is_some_and(|share| share >= MEMORY_LIMIT)
    }
}

impl StreamSize {
    pub(super) fn bytes_per_entry(&self) -> f64 {
        match self.entries {
            0 => 0.0,
            entries => self.bytes as f64 / entries as f64,
        }
    }

    /// Entries per hour over all of its history; nothing for too short a one.
    pub(super) fn per_hour(&self) -> Option<f64> {
        let long = self.entries >= MIN_ENTRIES && self.span_ms >= MIN_SPAN_MS;
        long.then(|| self.entries as f64 * 3_600_000.0 / self.span_ms as f64)
    }

    /// How long until it has so many entries.
    pub(super) fn until(&self, entries: u64) -> Option<Duration> {
        let room = entries.saturating_sub(self.entries) as f64;
        hours(room, self.per_hour()?)
    }

    /// By how much it grows, unless it is trimmed to what it has now.
    pub(super) fn bytes_per_hour(&self, maxlen: Option<u64>, retention: Option<Duration>) -> f64 {
        let at_length = maxlen.is_some_and(|max| self.entries >= max);
        let at_age =
            retention.is_some_and(|age| u128::from(self.span_ms) * 10 >= age.as_millis() * 9);
        match at_length || at_age {
            true => 0.0,
            false => self.per_hour().unwrap_or(0.0) * self.bytes_per_entry(),
        }
    }
}

fn hours(room: f64, per_hour: f64) -> Option<Duration> {
    let hours = room.max(0.0) / per_hour;
    Duration::try_from_secs_f64(hours * 3_600.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn stream(entries: u64, hours: u64, bytes: u64) -> StreamSize {
        StreamSize {
            name: "a-events".into(),
            entries,
            span_ms: hours * 3_600_000,
            bytes,
        }
    }

    #[test]
    fn a_stream_grows_as_it_did() {
        let size = stream(1_000, 10, 500_000);
        assert_eq!(size.per_hour(), Some(100.0));
        assert_eq!(size.until(1_200), Some(2 * HOUR));
        assert_eq!(size.until(900), Some(Duration::ZERO));
        assert_eq!(size.bytes_per_hour(None, None), 50_000.0);
        assert_eq!(size.bytes_per_hour(Some(1_000), None), 0.0, "it is trimmed");
        assert_eq!(
            size.bytes_per_hour(None, Some(10 * HOUR)),
            0.0,
            "it is trimmed"
        );
        assert_eq!(size.bytes_per_hour(Some(2_000), Some(40 * HOUR)), 50_000.0);
    }

    #[test]
    fn too_short_a_history_has_no_trend() {
        assert_eq!(stream(99, 10, 1).per_hour(), None);
        assert_eq!(stream(1_000, 0, 1).until(2_000), None);
        assert_eq!(stream(0, 0, 0).bytes_per_entry(), 0.0);
    }

    #[test]
    fn memory_is_full_when_the_router_pauses() {
        let memory = |used| Memory {
            used,
            max: 1_000,
            node_max_bytes: None,
        };
        assert_eq!(memory(400).until_full(100.0), Some(4 * HOUR));
        assert!(memory(800).is_full() && !memory(799).is_full());
        assert_eq!(memory(900).until_full(100.0), Some(Duration::ZERO));
        assert_eq!(memory(1).until_full(0.0), None, "it never is");
        let unlimited = Memory {
            max: 0,
            ..memory(1)
        };
        assert_eq!((unlimited.until_full(1.0), unlimited.share()), (None, None));
    }
}
