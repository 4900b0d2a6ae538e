//! An answer of Redis, as its bytes travel (RESP).
#![no_main]

#[path = "../properties/mod.rs"]
#[allow(dead_code)]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = redis::parse_redis_value(bytes) {
        properties::entry::check(&value);
    }
});
