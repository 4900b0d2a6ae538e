//! The role that follows what is in force for the subscriber, and makes every change of its circuit
//! breaker that this worker sees a reason for, one after the other.
//!
//! Redis: `control:<subscriber>`, through one script for each change; with a change the event that
//! tells of it enters the inbox.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::core::Core;
use super::super::handler::Handler;
use super::Request;
use super::announce::{Closed, Opened};
use super::gate::Way;
use super::probe::{Came, Given};
use crate::fleet::control::{self, Control, POLL};
use crate::retry::RECONNECT;
use crate::store::{self, ProbeEnd, ProbeEnded, StoreError};

/// The wish to open the breaker is one of the moment: when Redis was away for longer, it says
/// nothing any more.
const STALE: Duration = Duration::from_secs(2);

/// Follows what is in force, and makes the changes that other roles ask for, one after the other.
/// Ends when told to, with all that was asked for by then.
pub(crate) async fn run<H: Handler>(
    core: Arc<Core<H>>,
    mut requests: UnboundedReceiver<Request>,
    end: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let pause = match failures {
            0 => POLL,
            failures => RECONNECT.delay(failures).max(POLL),
        };
        let request = tokio::select! {
            biased;
            request = requests.recv() => request,
            () = end.cancelled() => return,
            () = tokio::time::sleep(pause) => None,
        };
        if let Some(request) = request {
            core.answer(request).await;
        }
        match core.look_at_control().await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                let said = "cannot look whether reading is paused: it stays as it was";
                match failures {
                    1 => tracing::warn!(%error, "{said}"),
                    _ => tracing::debug!(%error, failures, "{said}"),
                }
            }
        }
        core.breaker.opening.store(false, Relaxed);
    }
}

impl<H: Handler> Core<H> {
    async fn look_at_control(&self) -> Result<(), StoreError> {
        let (keys, group) = (&self.env.keys, &self.env.group);
        let control = control::read(&self.link, keys, group).await?;
        let settings = self.settings.borrow().breaker;
        let breaker = &self.breaker;
        let way = Way::under(&control, settings.enabled);
        if breaker.gate.set(way) {
            tell(way, &control);
            if way == Way::Free {
                tracing::info!("reading whatever there is again");
                breaker.outcomes.forget();
            }
        }
        breaker.outcomes.remember(settings.window);
        Ok(())
    }

    async fn answer(&self, request: Request) {
        let answered = match request {
            Request::Look => Ok(()),
            Request::Open(_, asked) if asked.elapsed() > STALE => {
                self.breaker.outcomes.forget();
                Ok(())
            }
            Request::Open(why, _) => self.open(&why).await,
            Request::End(given, came) => self.end(given, came).await,
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "could not change the circuit breaker: it stays as it is");
        }
    }

    async fn open(&self, why: &str) -> Result<(), StoreError> {
        let open_for = self.settings.borrow().breaker.open_for(1);
        let flow = Uuid::new_v4();
        let event = self.opened(why, open_for, 1).await?;
        let event = event.event(flow, &self.config.borrow());
        let (keys, flow) = (&self.breaker.keys, flow.to_string());
        let for_ms = open_for.as_millis() as u64;
        let opened = self.link.run(|mut c| async move {
            store::open_breaker(&mut c, keys, for_ms, why, &flow, &event).await
        });
        if opened.await? {
            tracing::warn!(?open_for, why, "the circuit breaker opened");
        }
        Ok(())
    }

    async fn end(&self, given: Given, came: Came) -> Result<(), StoreError> {
        let settings = self.settings.borrow().breaker;
        let flow = Uuid::parse_str(&given.flow).unwrap_or_else(|_| Uuid::new_v4());
        let opened = given.opened.saturating_add(1);
        let open_for = settings.open_for(opened);
        let event = match &came {
            Came::Passed => {
                let closed = Closed {
                    subscriber: &self.env.subscriber,
                    closed_at: self.server_time().await?,
                    opened_at: moment(given.first_ms),
                    opened_in_a_row: given.opened,
                    worker: self.identity.consumer(),
                };
                closed.event(flow, &self.config.borrow())
            }
            Came::Failed(why) => {
                let event = self.opened(why, open_for, opened).await?;
                event.event(flow, &self.config.borrow())
            }
            Came::Back => Vec::new(),
        };
        let end = match &came {
            Came::Passed => ProbeEnd::Passed(settings.probes),
            Came::Failed(why) => ProbeEnd::Failed {
                for_ms: open_for.as_millis() as u64,
                why,
            },
            Came::Back => ProbeEnd::Back,
        };
        let (keys, token) = (&self.breaker.keys, given.token.as_str());
        let ended = self
            .link
            .run(|mut c| async move { store::end_probe(&mut c, keys, token, end, &event).await });
        match ended.await? {
            ProbeEnded::Closed => tracing::info!("the circuit breaker closed"),
            ProbeEnded::Opened => {
                tracing::warn!(?open_for, opened, "the circuit breaker opened again");
            }
            ProbeEnded::Taken | ProbeEnded::Gone => {}
        }
        Ok(())
    }

    async fn opened<'a>(
        &'a self,
        why: &'a str,
        open_for: Duration,
        in_a_row: u32,
    ) -> Result<Opened<'a>, StoreError> {
        Ok(Opened {
            subscriber: &self.env.subscriber,
            why,
            opened_at: self.server_time().await?,
            open_for_ms: open_for.as_millis() as u64,
            opened_in_a_row: in_a_row,
            worker: self.identity.consumer(),
        })
    }

    async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let now = self
            .link
            .run(|mut c| async move { store::time(&mut c).await })
            .await?;
        Ok(moment(now.as_millis() as u64))
    }
}

/// Says in the log what is in force, if it is not the ordinary.
pub(super) fn tell(way: Way, control: &Control) {
    let shown = |at: Option<Timestamp>, none: &str| at.map_or(none.to_owned(), |at| at.to_string());
    match (way, &control.paused) {
        (Way::Shut, Some(paused)) => {
            let until = shown(paused.until, "it is resumed");
            tracing::warn!(
                until,
                by = paused.by,
                why = paused.why,
                "PAUSED: reading nothing"
            );
        }
        (Way::Shut, None) => {
            let until = shown(control.breaker.until, "?");
            tracing::warn!(
                until,
                why = control.breaker.why,
                "the circuit breaker is open: reading nothing"
            );
        }
        (Way::Probing, _) => tracing::info!("the circuit breaker is half-open: reading probes"),
        (Way::Free, _) => {}
    }
}

fn moment(ms: u64) -> Timestamp {
    let at = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_else(Timestamp::now)
}
