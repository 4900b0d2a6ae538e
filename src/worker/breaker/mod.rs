//! Whether this worker may read: the circuit breaker that all workers of its subscriber share, and
//! the operator's pause.
//!
//! | part | what |
//! |---|---|
//! | outcomes | counts what became of deliveries; decides when the breaker is to open |
//! | gate | what may be read now |
//! | probe | the right to run one delivery while the breaker is half-open |
//! | follow | the role that follows what is in force, and makes every change |
//! | announce | the events that tell of it |
//!
//! Redis: `control:<subscriber>`, read every half second and changed by one script per step; the
//! counters `opened` and `closed` of `stats:<subscriber>`; an event in the inbox.
//! Guarantee: while it is open, nothing more is read or reclaimed; what is held already is finished, and
//! settled as ever. While it is half-open, of all workers together no more deliveries are begun than
//! there are probes, until as many of them passed. Each change is told once, in the step that makes it. A worker that dies with a probe holds it no longer than it is good for.

mod announce;
mod follow;
mod gate;
mod outcomes;
mod probe;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::follow::run;
use self::gate::Gate;
pub(crate) use self::gate::{Passage, Way};
use self::outcomes::{Outcomes, is_down, should_open};
pub(crate) use self::probe::Probe;
use self::probe::{Came, Given};
use super::core::Core;
use super::handler::Handler;
use crate::error::{Failure, HandlerError};
use crate::fleet::control::{Control, MAX_TEXT};
use crate::routing::SubscriberSettings;
use crate::store::{self, BreakerKeys, Keys, ProbeTaken, StoreError};
use crate::text::bounded;

/// How much longer than its handler may run a probe is good for: until it runs, and until what came
/// of it is known.
const PROBE_MARGIN: Duration = Duration::from_secs(2);
/// How much later than the next probes a probe that failed is due itself: they are to be others, if
/// there are any, so that one event that alone stays unavailable does not hold up all of them.
const OTHERS_FIRST: Duration = Duration::from_secs(3);

/// What the roles of a worker know of its breaker.
pub(crate) struct Breaker {
    pub(crate) gate: Gate,
    pub(crate) outcomes: Outcomes,
    /// Whether a wish to open it is under way.
    opening: AtomicBool,
    keys: BreakerKeys,
    requests: UnboundedSender<Request>,
}

/// What the role that changes it is asked for.
pub(crate) enum Request {
    /// To open it, for this reason, asked at that moment.
    Open(String, Instant),
    /// To say what came of a probe.
    End(Given, Came),
    /// To look whether something changed.
    Look,
}

impl Breaker {
    pub(crate) fn new(
        control: &Control,
        settings: &SubscriberSettings,
        keys: &Keys,
        group: &str,
        stop: CancellationToken,
        requests: UnboundedSender<Request>,
    ) -> Self {
        let way = Way::under(control, settings.breaker.enabled);
        follow::tell(way, control);
        let outcomes = Outcomes::default();
        outcomes.forget();
        Self {
            gate: Gate::new(way, stop),
            outcomes,
            opening: AtomicBool::new(false),
            keys: BreakerKeys {
                control: keys.control(group),
                stats: keys.stats(group),
                inbox: keys.inbox(),
            },
            requests,
        }
    }

    /// Asks the role that changes it, which ends last.
    fn ask(&self, request: Request) {
        drop(self.requests.send(request));
    }
}

impl<H: Handler> Core<H> {
    /// Takes a probe, if there is one for this worker.
    pub(crate) async fn take_probe(&self) -> Result<Option<Probe>, StoreError> {
        static PROBES: AtomicU64 = AtomicU64::new(1);
        let number = PROBES.fetch_add(1, Relaxed);
        let token = format!("{}/{number}", self.identity.consumer());
        let (most, good_for) = {
            let settings = self.settings.borrow();
            (settings.breaker.probes, settings.timeout + PROBE_MARGIN)
        };
        let (key, token_arg) = (&self.breaker.keys.control, token.as_str());
        let good_for = good_for.as_millis() as u64;
        let taken = self.link.run(|mut c| async move {
            store::take_probe(&mut c, key, token_arg, most, good_for).await
        });
        match taken.await? {
            ProbeTaken::Given {
                opened,
                first_ms,
                flow,
            } => {
                let given = Given {
                    token,
                    opened,
                    first_ms,
                    flow,
                };
                let requests = self.breaker.requests.clone();
                return Ok(Some(Probe::new(given, requests)));
            }
            ProbeTaken::Closed | ProbeTaken::Open => self.breaker.ask(Request::Look),
            ProbeTaken::None => {}
        }
        Ok(None)
    }

    /// Takes in that a delivery failed. Answers how long it waits if it is not charged for it.
    pub(crate) fn note_failure(
        &self,
        probe: Option<Probe>,
        failure: &HandlerError,
        settings: &SubscriberSettings,
    ) -> Duration {
        let (breaker, backoff) = (&self.breaker, &settings.backoff);
        let why = || bounded(failure.to_string(), MAX_TEXT);
        breaker.outcomes.failed(failure);
        if failure.is_redis_away() {
            return backoff.delay(1); // the probe, if there is one, is given back
        }
        match probe {
            Some(probe) if is_down(failure.kind(), &settings.breaker) => {
                let open_for = settings.breaker.open_for(probe.opened().saturating_add(1));
                probe.failed(why());
                return open_for + OTHERS_FIRST;
            }
            Some(probe) => probe.passed(),
            None => {
                if should_open(&breaker.outcomes.counts(), &settings.breaker)
                    && breaker.gate.way() == Way::Free
                    && !breaker.opening.swap(true, Relaxed)
                {
                    breaker.ask(Request::Open(why(), Instant::now()));
                }
            }
        }
        match failure.kind() {
            Failure::Unavailable => breaker.outcomes.wait(backoff),
            Failure::Retry | Failure::Reject => Duration::ZERO,
        }
    }
}
