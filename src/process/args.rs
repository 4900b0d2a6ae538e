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

/// The variable of [`MonitorArgs::metrics_address`].
pub(crate) const METRICS_ADDRESS: &str = "STREAMFLEET_METRICS_ADDRESS";

/// What can be asked of a running process over HTTP.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MonitorArgs {
    /// Serve /metrics, /healthz and /readyz on this address, such as 127.0.0.1:9464 or [::1]:9464.
    /// [default: nothing is served, nothing is measured]
    #[arg(long, value_name = "HOST:PORT", env = METRICS_ADDRESS, value_parser = address)]
    pub metrics_address: Option<String>,
}

fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    let fine = parts.is_some_and(|(host, port)| {
        let bare = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare && port.parse::<u16>().is_ok()
    });
    match fine {
        true => Ok(text.to_owned()),
        false => Err(
            "write HOST:PORT: 127.0.0.1:9464, [::1]:9464, or 0.0.0.0:9464 for every interface"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for fine in ["127.0.0.1:9464", "[::1]:0", "localhost:1"] {
            assert!(address(fine).is_ok(), "{fine}");
        }
        for odd in [
            "",
            "9464",
            ":9464",
            "localhost",
            "::1:9464",
            "h:65536",
            "http://h:1/",
        ] {
            assert!(address(odd).is_err(), "{odd}");
        }
    }
}
