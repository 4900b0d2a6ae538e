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
mod outages;
mod readme;
mod retries;
mod routing;
mod scripts;
mod trimming;
