//! Mail by SMTP: a connection per mail, each step judged for itself, because what is refused by the
//! server as such says nothing about the mail.

use std::{ffi::OsString, fmt, time::Duration};

use lettre::Address;
use lettre::transport::smtp::{
    Error as SmtpError,
    authentication::{Credentials, Mechanism},
    client::AsyncSmtpConnection,
    commands::{Data, Mail, Rcpt},
    extension::{ClientId, Extension, MailBodyParameter, MailParameter},
};
use streamfleet::HandlerError;
use streamfleet::secret::{self, Secret, SecretError};
use tokio::time::timeout;

/// How long one mail may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long connecting may take, of that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long we wait for the server's farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// What systemd's `LoadCredential=` must call the password.
const PASSWORD_CREDENTIAL: &str = "smtp-password";

/// The environment does not say how to reach a server. None of these repeats a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("STREAMFLEET_SMTP={0:?} is not smtp://[user@]host:port (there is no TLS)")]
    Server(String),
    #[error(
        "STREAMFLEET_SMTP holds a password: put it into a file, and name that in STREAMFLEET_SMTP_PASSWORD_FILE"
    )]
    PasswordInView,
    #[error(
        "STREAMFLEET_SMTP names a user, and STREAMFLEET_SMTP_PASSWORD_FILE no file (nor is there a credential smtp-password)"
    )]
    NoPassword,
    #[error("STREAMFLEET_SMTP_PASSWORD_FILE is set, and STREAMFLEET_SMTP names no user")]
    NoUser,
    #[error("the SMTP password: {0}")]
    Password(#[from] SecretError),
}

/// A server that takes mail.
pub(crate) struct Smtp {
    place: Place,
    credentials: Option<Credentials>,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SMTP server {}:{}", self.host, self.port)
    }
}

impl Smtp {
    /// Reads where the server is, and the password from the file that the variable names, or from the
    /// credential; connects to nothing yet.
    pub(crate) fn new(server: &str, password_file: Option<OsString>) -> Result<Self, SetupError> {
        let (user, place) = parse(server)?;
        let named = password_file.as_ref().is_some_and(|file| !file.is_empty());
        let credentials = match user {
            None if named => return Err(SetupError::NoUser),
            None => None,
            Some(user) => {
                let file = secret::file(password_file, PASSWORD_CREDENTIAL);
                let password = Secret::read(&file.ok_or(SetupError::NoPassword)?)?;
                Some(Credentials::new(user, password.expose().to_owned()))
            }
        };
        Ok(Self { place, credentials })
    }

    /// Hands a mail to the server.
    pub(crate) async fn send(
        &self,
        from: &Address,
        to: &Address,
        mail: &[u8],
    ) -> Result<(), HandlerError> {
        let deliver = Box::pin(self.deliver(from, to, mail));
        let Ok(delivered) = timeout(TIMEOUT, deliver).await else {
            let place = &self.place;
            let late = format!("{place}: no answer within {TIMEOUT:?}");
            return Err(HandlerError::unavailable(late));
        };
        // It has the mail. Whether it says goodbye changes nothing.
        let _ = timeout(FAREWELL, delivered?.quit()).await;
        Ok(())
    }

