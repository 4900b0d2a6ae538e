//! Arguments that the binaries share, so that each has the same names, defaults and variables.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::{Resettable, StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, Command, FromArgMatches, Parser};

use crate::environment::variable;
use crate::routing::{Config, ConfigError};
use crate::secret;
use crate::store::{Access, Redis, StoreError, TlsFiles, holds_password};

/// Reads the arguments of this process, and ends it where they cannot be used.
pub fn parse<A: Parser>() -> A {
    parse_as(A::command())
}

/// The same by a command that was changed.
pub(crate) fn parse_as<A: FromArgMatches>(command: Command) -> A {
    let matches = without_empty_variables(command).get_matches();
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command, to which a variable that is set and empty is none: clap would take it for a value.
pub(crate) fn without_empty_variables(command: Command) -> Command {
    let says_nothing = |arg: &Arg| arg.get_env().is_some_and(|name| variable(name).is_none());
    command
        .mut_args(|arg| match says_nothing(&arg) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// The variable of [`ConfigArgs::path`].
pub(crate) const CONFIG: &str = "STREAMFLEET_CONFIG";
/// The variable of the Redis URL.
pub(crate) const URL: &str = "STREAMFLEET_REDIS_URL";
const USERNAME: &str = "STREAMFLEET_REDIS_USERNAME";
const PASSWORD_FILE: &str = "STREAMFLEET_REDIS_PASSWORD_FILE";
const CA_FILE: &str = "STREAMFLEET_REDIS_CA_FILE";
const CERT_FILE: &str = "STREAMFLEET_REDIS_CERT_FILE";
const KEY_FILE: &str = "STREAMFLEET_REDIS_KEY_FILE";
/// What systemd's `LoadCredential=` must call the password.
const PASSWORD_CREDENTIAL: &str = "redis-password";

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration. [default: routing.yaml, or /etc/streamfleet/routing.yaml where there is none]
    #[arg(
        long = "config",
        id = "config",
        value_name = "FILE",
        env = CONFIG,
        default_value_os_t = default_config(),
        hide_default_value = true
    )]
    pub path: PathBuf,
}

/// The file in this folder, or that of the package.
fn default_config() -> PathBuf {
    let installed = PathBuf::from("/etc/streamfleet/routing.yaml");
    match Path::new("routing.yaml").exists() || !installed.exists() {
        true => PathBuf::from("routing.yaml"),
        false => installed,
    }
}

impl ConfigArgs {
    /// Loads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.path)
    }
}

/// Where the configuration and Redis are.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Redis.
    #[command(flatten)]
    pub redis: RedisArgs,
}

impl CommonArgs {
    /// Loads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.config.load()
    }
}

/// Where Redis is, and who asks it. An argument that is empty is as good as none; a password file
/// named so keeps the credential of systemd from being taken.
#[derive(Clone, Default, clap::Args)]
pub struct RedisArgs {
    /// The Redis server: redis://host:port/db, rediss://host:port/db (TLS) or unix:///path/to/socket.
    /// A password may stand in the variable only, and better in a file.
    #[arg(
        long,
        value_name = "URL",
        env = URL,
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379",
        value_parser = UrlParser
    )]
    redis_url: String,
    /// The user of Redis, if the URL names none.
    #[arg(long, value_name = "NAME", env = USERNAME, help_heading = "Access to Redis")]
    redis_username: Option<String>,
    /// The file that holds the user's password.
    /// [default: redis-password in $CREDENTIALS_DIRECTORY, if it is there]
    #[arg(long, value_name = "FILE", env = PASSWORD_FILE, help_heading = "Access to Redis")]
    redis_password_file: Option<OsString>,
    /// With rediss://: the certificates to trust instead of the system's (PEM).
    #[arg(long, value_name = "FILE", env = CA_FILE, help_heading = "Access to Redis")]
    redis_ca_file: Option<OsString>,
    /// With rediss://: the certificate to show to a server that asks for one (PEM).
    #[arg(long, value_name = "FILE", env = CERT_FILE, help_heading = "Access to Redis")]
    redis_cert_file: Option<OsString>,
    /// The private key of that certificate (PEM).
    #[arg(long, value_name = "FILE", env = KEY_FILE, help_heading = "Access to Redis")]
    redis_key_file: Option<OsString>,
}

