//! The router: reads the inbox and fans events out by routing.yaml.

use std::process::ExitCode;

fn main() -> ExitCode {
    streamfleet::process::router_main()
}
