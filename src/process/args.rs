//! Arguments that the binaries share, so that each has the same names, defaults and variables.

use std::fmt;
use std::path::PathBuf;

use crate::routing::{Config, ConfigError};

/// The routing.yaml that is used where none is named.
pub(crate) const DEFAULT_CONFIG: &str = "routing.yaml";
/// The Redis that is used where none is named.
pub(crate) const DEFAULT_REDIS_URL: &str = "redis://127.0.0.1:6379";

/// Where the configuration and Redis are.
#[derive(Clone, clap::Args)]
pub struct CommonArgs {
    /// The routing.yaml to use.
    #[arg(
        long,
        value_name = "FILE",
        env = "STREAMFLEET_CONFIG",
        default_value = DEFAULT_CONFIG
    )]
    pub config: PathBuf,
    /// The Redis server: redis://host:port/db or unix:///path/to/socket.
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMFLEET_REDIS_URL",
        hide_env_values = true,
        default_value = DEFAULT_REDIS_URL
    )]
    pub redis_url: String,
}

impl CommonArgs {
    /// Loads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config)
    }
}

/// Without the URL, which can hold a password.
impl fmt::Debug for CommonArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonArgs")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Where the configuration is, for commands that need no Redis.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The routing.yaml to use.
    #[arg(
        long,
        value_name = "FILE",
        env = "STREAMFLEET_CONFIG",
        default_value = DEFAULT_CONFIG
    )]
    pub config: PathBuf,
}
