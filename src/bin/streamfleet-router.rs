//! The router: reads the inbox and fans events out by routing.yaml.

use std::process::ExitCode;

/// See `mimalloc` in Cargo.toml.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    streamfleet::process::router_main()
}
