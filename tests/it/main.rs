//! Integration tests: real redis-server processes, real router and worker processes. One crate,
//! so that it links once; a module per behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    // `publish(&[event.clone()])` says what it does; `slice::from_ref` would not.
    clippy::cloned_ref_to_slice_refs,
    missing_docs,
    unreachable_pub
)]

#[path = "../fuzz/properties/mod.rs"]
mod properties;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other suites use the rest")]
mod support;

mod audit;
mod backup;
mod breaker;
mod command_line_doc;
mod crashes;
mod curves;
mod dev;
mod expiry;
mod handlers_doc;
mod hostile;
mod ledger;
mod metrics;
mod mutants;
mod operator;
mod order_flow;
mod outages;
mod package;
mod pages;
mod pause;
mod peers;
mod readme;
mod rebuild;
mod rebuild_restored;
mod redis_cli_doc;
mod reload;
mod retries;
mod routing;
mod scheduled;
mod scripts;
mod security;
mod services;
mod shop;
mod shop_pure;
mod soak;
mod startup;
mod systemd;
mod trace;
mod trimming;
mod whole_shop;
mod write_side;
