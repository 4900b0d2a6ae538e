//! How a Redis is reached: its URL, the user and the password, and for TLS the certificates. What
//! contradicts itself is refused, so that nobody works as another user, or in the clear, unawares.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
};

use crate::secret::{Secret, SecretError};

/// Where a Redis is, and who asks it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    url: Url,
    username: Option<String>,
    password_file: Option<PathBuf>,
    tls: TlsFiles,
}

/// It may hold a password.
#[derive(Clone, Default)]
struct Url(String);

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Files in PEM format that TLS needs beyond what the system trusts.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates of those whose word for the server is taken, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, for a server that asks for one.
    pub cert: Option<PathBuf>,
    /// The key to it.
    pub key: Option<PathBuf>,
}

/// What is said about a server cannot be used. None of these holds a password.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The URL is not one that this program can use.
    #[error(
        "the Redis URL cannot be used: {0}. Write redis://host:port/db, rediss://host:port/db (TLS) or unix:///path/to/socket"
    )]
    Url(String),
    /// The file of the password cannot be used.
    #[error("the Redis password: {0}")]
    Password(#[from] SecretError),
    /// Two passwords.
    #[error(
        "there are two passwords for Redis, one in its URL and one in {}: take the one out of the URL",
        .0.display()
    )]
    TwoPasswords(PathBuf),
    /// Two users.
    #[error(
        "there are two users for Redis, {of_url:?} in its URL and {given:?} in STREAMFLEET_REDIS_USERNAME: keep one"
    )]
    TwoUsers {
        /// In the URL.
        of_url: String,
        /// Beside it.
        given: String,
    },
    /// A user, but no password: the client library would work as the default user.
    #[error(
        "a Redis user is named ({0:?}), but no password: put it into a file, and name that in STREAMFLEET_REDIS_PASSWORD_FILE"
    )]
    NoPassword(String),
    /// Certificates for a connection that has no use for them.
    #[error(
        "{} is named for TLS, but the Redis URL is not rediss://: without it nothing is encrypted",
        .0.display()
    )]
    NotTls(PathBuf),
    /// A certificate without its key, or the other way round.
    #[error(
        "a client certificate needs two files: STREAMFLEET_REDIS_CERT_FILE and STREAMFLEET_REDIS_KEY_FILE"
    )]
    HalfACertificate,
    /// One of the files for TLS cannot be used.
    #[error("{}: {problem}", path.display())]
    Tls {
        /// Which.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
}

impl From<&str> for Access {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<&String> for Access {
    fn from(url: &String) -> Self {
        Self::new(url)
    }
}

impl Access {
    /// By the URL alone.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: Url(url.into()),
            ..Self::default()
        }
    }

    /// As this user, unless the URL names one.
    #[must_use]
    pub fn username(self, username: Option<String>) -> Self {
        Self { username, ..self }
    }

    /// With the password that this file holds.
    #[must_use]
    pub fn password_file(self, password_file: Option<PathBuf>) -> Self {
        Self {
            password_file,
            ..self
        }
    }

    /// With these files, where the URL is one of TLS.
    #[must_use]
    pub fn tls(self, tls: TlsFiles) -> Self {
        Self { tls, ..self }
    }

    /// What it names for TLS.
    pub(super) fn into_tls(self) -> TlsFiles {
        self.tls
    }

    /// All of it as the client library takes it; reads the files.
    pub(super) fn connection_info(&self) -> Result<ConnectionInfo, AccessError> {
        let info = parse(&self.url.0)?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let info = self.authenticated(info)?;
        let TlsFiles { ca, cert, key } = &self.tls;
        if !self.url.0.starts_with("rediss://") {
            return match ca.as_ref().or(cert.as_ref()).or(key.as_ref()) {
                Some(file) => Err(AccessError::NotTls(file.clone())),
                None => Ok(info),
            };
        }
        let client_tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: pem(cert, "CERTIFICATE")?,
                client_key: pem(key, "PRIVATE KEY")?,
            }),
            (None, None) => None,
            _ => return Err(AccessError::HalfACertificate),
        };
        let root_cert = ca.as_deref().map(|ca| pem(ca, "CERTIFICATE")).transpose()?;
        let own = TlsCertificates {
            client_tls,
            root_cert,
        };
        let client = Client::build_with_tls(info, own).map_err(|error| AccessError::Tls {
            path: ca.clone().or_else(|| cert.clone()).unwrap_or_default(),
            problem: error.to_string(),
        })?;
        Ok(client.get_connection_info().clone())
    }

    fn authenticated(&self, info: ConnectionInfo) -> Result<ConnectionInfo, AccessError> {
        let mut settings = info.redis_settings().clone();
        let of_url = settings.username().map(str::to_owned);
        let user = match (of_url, &self.username) {
            (Some(of_url), Some(given)) if of_url != *given => {
                let given = given.clone();
                return Err(AccessError::TwoUsers { of_url, given });
            }
            (of_url, given) => of_url.or_else(|| given.clone()),
        };
        match (settings.password().is_some(), &self.password_file) {
            (true, Some(file)) => return Err(AccessError::TwoPasswords(file.clone())),
            (false, Some(file)) => {
                settings = settings.set_password(Secret::read(file)?.expose());
            }
            (true, None) => {}
            (false, None) => {
                if let Some(user) = user {
                    return Err(AccessError::NoPassword(user));
                }
                return Ok(info);
            }
        }
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        Ok(info.set_redis_settings(settings))
    }
}

