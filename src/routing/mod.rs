//! stub
mod problem;
pub use problem::{ConfigError, Problem, Severity};
pub(crate) use problem::{did_you_mean, read_bounded};
