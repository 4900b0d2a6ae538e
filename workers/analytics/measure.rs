//! What the analytics service counts by, apart from Redis and events: windows of time, minor units
//! of money, names in keys. Pure functions.

use jiff::{Timestamp, tz::TimeZone};
use rust_decimal::Decimal;

/// The largest amount that one event may carry, in minor units: sums of a million such events
/// still fit the integer that Redis counts with.
const MAX_CENTS: i64 = 1_000_000_000_000;

/// The most units that one event may speak of, for the same reason.
const MAX_UNITS: i64 = 1_000_000_000_000;

/// The windows that a moment belongs to, in UTC: `minute:…`, `hour:…` and `day:…`.
pub(crate) struct Windows {
    pub(crate) minute: String,
    pub(crate) hour: String,
    pub(crate) day: String,
}

impl Windows {
    pub(crate) fn of(at: Timestamp) -> Self {
        let at = at.to_zoned(TimeZone::UTC);
        Self {
            minute: at.strftime("minute:%Y-%m-%dT%H:%M").to_string(),
            hour: at.strftime("hour:%Y-%m-%dT%H").to_string(),
            day: at.strftime("day:%Y-%m-%d").to_string(),
        }
    }

    pub(crate) fn all(&self) -> [&str; 3] {
        [&self.minute, &self.hour, &self.day]
    }

    /// `00` to `23`.
    pub(crate) fn hour_of_day(&self) -> &str {
        self.hour.rsplit('T').next().unwrap_or_default()
    }

    /// The key of one country's share of the day.
    pub(crate) fn country(&self, country: &str) -> String {
        format!("{}:country:{}", self.day, name_in_key(country))
    }
}

/// An amount that cannot be counted in minor units. No retry will help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AmountError {
    #[error("{0} is not a whole number of cents; amounts are counted exactly and never rounded")]
    Fraction(Decimal),
    #[error("{0} is out of range: an amount may be 0 to {max}", max = Decimal::new(MAX_CENTS, 2))]
    OutOfRange(Decimal),
    #[error("{price} times {units} is out of range")]
    ProductOutOfRange { price: Decimal, units: i64 },
}

/// An amount in minor units, exactly.
pub(crate) fn cents(amount: Decimal) -> Result<i64, AmountError> {
    let cents = amount
        .checked_mul(Decimal::ONE_HUNDRED)
        .ok_or(AmountError::OutOfRange(amount))?;
    if !cents.fract().is_zero() {
        return Err(AmountError::Fraction(amount));
    }
    i64::try_from(cents)
        .ok()
        .filter(|cents| (0..=MAX_CENTS).contains(cents))
        .ok_or(AmountError::OutOfRange(amount))
}

/// What `units` cost at `price`, in minor units, exactly.
pub(crate) fn value_cents(price: Decimal, units: i64) -> Result<i64, AmountError> {
    let value = price.checked_mul(Decimal::from(units));
    cents(value.ok_or(AmountError::ProductOutOfRange { price, units })?)
}

/// Units in all, if they can be counted.
pub(crate) fn units(quantities: impl IntoIterator<Item = i64>) -> Option<i64> {
    quantities
        .into_iter()
        .try_fold(0_i64, i64::checked_add)
        .filter(|units| (0..=MAX_UNITS).contains(units))
}

/// A name as part of a key: readable in redis-cli, and never taken for a separator.
fn name_in_key(name: &str) -> String {
    let name: String = name
        .trim()
        .chars()
        .map(|c| if c == ':' || c.is_control() { '_' } else { c })
        .collect();
    if name.is_empty() {
        "-".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn windows_are_those_of_utc() {
        let windows = Windows::of("2011-07-01T00:30:59+01:00".parse().unwrap());
        assert_eq!(
            windows.all(),
            [
                "minute:2011-06-30T23:30",
                "hour:2011-06-30T23",
                "day:2011-06-30"
            ]
        );
        assert_eq!(windows.hour_of_day(), "23");
        assert_eq!(windows.country(" France "), "day:2011-06-30:country:France");
        assert_eq!(windows.country("a:b\n"), "day:2011-06-30:country:a_b");
        assert_eq!(windows.country(""), "day:2011-06-30:country:-");
    }

    #[test]
    fn amounts_are_exact_or_refused() {
        assert_eq!(cents(decimal("0.29")), Ok(29));
        assert_eq!(cents(decimal("2.500")), Ok(250));
        assert_eq!(
            cents(decimal("0.001")),
            Err(AmountError::Fraction(decimal("0.001")))
        );
        assert_eq!(
            cents(decimal("-1")),
            Err(AmountError::OutOfRange(decimal("-1")))
        );
        assert_eq!(cents(decimal("10000000000.00")), Ok(MAX_CENTS));
        assert_eq!(
            cents(decimal("10000000000.01")),
            Err(AmountError::OutOfRange(decimal("10000000000.01")))
        );
        assert_eq!(
            cents(Decimal::MAX),
            Err(AmountError::OutOfRange(Decimal::MAX))
        );
    }

    #[test]
    fn a_price_of_less_than_a_cent_may_still_make_a_whole_value() {
        assert_eq!(value_cents(decimal("0.005"), 4), Ok(2));
        assert_eq!(
            value_cents(decimal("0.005"), 3),
            Err(AmountError::Fraction(decimal("0.015")))
        );
        assert!(value_cents(Decimal::MAX, 2).is_err());
    }

    #[test]
    fn units_are_counted_as_far_as_redis_counts() {
        assert_eq!(units([]), Some(0));
        assert_eq!(units([2, 3]), Some(5));
        assert_eq!(units([MAX_UNITS]), Some(MAX_UNITS));
        assert_eq!(units([MAX_UNITS, 1]), None);
        assert_eq!(units([i64::MAX, i64::MAX]), None);
        assert_eq!(units([-1]), None);
    }
}
