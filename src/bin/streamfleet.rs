//! The operator's tool: check, publish, status, dead, group, rebuild, trace, dev, bench.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::operator::main(streamfleet::process::args::parse())
}
