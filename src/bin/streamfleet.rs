//! The operator's tool: check, publish, status, dead, group, dev, bench.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    streamfleet::operator::main(streamfleet::operator::Cli::parse())
}
