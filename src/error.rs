//! How a handler says what went wrong, and thereby what becomes of the delivery.

use std::fmt;

/// Why a delivery was not handled, and thereby what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    kind: Failure,
    message: String,
    /// Whether it was Redis that could not be asked.
    redis_away: bool,
}

/// The three ways to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Charged; tried again after a delay until the attempts are used up.
    Retry,
    /// Never tried again.
    Reject,
    /// What the handler depends on is down: nobody is charged, and after a few of them in a row the
    /// circuit breaker stops reading.
    Unavailable,
}

impl HandlerError {
    /// Which of the three it is.
    pub fn kind(&self) -> Failure {
        self.kind
    }
    /// It may work next time: charges an attempt. (`?` on any error does the same.)
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self {
            kind: Failure::Retry,
            message: reason.to_string(),
            redis_away: false,
        }
    }
    /// It will never work: the event goes to the dead letters at once.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self {
            kind: Failure::Reject,
            message: reason.to_string(),
            redis_away: false,
        }
    }
    /// What it depends on is down: the event waits, uncharged. A few of them in a row open the
    /// subscriber's circuit breaker: all its workers stop reading, and try again with a few
    /// deliveries after a while (`breaker` in routing.yaml).
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self {
            kind: Failure::Unavailable,
            message: reason.to_string(),
            redis_away: false,
        }
    }
    /// Redis could not be asked: nobody is charged. It is none of the circuit breaker's business,
    /// because without Redis nothing is read anyway.
    pub(crate) fn redis_away(reason: impl fmt::Display) -> Self {
        Self {
            redis_away: true,
            ..Self::unavailable(reason)
        }
    }
    /// The same in other words.
    pub(crate) fn reworded(self, words: impl FnOnce(&str) -> String) -> Self {
        Self {
            message: words(&self.message),
            ..self
        }
    }
    pub(crate) fn is_redis_away(&self) -> bool {
        self.redis_away
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Any error means "try again", with its chain of causes as the message. (For this blanket to
/// be possible, `HandlerError` is not an `Error` itself.)
impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::retry(message)
    }
}
