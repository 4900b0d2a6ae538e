//! notification-service: mail to customers, by SMTP, or as `.eml` files in a folder.
//!
//! | where | what |
//! |---|---|
//! | the server of `STREAMFLEET_SMTP`, if it is set: `smtp://[user@]host:port` | one mail per event: welcome, order received, confirmed, cancelled |
//! | `$STREAMFLEET_OUTBOX/<event_id>.eml` (default `./outbox`) otherwise | the same |
//! | `notification-service:user:<id>` | hash: `email`, `username`, from User.Created |
//!
//! **Guarantee.** One file per event. Writing it happens outside Redis and so at least once; the
//! file's name makes the second time harmless: a file that exists is left as it is. By SMTP, a mail is sent at least
//! once; its Message-ID derives from the event and is the same each time, so that whoever gets it twice can tell.
//!
//! **SMTP.** The password of `user` is what the file `STREAMFLEET_SMTP_PASSWORD_FILE` holds, or the credential
//! `smtp-password` of systemd. There is no
//! TLS: the server is a relay on this machine or in a network that you trust. A server that cannot be reached, is not
//! ready, or takes nothing from us is no fault of an event: no attempt is charged, and the circuit breaker stops reading. A mail or a
//! recipient that it refuses for good (5xx) becomes a dead letter with the server's answer.
//!
//! **An order of a user who is not known.** Orders carry a user ID and no address. Events of
//! different streams overtake each other, so the first attempt asks to be retried: the user's own
//! event may be a moment behind (this needs `max_attempts` of 2 or more). If the user is still
//! unknown then, the mail is not dropped but addressed to `STREAMFLEET_MAIL_FALLBACK` (a mailbox that people read); without one,
//! by SMTP it is rejected, to be redriven when the user is known, and a file is addressed to
//! `user-<id>@unknown.invalid`, which no server delivers and anyone finds with grep.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use lettre::{Address, message::Mailbox};
use rust_decimal::Decimal;
use serde::Deserialize;
use streamfleet::{Context, Event, Handler, HandlerError, environment};

#[path = "notification/mail.rs"]
mod mail;
#[path = "notification/outbox.rs"]
mod outbox;
#[path = "notification/smtp.rs"]
mod smtp;
use mail::Letter;
use outbox::{Outbox, OutboxError};
use smtp::Smtp;

/// The sender, unless `STREAMFLEET_MAIL_FROM` names one.
const DEFAULT_FROM: &str = "The shop <shop@shop.invalid>";

struct Notification {
    way: Way,
    from: Mailbox,
    fallback: Option<Mailbox>,
}

/// How mail leaves.
enum Way {
    Folder(Outbox),
    Server(Smtp),
}

/// The environment does not say how to write mail.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error("{name}={value:?} is not a mail address: {cause}")]
    Address {
        name: &'static str,
        value: String,
        cause: lettre::address::AddressError,
    },
    #[error("STREAMFLEET_OUTBOX: {0}")]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Smtp(#[from] smtp::SetupError),
    #[error("{name} is not valid UTF-8")]
    NotUnicode { name: &'static str },
}

impl Notification {
    /// Reads `STREAMFLEET_SMTP`, `STREAMFLEET_SMTP_PASSWORD_FILE`, `STREAMFLEET_OUTBOX`,
    /// `STREAMFLEET_MAIL_FROM` and `STREAMFLEET_MAIL_FALLBACK`.
    fn from_env() -> Result<Self, SetupError> {
        let way = match variable("STREAMFLEET_SMTP")? {
            Some(server) => {
                let password_file = environment::variable("STREAMFLEET_SMTP_PASSWORD_FILE");
                Way::Server(Smtp::new(&server, password_file)?)
            }
            None => {
                let folder =
                    environment::variable("STREAMFLEET_OUTBOX").unwrap_or_else(|| "outbox".into());
                Way::Folder(Outbox::open(PathBuf::from(folder))?)
            }
        };
        let from = variable("STREAMFLEET_MAIL_FROM")?.unwrap_or_else(|| DEFAULT_FROM.to_owned());
        let fallback = variable("STREAMFLEET_MAIL_FALLBACK")?;
        Ok(Self {
            way,
            from: mailbox("STREAMFLEET_MAIL_FROM", from)?,
            fallback: fallback
                .map(|value| mailbox("STREAMFLEET_MAIL_FALLBACK", value))
                .transpose()?,
        })
    }

    /// Sends the mail of this event, or writes it unless it has been written.
    async fn send(&self, event: &Event, to: &Mailbox, letter: &Letter) -> Result<(), HandlerError> {
        let compose = || {
            mail::compose(event.id(), event.timestamp(), &self.from, to, letter)
                .map_err(HandlerError::reject)
        };
        match &self.way {
            Way::Server(server) => server.send(&self.from.email, &to.email, &compose()?).await,
            // A folder that cannot be written to is no fault of the event: no attempt is charged.
            Way::Folder(outbox) => {
                let written = outbox.contains(event.id()).await;
                if written.map_err(HandlerError::unavailable)? {
                    return Ok(());
                }
                let write = outbox.write(event.id(), &compose()?).await;
                write.map_err(HandlerError::unavailable)
            }
        }
    }

