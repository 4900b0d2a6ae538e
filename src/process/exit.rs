//! Exit codes: the one place that says which error ends a process with which code, so that
//! systemd units and scripts can tell what helps: a restart, an operator, or another file.

use std::process::ExitCode;

use deadpool_redis::PoolError;
use redis::{ErrorKind, RedisError};

use crate::routing::ConfigError;
use crate::store::{Severity, StoreError, distrust};

/// How a process ended. (2, wrong usage, is clap's.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or stopped as told.
    Clean,
    /// 1: it failed, or the answer is no.
    Failure,
    /// 69: Redis cannot be reached; it may work later. `EX_UNAVAILABLE`.
    Unreachable,
    /// 78: the configuration must be changed first. `EX_CONFIG`.
    BadConfig,
}

impl Exit {
    /// Every code and what it means, as help and manual pages say it.
    pub const MEANINGS: [(u8, &str); 5] = [
        (0, "done, or stopped as told"),
        (1, "it failed, or the answer is no: there are findings"),
        (2, "wrong usage"),
        (69, "Redis cannot be reached; it may work later"),
        (
            78,
            "the configuration, or a setting of Redis, must be changed first",
        ),
    ];

    /// The code for the operating system.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failure => 1,
            Self::Unreachable => 69,
            Self::BadConfig => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<&ConfigError> for Exit {
    fn from(_: &ConfigError) -> Self {
        Self::BadConfig
    }
}

impl From<&StoreError> for Exit {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Access(_) => Self::BadConfig,
            StoreError::Redis { cause, .. } => of_redis(cause),
            StoreError::Unfit { reasons, .. } => {
                match reasons.iter().any(|r| r.severity() == Severity::Refuse) {
                    true => Self::BadConfig,
                    false => Self::Unreachable,
                }
            }
            StoreError::Pool { cause, .. } => match cause {
                PoolError::Backend(cause) => of_redis(cause),
                _ => Self::Unreachable,
            },
        }
    }
}

fn of_redis(error: &RedisError) -> Exit {
    if distrust(error).is_some() {
        return Exit::BadConfig;
    }
    let heals = matches!(
        error.code(),
        Some("LOADING" | "MASTERDOWN" | "READONLY" | "NOREPLICAS" | "MISCONF" | "BUSY")
    );
    if heals || error.is_io_error() {
        return Exit::Unreachable;
    }
    let denied = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    if denied
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig
        )
    {
        return Exit::BadConfig;
    }
    Exit::Failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{AccessError, Finding};

    #[test]
    fn codes_tell_what_helps() {
        let store = |cause: RedisError| StoreError::Redis {
            server: "s".into(),
            cause,
        };
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            Exit::from(&store(refused.into())).code(),
            69,
            "nobody listens"
        );
        let denied = RedisError::from((ErrorKind::AuthenticationFailed, "no"));
        assert_eq!(Exit::from(&store(denied)).code(), 78);
        let other = RedisError::from((ErrorKind::UnexpectedReturnType, "odd"));
        assert_eq!(Exit::from(&store(other)).code(), 1);
        let access = AccessError::Url("x".into());
        assert_eq!(Exit::from(&StoreError::from(access)).code(), 78);
        let unfit = |reasons: &[Finding]| StoreError::Unfit {
            server: "s".into(),
            reasons: reasons.to_vec(),
        };
        let replica = Finding::Replica("m:1".into());
        assert_eq!(
            Exit::from(&unfit(std::slice::from_ref(&replica))).code(),
            69,
            "it may be promoted"
        );
        assert_eq!(Exit::from(&unfit(&[replica, Finding::Cluster])).code(), 78);
        for code in ["NOREPLICAS", "MISCONF", "BUSY"] {
            let refused = redis::make_extension_error(code.to_owned(), None);
            assert_eq!(Exit::from(&store(refused)).code(), 69, "{code} passes");
        }
        let config = ConfigError { problems: vec![] };
        assert_eq!(Exit::from(&config).code(), 78);
    }
}
