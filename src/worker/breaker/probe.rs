//! A probe: the right to run one delivery while the circuit breaker is half-open, and the duty to
//! say what came of it.

use tokio::sync::mpsc::UnboundedSender;

use super::Request;

/// Given back when it is dropped, unless something came of it.
pub(crate) struct Probe {
    given: Option<Given>,
    requests: UnboundedSender<Request>,
}

/// What was given out with it.
pub(crate) struct Given {
    pub(super) token: String,
    /// How often the breaker has opened in a row.
    pub(super) opened: u32,
    /// When it opened first (ms, 1970, the server's clock).
    pub(super) first_ms: u64,
    /// Correlation ID of the events that tell of this outage.
    pub(super) flow: String,
}

/// What came of it.
pub(crate) enum Came {
    /// What the handler depends on is there.
    Passed,
    /// It is still down: what the handler said.
    Failed(String),
    /// Nothing.
    Back,
}

impl Probe {
    pub(super) fn new(given: Given, requests: UnboundedSender<Request>) -> Self {
        Self {
            given: Some(given),
            requests,
        }
    }

    /// How often the breaker has opened in a row.
    pub(super) fn opened(&self) -> u32 {
        self.given.as_ref().map_or(1, |given| given.opened)
    }

    pub(crate) fn passed(mut self) {
        self.end(Came::Passed);
    }

    pub(super) fn failed(mut self, why: String) {
        self.end(Came::Failed(why));
    }

    fn end(&mut self, came: Came) {
        if let Some(given) = self.given.take() {
            // Nobody listens only when the process has ended: then it runs out.
            drop(self.requests.send(Request::End(given, came)));
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end(Came::Back);
    }
}
