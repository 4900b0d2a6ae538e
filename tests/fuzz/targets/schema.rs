//! A schema up to the first zero byte, and a value after it.
#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code)]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let schema = parts.next().unwrap_or_default();
    properties::schema::check(schema, parts.next().unwrap_or_default());
});
