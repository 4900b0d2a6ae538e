//! The operator's tool: check, publish, status, dead, group, dev, bench.

use std::process::ExitCode;

use clap::Parser;

/// See `mimalloc` in Cargo.toml.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    streamfleet::operator::main(streamfleet::operator::Cli::parse())
}