/// A file of PEM blocks. The client library passes over a file without any, and would then trust
/// nobody, or say nothing of whose key it has.
fn pem(path: &Path, kind: &str) -> Result<Vec<u8>, AccessError> {
    let wrong = |problem: String| AccessError::Tls {
        path: path.to_owned(),
        problem,
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.contains(kind);
    match text.lines().any(begins) {
        true => Ok(bytes),
        false => Err(wrong(format!(
            "there is no {kind} in it (PEM: -----BEGIN {kind}-----)"
        ))),
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, AccessError> {
    if url.contains(',') || url.starts_with("redis+cluster") || url.starts_with("redis-cluster") {
        let problem = "Redis Cluster is not supported yet".into();
        return Err(AccessError::Url(problem));
    }
    // The library's message could quote the URL, and with it a password.
    url.into_connection_info().map_err(|e| {
        AccessError::Url(match e.detail() {
            Some(detail) => detail.to_owned(),
            None => "it does not parse".into(),
        })
    })
}

/// Whose certificate was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// We do not trust the server.
    OfServer,
    /// The server does not trust us, or asks for a certificate that we do not have.
    OfUs,
}

/// Whether an error is one of certificates: nothing that trying again could heal.
pub fn distrust(error: &RedisError) -> Option<Distrust> {
    use rustls::AlertDescription as Alert;
    // The client library keeps what it was given behind a pointer.
    let inner = std::error::Error::source(error)?
        .downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    match inner
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref()?
    {
        rustls::Error::InvalidCertificate(_) => Some(Distrust::OfServer),
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Some(Distrust::OfUs),
        _ => None,
    }
}

/// Whether a URL holds a password, or looks as if it did. It need not be a URL that can be used.
pub fn holds_password(url: &str) -> bool {
    if url.contains("pass=") {
        return true;
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme.starts_with("unix") || scheme == "redis+unix" {
        return false;
    }
    // A password may hold an @ itself, and what should have been escaped.
    rest.rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn refused(access: &Access) -> String {
        let said = access.connection_info().unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!format!("{access:?}").contains("hunter2"));
        said
    }

    #[test]
    fn a_user_and_a_password_come_from_one_place_each() {
        let password = file("hunter2\n");
        let path = || Some(password.path().to_owned());
        let settings = |access: Access| {
            let info = access.connection_info().unwrap();
            let settings = info.redis_settings();
            let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
            (text(settings.username()), text(settings.password()))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let user = || Some("fleet".to_owned());
        assert_eq!(settings(Access::new("redis://h")), pair("-", "-"));
        let url = || Access::new("redis://fleet@h").password_file(path());
        assert_eq!(settings(url()), pair("fleet", "hunter2"));
        assert_eq!(settings(url().username(user())), pair("fleet", "hunter2"));
        let bare = || Access::new("unix:///x").password_file(path());
        assert_eq!(settings(bare()), pair("-", "hunter2"));
        assert_eq!(settings(bare().username(user())), pair("fleet", "hunter2"));
        let whole = Access::new("redis://a:b@h");
        assert_eq!(settings(whole), pair("a", "b"));

        let two = Access::new("redis://:hunter2@h").password_file(path());
        assert!(refused(&two).contains("two passwords"));
        let two = url().username(Some("other".into()));
        assert!(refused(&two).contains("two users"));
        let none = Access::new("redis://h").username(user());
        assert!(refused(&none).contains("but no password"));
        assert!(refused(&Access::new("redis://fleet@h")).contains("but no password"));
        let gone = Access::new("redis://h").password_file(Some("/nowhere".into()));
        assert!(refused(&gone).contains("/nowhere: No such file"));
        assert!(refused(&Access::new("http://a:hunter2@h")).contains("cannot be used"));
    }

    #[test]
    fn certificates_are_for_tls() {
        let ca = Some(file("hunter2").path().to_owned());
        let plain = TlsFiles {
            ca: ca.clone(),
            ..TlsFiles::default()
        };
        let access = Access::new("redis://h").tls(plain.clone());
        assert!(refused(&access).contains("nothing is encrypted"));
        let not_pem = file("hunter2");
        let of = |tls| refused(&Access::new("rediss://h").tls(tls));
        let wrong = TlsFiles {
            ca: Some(not_pem.path().to_owned()),
            ..TlsFiles::default()
        };
        assert!(of(wrong).contains("there is no CERTIFICATE in it"));
        assert!(of(plain).contains("No such file"), "it was removed");
        let half = TlsFiles {
            cert: ca,
            ..TlsFiles::default()
        };
        assert!(of(half).contains("needs two files"));
    }

    #[test]
    fn passwords_in_urls_are_found() {
        for url in [
            "redis://user:hunter2@h:1/0",
            "redis://:hunter2@h",
            "rediss://u:p@a@h",
            "redis://u:p/w@h",
            "redis+cluster://u:p@h",
            "unix:///s?user=u&pass=p",
            "u:p@h",
        ] {
            assert!(holds_password(url), "{url}");
        }
        for url in [
            "redis://h:1/0",
            "redis://user@h:1",
            "unix:///a@b:c",
            "http://h:1",
            "",
        ] {
            assert!(!holds_password(url), "{url}");
        }
    }
}
