//! Integration tests: real redis-server processes, real router and worker processes. One crate,
//! so that it links once; a module per behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

mod support;

mod crashes;
mod dev;
mod operator;
mod outages;
mod retries;
mod routing;
mod scripts;
mod shop;
mod shop_pure;
mod trimming;
