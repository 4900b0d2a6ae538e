//! Points in time as Redis counts them: milliseconds since 1970.

use jiff::Timestamp;

/// The point in time; nothing for one that no calendar has.
pub(crate) fn from_ms(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

/// The milliseconds; 0 for what was before 1970.
pub(crate) fn to_ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_back() {
        let at = from_ms(1_767_607_200_007).unwrap();
        assert_eq!(at.to_string(), "2026-01-05T10:00:00.007Z");
        assert_eq!(to_ms(at), 1_767_607_200_007);
        assert_eq!(from_ms(u64::MAX), None);
        assert_eq!(to_ms("1969-01-01T00:00:00Z".parse().unwrap()), 0);
    }
}
