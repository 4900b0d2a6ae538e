//! The same server for `redis-cli`: how an operator asks it what we say of it. Pure.

use std::fmt::Write as _;

use redis::{ConnectionAddr, ConnectionInfo};

use super::access::TlsFiles;

/// `redis-cli` with what leads it to this server, without the password: that one is read from
/// REDISCLI_AUTH.
pub(super) fn redis_cli(info: &ConnectionInfo, tls: &TlsFiles) -> String {
    let mut line = "redis-cli".to_owned();
    // Writing into a text does not fail.
    let _ = match info.addr() {
        ConnectionAddr::Unix(path) => write!(line, " -s {}", quoted(&path.display().to_string())),
        ConnectionAddr::Tcp(host, port) => write!(line, " -h {} -p {port}", quoted(host)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            line += " --tls";
            let TlsFiles { ca, cert, key } = tls;
            for (option, file) in [("--cacert", ca), ("--cert", cert), ("--key", key)] {
                if let Some(file) = file {
                    let _ = write!(line, " {option} {}", quoted(&file.display().to_string()));
                }
            }
            write!(line, " -h {} -p {port}", quoted(host))
        }
        other => write!(line, " -u {}", quoted(&other.to_string())),
    };
    let settings = info.redis_settings();
    if settings.db() != 0 {
        let _ = write!(line, " -n {}", settings.db());
    }
    if let Some(user) = settings.username() {
        let _ = write!(line, " --user {}", quoted(user));
    }
    line
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,=-".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::IntoConnectionInfo;

    #[test]
    fn a_server_is_reached_without_its_password() {
        for (url, line) in [
            ("redis://h:6380/2", "redis-cli -h h -p 6380 -n 2"),
            ("unix:///run/redis.sock", "redis-cli -s /run/redis.sock"),
            ("unix:///a b/redis.sock", "redis-cli -s '/a b/redis.sock'"),
            ("redis://me:secret@h/0", "redis-cli -h h -p 6379 --user me"),
            ("redis://:secret@h", "redis-cli -h h -p 6379"),
        ] {
            assert_eq!(
                redis_cli(&url.into_connection_info().unwrap(), &TlsFiles::default()),
                line,
                "{url}"
            );
        }
    }

    #[test]
    fn over_tls_it_trusts_and_shows_the_same_files() {
        let line = |tls: &TlsFiles| {
            let info = "rediss://h:6380".into_connection_info().unwrap();
            redis_cli(&info, tls)
        };
        let bare = line(&TlsFiles::default());
        assert_eq!(bare, "redis-cli --tls -h h -p 6380");
        let all = TlsFiles {
            ca: Some("/etc/our ca.pem".into()),
            cert: Some("client.pem".into()),
            key: Some("client.key".into()),
        };
        assert_eq!(
            line(&all),
            "redis-cli --tls --cacert '/etc/our ca.pem' --cert client.pem --key client.key -h h -p 6380"
        );
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more_into_them() {
        assert_eq!(quoted("order-events"), "order-events");
        assert_eq!(quoted("$(rm x)"), "'$(rm x)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
