//! The router: reads the inbox and fans events out by routing.yaml.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::process::router_main()
}