    async fn deliver(
        &self,
        from: &Address,
        to: &Address,
        mail: &[u8],
    ) -> Result<AsyncSmtpConnection, HandlerError> {
        let Place { host, port } = &self.place;
        // Up to here nothing is said of the mail: whatever goes wrong goes wrong for all of them.
        let away = |error: SmtpError| HandlerError::unavailable(format!("{}: {error}", self.place));
        let (address, hello) = ((host.as_str(), *port), ClientId::default());
        let limit = Some(CONNECT_TIMEOUT);
        let connect = AsyncSmtpConnection::connect_tokio1(address, limit, &hello, None, None);
        let mut server = connect.await.map_err(away)?;
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            server.auth(&mechanisms, credentials).await.map_err(away)?;
        }
        let parameters = self.parameters(&server, from, to, mail)?;
        let sender = Mail::new(Some(from.clone()), parameters);
        server.command(sender).await.map_err(away)?;
        // From here on it is about this mail.
        let refused = |error: SmtpError| match error.is_permanent() {
            true => HandlerError::reject(format!("{} refuses mail to {to}: {error}", self.place)),
            false => away(error),
        };
        let recipient = Rcpt::new(to.clone(), Vec::new());
        server.command(recipient).await.map_err(refused)?;
        server.command(Data).await.map_err(refused)?;
        server.message(mail).await.map_err(refused)?;
        Ok(server)
    }

    /// What the server must know beforehand about a mail that is not plain ASCII.
    fn parameters(
        &self,
        server: &AsyncSmtpConnection,
        from: &Address,
        to: &Address,
        mail: &[u8],
    ) -> Result<Vec<MailParameter>, HandlerError> {
        let addresses: [&str; 2] = [from.as_ref(), to.as_ref()];
        let body = MailParameter::Body(MailBodyParameter::EightBitMime);
        let needs = [
            (
                !addresses.iter().all(|address| address.is_ascii()),
                Extension::SmtpUtfEight,
                MailParameter::SmtpUtfEight,
            ),
            (!mail.is_ascii(), Extension::EightBitMime, body),
        ];
        let needs = needs.into_iter().filter(|(needed, ..)| *needed);
        let parameter =
            |(_, extension, parameter)| match server.server_info().supports_feature(extension) {
                true => Ok(parameter),
                false => Err(HandlerError::reject(format!(
                    "{} does not offer {extension}, which mail to {to} needs",
                    self.place
                ))),
            };
        needs.map(parameter).collect()
    }
}

/// The user and the place of `smtp://[user@]host:port`.
fn parse(server: &str) -> Result<(Option<String>, Place), SetupError> {
    let Some(rest) = server.strip_prefix("smtp://") else {
        // Not repeated in full: it could hold a password as well.
        let scheme = server.split("//").next().unwrap_or_default();
        return Err(SetupError::Server(scheme.chars().take(20).collect()));
    };
    // A user may be an address.
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => return Err(SetupError::PasswordInView),
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, rest),
    };
    let wrong = || SetupError::Server(server.to_owned());
    let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    // An IPv6 address stands in brackets, because it has colons of its own.
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', ' ']);
    if !plain || (bare.is_none() && host.contains(':')) || user.as_deref() == Some("") {
        return Err(wrong());
    }
    let host = host.to_owned();
    Ok((user, Place { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16) -> Place {
        let host = host.to_owned();
        Place { host, port }
    }

    #[test]
    fn a_server_is_a_host_a_port_and_perhaps_a_user() {
        let parse = |text| parse(text).unwrap();
        assert_eq!(parse("smtp://mail:25"), (None, place("mail", 25)));
        assert_eq!(parse("smtp://[::1]:2525"), (None, place("::1", 2525)));
        let (user, at) = parse("smtp://shop@shop.example@mail:587");
        assert_eq!(
            (user.as_deref(), at),
            (Some("shop@shop.example"), place("mail", 587))
        );
        for wrong in [
            "mail:25",
            "smtps://mail:465",
            "smtp://mail",
            "smtp://mail:0x19",
            "smtp://:25",
            "smtp://::1:25",
            "smtp://@mail:25",
            "smtp://mail:25/inbox",
        ] {
            let error = super::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("is not smtp://"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_never_repeated() {
        for held in ["smtp://shop:secret@mail:25", "smtps://shop:secret@mail:25"] {
            let error = Smtp::new(held, None).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "secret\n").unwrap();
        let path = || Some(file.path().as_os_str().to_owned());
        assert!(Smtp::new("smtp://shop@mail:25", path()).is_ok());
        let error = |server, path| Smtp::new(server, path).err().unwrap();
        assert!(matches!(
            error("smtp://mail:25", path()),
            SetupError::NoUser
        ));
        assert!(matches!(
            error("smtp://shop@mail:25", None),
            SetupError::NoPassword
        ));
        let gone = Some("/nowhere/password".into());
        let error = error("smtp://shop@mail:25", gone).to_string();
        assert!(error.contains("/nowhere/password"), "{error}");
    }
}
