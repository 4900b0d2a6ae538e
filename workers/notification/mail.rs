//! The mail that the notification service writes: who gets what text, as RFC 5322 bytes. Pure
//! functions; the same event always makes the same bytes.
//!
//! Names and numbers come from users. In headers they are folded to one line and encoded
//! (RFC 2047), so none of them can add a header; bodies are UTF-8.

use std::time::SystemTime;

use jiff::Timestamp;
use lettre::{
    Message,
    message::{
        Mailbox,
        header::{ContentType, MIME_VERSION_1_0},
    },
};
use rust_decimal::Decimal;
use uuid::Uuid;

/// What a mail says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    Welcome {
        username: String,
    },
    OrderReceived {
        order_number: String,
        lines: usize,
        total: Decimal,
    },
    OrderConfirmed {
        order_number: String,
    },
    OrderCancelled {
        order_number: String,
        reason: String,
    },
}

/// A mail that cannot be written. No retry will help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    #[error("mail cannot be dated {0}: it must be after 1970")]
    Date(Timestamp),
    #[error("the mail cannot be composed: {0}")]
    Compose(#[from] lettre::error::Error),
}

/// The mail that `event_id` asks for. Its Message-ID derives from the event, so that whoever gets
/// it twice can tell; its date is event time.
pub(crate) fn compose(
    event_id: Uuid,
    at: Timestamp,
    from: &Mailbox,
    to: &Mailbox,
    letter: &Letter,
) -> Result<Vec<u8>, MailError> {
    // HTTP's dates, which the mail library uses, begin in 1970.
    if at < Timestamp::UNIX_EPOCH {
        return Err(MailError::Date(at));
    }
    let name = to
        .name
        .as_deref()
        .map(one_line)
        .filter(|name| !name.is_empty());
    let (subject, body) = text(letter);
    let message = Message::builder()
        .message_id(Some(format!("<{event_id}@{}>", from.email.domain())))
        .date(SystemTime::from(at))
        .from(from.clone())
        .to(Mailbox::new(name, to.email.clone()))
        .subject(one_line(&subject))
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN)
        .body(body)?;
    Ok(message.formatted())
}

fn text(letter: &Letter) -> (String, String) {
    match letter {
        Letter::Welcome { username } => (
            "Welcome to the shop".to_owned(),
            format!(
                "Hello {},\n\nyour account is open. Enjoy your visit!\n",
                one_line(username)
            ),
        ),
        Letter::OrderReceived {
            order_number,
            lines,
            total,
        } => {
            let number = one_line(order_number);
            let lines = if *lines == 1 {
                "1 line".to_owned()
            } else {
                format!("{lines} lines")
            };
            let total = amount(*total);
            (
                format!("Order {number}: received"),
                format!(
                    "Thank you for your order {number}: {lines}, {total} in all.\n\n\
                     We will write again when it is confirmed.\n"
                ),
            )
        }
        Letter::OrderConfirmed { order_number } => {
            let number = one_line(order_number);
            (
                format!("Order {number}: confirmed"),
                format!("Your order {number} is confirmed and will be shipped.\n"),
            )
        }
        Letter::OrderCancelled {
            order_number,
            reason,
        } => {
            let number = one_line(order_number);
            (
                format!("Order {number}: cancelled"),
                format!(
                    "Your order {number} was cancelled: {}.\n\n\
                     What you paid for it, if anything, is on its way back to you.\n",
                    one_line(reason).replace('_', " ")
                ),
            )
        }
    }
}

/// An amount with the two decimals that customers expect, or more if it has more: never rounded.
fn amount(amount: Decimal) -> String {
    let exact = amount.normalize();
    if exact.scale() <= 2 {
        format!("{exact:.2}")
    } else {
        exact.to_string()
    }
}

/// User text as one line: control characters and line breaks of every kind become spaces.
fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.split(|c: char| breaks(c) || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(name: &str, letter: &Letter) -> String {
        let from: Mailbox = "The shop <shop@shop.example>".parse().unwrap();
        let to = Mailbox::new(Some(name.to_owned()), "ada@example.com".parse().unwrap());
        let at = "2010-12-01T08:26:00Z".parse().unwrap();
        String::from_utf8(compose(Uuid::nil(), at, &from, &to, letter).unwrap()).unwrap()
    }

    fn header<'a>(mail: &'a str, name: &str) -> &'a str {
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        let mut found = head
            .split("\r\n")
            .filter_map(|line| line.strip_prefix(name));
        let value = found.next().unwrap();
        assert_eq!(found.next(), None, "{name} appears twice");
        value
    }

    #[test]
    fn headers_derive_from_the_event() {
        let mail = composed(
            "Ada",
            &Letter::OrderConfirmed {
                order_number: "536365".to_owned(),
            },
        );
        assert_eq!(
            header(&mail, "Message-ID: "),
            "<00000000-0000-0000-0000-000000000000@shop.example>"
        );
        assert_eq!(header(&mail, "Date: "), "Wed, 01 Dec 2010 08:26:00 +0000");
        assert_eq!(header(&mail, "To: "), "Ada <ada@example.com>");
        assert_eq!(header(&mail, "Subject: "), "Order 536365: confirmed");
        assert!(
            mail.ends_with("\r\n\r\nYour order 536365 is confirmed and will be shipped.\r\n"),
            "{mail}"
        );
    }

    #[test]
    fn an_order_is_summed_up() {
        let order_number = "536365".to_owned();
        let letter = Letter::OrderReceived {
            order_number,
            lines: 1,
            total: Decimal::new(153, 1),
        };
        assert!(composed("Ada", &letter).contains("your order 536365: 1 line, 15.30 in all."));
        assert_eq!(amount(Decimal::new(1005, 3)), "1.005");
    }

    #[test]
    fn user_text_cannot_add_a_header() {
        let evil = "x\r\nBcc: all@example.com\n\nhello\u{2028}\0";
        let letter = Letter::OrderCancelled {
            order_number: evil.to_owned(),
            reason: evil.to_owned(),
        };
        let mail = composed(evil, &letter);
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(!body.lines().any(|line| line.starts_with("Bcc")), "{body}");
        assert!(!mail.replace("\r\n", "").contains(['\r', '\n', '\0']));
    }

    #[test]
    fn names_beyond_ascii_are_encoded_and_lines_stay_short() {
        let name = "Zoë Ångström ".repeat(20);
        let mail = composed(
            &name,
            &Letter::Welcome {
                username: name.clone(),
            },
        );
        assert!(mail.is_ascii(), "{mail}");
        assert!(header(&mail, "To: ").starts_with("=?utf-8?"));
        assert_eq!(header(&mail, "MIME-Version: "), "1.0");
        assert_eq!(header(&mail, "Content-Type: "), "text/plain; charset=utf-8");
        assert!(mail.split("\r\n").all(|line| line.len() <= 78), "{mail}");
    }

    #[test]
    fn a_date_that_mail_cannot_carry_is_refused() {
        let from: Mailbox = "shop@shop.example".parse().unwrap();
        let to = Mailbox::new(None, "ada@example.com".parse().unwrap());
        let letter = Letter::Welcome {
            username: "Ada".to_owned(),
        };
        let old = "1969-12-31T23:59:59Z".parse().unwrap();
        assert!(matches!(
            compose(Uuid::nil(), old, &from, &to, &letter),
            Err(MailError::Date(_))
        ));
        assert!(compose(Uuid::nil(), Timestamp::MAX, &from, &to, &letter).is_ok());
    }
}
