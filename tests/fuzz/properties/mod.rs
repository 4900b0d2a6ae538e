//! What must hold for any input at all. The fuzz targets (`tests/fuzz/targets`) and the property
//! tests (`tests/it/hostile/random.rs`) call the same functions, so each property is written once.
//!
//! A property that does not hold panics. That nothing panics by itself is the first of them.

pub mod entry;
pub mod envelope;
pub mod json;
pub mod routing_yaml;
pub mod schema;

use std::time::{Duration, Instant};

/// Far beyond what any of it takes, even under a sanitizer on a busy machine: what comes near
/// it has lost its bound.
const LIMIT: Duration = Duration::from_secs(20);

fn in_bounded_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let answer = work();
    assert!(start.elapsed() < LIMIT, "{what} took {:?}", start.elapsed());
    answer
}

/// A text that is said to somebody: there is one, and it is not longer than anyone reads.
#[track_caller]
fn says_something(text: &str, max: usize) {
    assert!(!text.is_empty(), "nothing is said");
    assert!(text.len() <= max, "{} bytes: {text:.200}", text.len());
}

/// The same, for what goes to a terminal as it is: no character moves the cursor.
#[track_caller]
fn is_printable(text: &str) {
    let harmful = text.chars().find(|c| c.is_control() && *c != '\n');
    assert!(harmful.is_none(), "{harmful:?} in {text:?}");
}