    /// Writes to the customer of an order.
    async fn send_to_user(
        &self,
        user_id: i64,
        event: &Event,
        letter: &Letter,
        cx: &mut Context,
    ) -> Result<(), HandlerError> {
        let to = match known_user(&cx.hash_get_all(&user_key(user_id)).await?) {
            Some(mailbox) => mailbox,
            None if cx.attempt() == 1 => return Err(NotYetKnown { user_id }.into()),
            None => self.unknown_user(user_id)?,
        };
        self.send(event, &to, letter).await
    }

    fn unknown_user(&self, user_id: i64) -> Result<Mailbox, HandlerError> {
        let address = match &self.fallback {
            Some(fallback) => fallback.email.clone(),
            // A file is found with grep; what a mail server takes for such an address is gone.
            None if matches!(self.way, Way::Server(..)) => {
                return Err(HandlerError::reject(format!(
                    "user {user_id} is not known, and STREAMFLEET_MAIL_FALLBACK names no mailbox for such mail: \
                     redrive it when the user is known"
                )));
            }
            None => Address::new(format!("user-{user_id}"), "unknown.invalid")
                .map_err(HandlerError::reject)?,
        };
        Ok(Mailbox::new(Some(format!("User {user_id}")), address))
    }
}

impl Handler for Notification {
    const SUBSCRIBER: &'static str = "notification-service";

    async fn handle(&self, event: &Event, cx: &mut Context) -> Result<(), HandlerError> {
        match event.event_type() {
            "User.Created" => {
                let User {
                    user_id,
                    username,
                    email,
                } = event.data()?;
                let address: Address = email
                    .parse()
                    .map_err(|error| HandlerError::reject(format!("/data/email: {error}")))?;
                cx.hash_set(&user_key(user_id), "email", email)?;
                cx.hash_set(&user_key(user_id), "username", username.as_str())?;
                let to = Mailbox::new(Some(username.clone()), address);
                self.send(event, &to, &Letter::Welcome { username }).await
            }
            "Order.Created" => {
                let order: Order = event.data()?;
                let letter = Letter::OrderReceived {
                    order_number: order.order_number,
                    lines: order.items.len(),
                    total: order.total_amount,
                };
                self.send_to_user(order.user_id, event, &letter, cx).await
            }
            "Order.Confirmed" => {
                let order: OrderChanged = event.data()?;
                let letter = Letter::OrderConfirmed {
                    order_number: order.number(),
                };
                self.send_to_user(order.user_id, event, &letter, cx).await
            }
            "Order.Cancelled" => {
                let order: OrderChanged = event.data()?;
                let order_number = order.number();
                let letter = Letter::OrderCancelled {
                    order_number,
                    reason: order.reason,
                };
                self.send_to_user(order.user_id, event, &letter, cx).await
            }
            other => Err(HandlerError::reject(format!(
                "notification-service has no mail for {other}: remove it from that route in routing.yaml"
            ))),
        }
    }
}

#[global_allocator]
static ALLOCATOR: streamfleet::Allocator = streamfleet::Allocator;

fn main() -> ExitCode {
    streamfleet::worker::main(Notification::from_env)
}

/// `User.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct User {
    user_id: i64,
    username: String,
    email: String,
}

/// `Order.Created`, as far as this service reads it.
#[derive(Deserialize)]
struct Order {
    order_number: String,
    user_id: i64,
    #[serde(with = "streamfleet::money")]
    total_amount: Decimal,
    items: Vec<serde::de::IgnoredAny>,
}

/// `Order.Confirmed` and `Order.Cancelled`, as far as this service reads them.
#[derive(Deserialize)]
struct OrderChanged {
    order_id: i64,
    order_number: Option<String>,
    user_id: i64,
    /// Only a cancellation has one.
    #[serde(default)]
    reason: String,
}

impl OrderChanged {
    /// The number that the customer knows, if the event has it.
    fn number(&self) -> String {
        self.order_number
            .clone()
            .unwrap_or_else(|| self.order_id.to_string())
    }
}

/// An order of a user whom no User.Created has made known yet.
#[derive(Debug, thiserror::Error)]
#[error("user {user_id} is not known yet; looking again before writing to the fallback address")]
struct NotYetKnown {
    user_id: i64,
}

fn user_key(user_id: i64) -> String {
    format!("user:{user_id}")
}

fn known_user(fields: &BTreeMap<String, Vec<u8>>) -> Option<Mailbox> {
    let text = |field| {
        fields
            .get(field)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    };
    Some(Mailbox::new(
        text("username").map(str::to_owned),
        text("email")?.parse().ok()?,
    ))
}

/// A variable of the environment as text.
fn variable(name: &'static str) -> Result<Option<String>, SetupError> {
    let value = environment::variable(name).map(|value| value.into_string());
    value
        .transpose()
        .map_err(|_| SetupError::NotUnicode { name })
}

fn mailbox(name: &'static str, value: String) -> Result<Mailbox, SetupError> {
    value
        .parse()
        .map_err(|cause| SetupError::Address { name, value, cause })
}
