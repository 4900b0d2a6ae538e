//! What is the same about errors that differ in numbers and IDs. Pure.

use xxhash_rust::xxh3::xxh3_64;

/// Eight hexadecimal digits for a reason and the shape of an error.
pub(super) fn of(reason: &str, error: &str) -> String {
    let shape = shape(error);
    let hash = xxh3_64(format!("{reason}\0{shape}").as_bytes());
    format!("{:08x}", hash >> 32)
}

/// The error with `#` for each number, ID, time and address: each word that has a digit, and
/// several in a row that only `.`, `:`, `+`, `_` or `-` keep apart.
fn shape(error: &str) -> String {
    let mut shape = String::with_capacity(error.len());
    let mut rest = error;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '-';
        if !is_word(first) {
            shape.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if !word.contains(|c: char| c.is_ascii_digit()) {
            shape.push_str(word);
            continue;
        }
        let before = shape.trim_end_matches(['.', ':', '+', '_', '-']);
        if before.ends_with('#') {
            shape.truncate(before.len());
        } else {
            shape.push('#');
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ids_times_and_addresses_make_no_difference() {
        for (error, same) in [
            (
                "20.555 is not a whole number of cents",
                "# is not a whole number of cents",
            ),
            ("-1 and +1", "# and +#"),
            (
                "/data/lines/3/amount: 7 is less than 0",
                "/data/lines/#/amount: # is less than #",
            ),
            ("at 2026-01-05T10:00:00.25Z", "at #"),
            ("no 0190a8c0-0000-7000-8000-000000000001!", "no #!"),
            ("127.0.0.1:6379 refused", "# refused"),
            ("worker dev-1.0a1b2c3d died.", "worker # died."),
            ("Order.Created.v1: bad", "Order.Created.#: bad"),
            ("", ""),
            ("größer als 3 €", "größer als # €"),
        ] {
            assert_eq!(shape(error), same);
        }
    }

    #[test]
    fn a_fingerprint_is_of_the_reason_and_the_shape() {
        let one = of("rejected", "order 1 is unknown");
        assert_eq!(one.len(), 8);
        assert_eq!(one, of("rejected", "order 22 is unknown"));
        assert_ne!(one, of("exhausted", "order 1 is unknown"));
        assert_ne!(one, of("rejected", "order 1 is closed"));
    }
}
