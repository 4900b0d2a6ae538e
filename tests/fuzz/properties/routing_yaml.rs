//! routing.yaml: any bytes become a configuration that holds together, or problems that say
//! where, what and what to do.

use std::time::Duration;

use streamfleet::routing::{Config, ConfigError, Severity};

use super::{in_bounded_time, is_printable, says_something};

const TYPES: [&str; 3] = ["Order.Created", "User.Created", "Payment.Order.Paid"];

/// Loads a file of these bytes beside a few schemas.
pub fn check(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("routing.yaml");
    std::fs::create_dir(dir.path().join("schemas")).unwrap();
    for name in TYPES {
        std::fs::write(dir.path().join(format!("schemas/{name}.v1.json")), "{}").unwrap();
    }
    std::fs::write(&path, bytes).unwrap();
    match in_bounded_time("loading", || Config::load(&path)) {
        Ok(config) => holds_together(&config),
        Err(error) => says_what_is_wrong(bytes, &error),
    }
}

fn holds_together(config: &Config) {
    let routing = &config.routing;
    assert!(
        config
            .warnings
            .iter()
            .all(|p| p.severity == Severity::Warning)
    );
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let streams: Vec<&str> = routing.streams().map(|stream| &*stream.name).collect();
    assert!(streams.iter().all(|name| is_name(name)) && !streams.contains(&"inbox"));
    assert!(routing.namespace().is_none_or(is_name));
    let limits = routing.limits();
    assert!(
        (1_024..=67_108_864).contains(&limits.event_bytes) && (4..=100).contains(&limits.depth)
    );
    for name in TYPES {
        let Some(route) = routing.route(name) else {
            continue;
        };
        assert!(streams.contains(&&*route.stream));
        assert_eq!(route.to.join(","), *route.to_joined);
        for subscriber in &route.to {
            assert!(routing.subscriber(subscriber).is_some());
            assert!(routing.streams_of(subscriber).contains(&route.stream));
        }
    }
    for subscriber in routing.subscribers() {
        assert!(is_name(&subscriber.name) && &*subscriber.name != "router");
        assert!((1..=1_024).contains(&subscriber.concurrency));
        assert!((1..=100).contains(&subscriber.max_attempts));
        let lease = Duration::from_millis(100)..=Duration::from_secs(3_600);
        assert!(lease.contains(&subscriber.lease));
        let longest = subscriber.backoff.max;
        for failures in [1, 2, 1_000] {
            assert!(subscriber.backoff.delay(failures) <= longest);
        }
    }
}

fn says_what_is_wrong(bytes: &[u8], error: &ConfigError) {
    assert!(error.problems.iter().any(|p| p.severity == Severity::Error));
    let lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).count() as u64 + 1;
    for problem in &error.problems {
        says_something(&problem.message, 2_000);
        says_something(&problem.fix, 2_000);
        is_printable(&problem.to_string());
        assert!(
            problem.line.is_none_or(|line| (1..=lines).contains(&line)),
            "{problem}"
        );
    }
}
