//! Exact money: JSON numbers read digit by digit into decimals, never through a float.
//!
//! Use it on a field: `#[serde(with = "streamfleet::money")] price: Decimal`. The field must be
//! read from JSON text (as [`Event::data`](crate::Event::data) does), because a
//! `serde_json::Value` has already turned the number into a float.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// Reads a JSON number, or a number in a string, exactly. What a decimal of 28 digits cannot
/// hold is an error, never a rounding.
pub fn parse(text: &str) -> Result<Decimal, rust_decimal::Error> {
    let digits = text
        .strip_prefix('"')
        .and_then(|t| t.strip_suffix('"'))
        .unwrap_or(text);
    match digits.split_once(['e', 'E']) {
        None => Decimal::from_str_exact(digits),
        Some((mantissa, exponent)) => {
            let wrong =
                || rust_decimal::Error::ErrorString(format!("{digits} does not fit a decimal"));
            let exponent: i32 = exponent.parse().map_err(|_| wrong())?;
            let mantissa = Decimal::from_str_exact(mantissa)?.normalize();
            let scale = i64::from(mantissa.scale()) - i64::from(exponent);
            if mantissa.is_zero() {
                return Ok(mantissa);
            }
            if scale >= 0 {
                let scale = u32::try_from(scale).map_err(|_| wrong())?;
                Decimal::try_from_i128_with_scale(mantissa.mantissa(), scale)
            } else {
                let power = u32::try_from(-scale).map_err(|_| wrong())?;
                let factor = 10i128.checked_pow(power).ok_or_else(wrong)?;
                let whole = mantissa.mantissa().checked_mul(factor).ok_or_else(wrong)?;
                Decimal::try_from_i128_with_scale(whole, 0)
            }
        }
    }
}

/// For `#[serde(with = "streamfleet::money")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Decimal, D::Error> {
    let raw = <&RawValue>::deserialize(input)?;
    parse(raw.get()).map_err(|e| de::Error::custom(format_args!("amount {}: {e}", raw.get())))
}

/// Writes the amount as a JSON number with exactly its digits.
pub fn serialize<S: Serializer>(amount: &Decimal, output: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(amount.to_string())
        .map_err(ser::Error::custom)?
        .serialize(output)
}

/// The same for `Option<Decimal>`: `#[serde(default, with = "streamfleet::money::option")]`.
pub mod option {
    use super::{Decimal, Deserialize, Deserializer, RawValue, Serialize, Serializer, de};

    /// For `#[serde(with = "streamfleet::money::option")]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Decimal>, D::Error> {
        match Option::<&RawValue>::deserialize(input)? {
            None => Ok(None),
            Some(raw) => super::parse(raw.get())
                .map(Some)
                .map_err(|e| de::Error::custom(format_args!("amount {}: {e}", raw.get()))),
        }
    }

    /// Writes the amount as a JSON number with exactly its digits, or null.
    pub fn serialize<S: Serializer>(
        amount: &Option<Decimal>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match amount {
            Some(amount) => super::serialize(amount, output),
            None => ().serialize(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Price {
        #[serde(with = "super")]
        price: Decimal,
        #[serde(
            default,
            with = "super::option",
            skip_serializing_if = "Option::is_none"
        )]
        cost: Option<Decimal>,
    }

    #[test]
    fn keeps_every_digit_both_ways() {
        for text in [
            "0.1",
            "2.55",
            "1234567890123456789.123456789",
            "-0.01",
            "10.00",
        ] {
            let json = format!("{{\"price\":{text}}}");
            let read: Price = serde_json::from_str(&json).unwrap();
            assert_eq!(read.price.to_string(), text);
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        let read: Price = serde_json::from_str(r#"{"price":1,"cost":0.30}"#).unwrap();
        assert_eq!(read.cost.unwrap().to_string(), "0.30");
    }

    #[test]
    fn reads_exponents_exactly_and_refuses_what_does_not_fit() {
        assert_eq!(parse("1.5e3").unwrap(), Decimal::from(1500));
        assert_eq!(parse("25E-1").unwrap().to_string(), "2.5");
        assert_eq!(parse("0e999").unwrap(), Decimal::ZERO);
        for text in [
            "1e400",
            "1e-40",
            "0.12345678901234567890123456789012",
            "x",
            "1e99999999999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
