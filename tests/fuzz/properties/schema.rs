//! Schemas: any text becomes a schema or problems; any value is then judged in bounded time and
//! with a bounded answer.

use jsonschema::{Draft, PatternOptions};
use streamfleet::json::{Node, parse};
use streamfleet::schemas::{SchemaRefusal, SchemaSet};

use super::{in_bounded_time, is_printable, says_something};

const MAX_DEPTH: usize = 64;

/// Loads a schema and holds a value against it.
pub fn check(schema: &[u8], instance: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Any.Thing.v1.json"), schema).unwrap();
    let set = match in_bounded_time("loading", || SchemaSet::load(dir.path())) {
        Ok(set) => set,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                says_something(&problem.message, 1_000);
                says_something(&problem.fix, 1_000);
                is_printable(&problem.to_string());
            }
            return;
        }
    };
    let Ok(value) = parse(instance, MAX_DEPTH) else {
        return;
    };
    let judge = || set.validate("Any.Thing", 1, &value);
    let first = in_bounded_time("validation", judge);
    match &first {
        Ok(()) => {}
        Err(SchemaRefusal::Violations(violations)) => {
            assert!((1..=16).contains(&violations.len()), "{violations:?}");
            for violation in violations {
                assert!(violation.pointer.is_empty() || violation.pointer.starts_with('/'));
                assert!(violation.pointer.len() <= 300);
                says_something(&violation.message, 300);
            }
        }
        Err(other) => panic!("{other}"),
    }
    assert_eq!(judge(), first, "the same value, the same answer");
    assert_eq!(plainly(schema, &value), first.is_ok());
}

/// The answer of the validator to the event in its own representation.
fn plainly(schema: &[u8], value: &Node<'_>) -> bool {
    let is_uuid = |text: &str| {
        let hyphens = [8, 13, 18, 23];
        let fits = |(at, byte): (usize, u8)| match hyphens.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        };
        text.len() == 36 && text.bytes().enumerate().all(fits)
    };
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .offline()
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .with_format("uuid", is_uuid)
        .build(&serde_json::from_slice(schema).expect("it was loaded"))
        .expect("it was loaded")
        .is_valid(&value.to_value())
}
