//! Logs: on stderr, for people on a terminal and as JSON lines for everything else.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What to log: a level, or an `EnvFilter` such as `info,streamfleet::worker=debug`.
const LEVEL: &str = "STREAMFLEET_LOG";
/// `human` or `json`, where the choice by terminal is not wanted.
const FORMAT: &str = "STREAMFLEET_LOG_FORMAT";

/// Starts logging. A second call does nothing.
pub fn init() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(LEVEL)
        .from_env();
    let (filter, ignored) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let terminal = stderr().is_terminal();
    let human = match std::env::var(FORMAT).as_deref() {
        Ok("human") => true,
        Ok("json") => false,
        _ => terminal,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    // An error means that a subscriber is set already, by a test or by an embedding program.
    let started = if human {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        builder.with_ansi(colour).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if let (Ok(()), Some(error)) = (started, ignored) {
        tracing::warn!(%error, "{LEVEL} is not a filter such as info or streamfleet=debug: using info");
    }
}