impl RedisArgs {
    /// A server that takes everybody: a private one. Nothing of the environment is for it.
    pub(crate) fn bare(url: &str) -> Self {
        Self {
            redis_url: url.to_owned(),
            redis_password_file: Some(OsString::new()),
            ..Self::default()
        }
    }

    /// A server by its URL, asked as the environment says.
    pub(crate) fn by_environment(url: &str) -> Self {
        Self {
            redis_url: url.to_owned(),
            redis_username: variable(USERNAME).map(|name| name.to_string_lossy().into_owned()),
            redis_password_file: variable(PASSWORD_FILE),
            redis_ca_file: variable(CA_FILE),
            redis_cert_file: variable(CERT_FILE),
            redis_key_file: variable(KEY_FILE),
        }
    }

    fn password_file(&self) -> Option<PathBuf> {
        match &self.redis_password_file {
            Some(file) if file.is_empty() => None,
            file => secret::file(file.clone(), PASSWORD_CREDENTIAL),
        }
    }

    /// The same for the library.
    pub fn access(&self) -> Access {
        let file =
            |file: &Option<OsString>| file.clone().filter(|f| !f.is_empty()).map(PathBuf::from);
        let username = self.redis_username.clone();
        Access::new(&self.redis_url)
            .username(username.filter(|name| !name.is_empty()))
            .password_file(self.password_file())
            .tls(TlsFiles {
                ca: file(&self.redis_ca_file),
                cert: file(&self.redis_cert_file),
                key: file(&self.redis_key_file),
            })
    }

    /// Prepares connections; nothing is opened yet.
    ///
    /// # Errors
    /// What is said about the server contradicts itself, or names files that cannot be used.
    pub fn open(&self) -> Result<Redis, StoreError> {
        Redis::open(self.access())
    }

    /// What tells the same to a process that is started: all of it by variables, because everybody on
    /// the machine sees arguments.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let or_none = |value: &Option<OsString>| value.clone().unwrap_or_default();
        let username = self.redis_username.clone().unwrap_or_default();
        let password_file = self.password_file();
        let mut told = vec![
            (URL, self.redis_url.clone().into()),
            (USERNAME, username.into()),
            (CA_FILE, or_none(&self.redis_ca_file)),
            (CERT_FILE, or_none(&self.redis_cert_file)),
            (KEY_FILE, or_none(&self.redis_key_file)),
        ];
        if password_file.is_none() {
            // It would find the credential that is not for this server.
            told.push((secret::CREDENTIALS, OsString::new()));
        }
        told.push((PASSWORD_FILE, password_file.unwrap_or_default().into()));
        told
    }
}

/// Without the URL, which can hold a password.
impl fmt::Debug for RedisArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisArgs").finish_non_exhaustive()
    }
}

/// Takes a URL, but none with a password from the command line, and repeats none.
#[derive(Clone)]
pub(crate) struct UrlParser;

impl TypedValueParser for UrlParser {
    type Value = String;

    fn parse_ref(
        &self,
        cmd: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        self.parse_ref_(cmd, arg, value, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        cmd: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<String, clap::Error> {
        if source == ValueSource::CommandLine && holds_password(&value.to_string_lossy()) {
            let told = format!(
                "--redis-url holds a password, which everybody on this machine can see there (ps). Put the password into a file, name that in {PASSWORD_FILE}, and take it out of the URL; or put the URL into {URL}\n"
            );
            return Err(clap::Error::raw(ErrorKind::ValueValidation, told).with_cmd(cmd));
        }
        StringValueParser::new().parse_ref(cmd, arg, value)
    }
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

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        common: CommonArgs,
    }

    #[test]
    fn a_password_in_an_argument_is_refused_and_not_repeated() {
        let parse = |url| Cli::try_parse_from(["x", "--redis-url", url]);
        let refused = parse("redis://fleet:hunter2@host").unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        let said = refused.to_string();
        assert!(said.contains(PASSWORD_FILE), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        let taken = parse("redis://fleet@host").unwrap();
        assert!(!format!("{taken:?}").contains("host"));
    }

    #[test]
    fn who_is_started_is_told_everything_and_nothing_of_ours_by_accident() {
        let args = RedisArgs::bare("unix:///s");
        let told = args.environment();
        assert_eq!(told[0], (URL, "unix:///s".into()));
        assert!(told[1..].iter().all(|(_, value)| value.is_empty()));
    }

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
