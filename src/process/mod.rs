//! Layer 3: processes. Arguments, logs, signals, reloading, metrics and exit codes, the same for every
//! binary, and what the service manager is told.

pub mod args;
pub mod core_dump;
pub mod exit;
mod left_behind;
mod monitor;
pub(crate) mod notify;
mod reload;
mod service;
mod signals;
mod startup;
pub mod telemetry;
mod watchdog;

pub use reload::{Reloader, Watch};
pub(crate) use service::{Place, router_command, serve, worker_command};
pub use service::{router_main, worker_main};
pub use signals::{interrupted, stop_on_signal};
