//! What a running process tells over HTTP, if it is given an address: `/metrics`, `/healthz`,
//! `/readyz`.
//!
//! It has a thread, a runtime and a connection to Redis of its own: handlers that block every thread
//! hold up no answer, and whoever asks holds up no event. Requests are bounded in size and time.
//!
//! Redis: reads what `status` reads (routers), and whether groups exist; writes nothing.

mod fleet;
mod http;
mod ready;

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::fleet::FleetPage;
use self::ready::Readiness;
use super::args::MonitorArgs;
use super::exit::Exit;
use crate::metrics::{self, Format, Page};
use crate::progress::{Progress, Stalled};
use crate::routing::Config;
use crate::store::{Keys, Redis};

/// How long an answer waits for Redis.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {cause}. {}", advice(.cause))]
pub(crate) struct MonitorError {
    address: String,
    cause: std::io::Error,
}

fn advice(cause: &std::io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::AddrInUse => {
            "Another process listens there: give each process a --metrics-address of its own"
        }
        ErrorKind::PermissionDenied => "Choose a port above 1023",
        _ => "--metrics-address must be an address of this machine, such as 127.0.0.1:9464",
    }
}

impl From<&MonitorError> for Exit {
    fn from(error: &MonitorError) -> Self {
        match error.cause.kind() {
            // The one before may be about to end.
            ErrorKind::AddrInUse => Self::Failure,
            _ => Self::BadConfig,
        }
    }
}

/// Whose process it is.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// A router.
    Router,
    /// A worker of this subscriber.
    Worker(String),
    /// A worker that fills the shadow of a rebuild of this subscriber.
    Rebuild(String),
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Worker(_) => "worker",
            Self::Rebuild(_) => "rebuild",
        }
    }

    fn subscriber(&self) -> Option<&str> {
        match self {
            Self::Router => None,
            Self::Worker(subscriber) | Self::Rebuild(subscriber) => Some(subscriber),
        }
    }
}

/// An address that is ours.
pub(crate) struct Monitor {
    listener: TcpListener,
    role: Role,
}

impl Monitor {
    /// Takes the address, if there is to be one.
    pub(crate) fn bind(args: &MonitorArgs, role: Role) -> Result<Option<Self>, MonitorError> {
        let Some(address) = &args.metrics_address else {
            return Ok(None);
        };
        let failed = |cause| MonitorError {
            address: address.clone(),
            cause,
        };
        let listener = TcpListener::bind(address.as_str()).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %bound, "serving /metrics, /healthz and /readyz");
        metrics::switch_on();
        Ok(Some(Self { listener, role }))
    }

    /// Answers until the process ends.
    pub(crate) fn start(
        self,
        redis: &Redis,
        config: watch::Receiver<Arc<Config>>,
        progress: &Progress,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let Self { listener, role } = self;
        let keys = Keys::new(config.borrow().routing.namespace());
        let link = redis.link();
        let answers = Answers {
            fleet: matches!(role, Role::Router)
                .then(|| FleetPage::new(link.clone(), keys.clone(), config.clone())),
            ready: Readiness::new(link, keys, config, role.clone(), progress.clone()),
            role,
            progress: progress.clone(),
        };
        std::thread::Builder::new()
            .name("monitor".into())
            .spawn(move || runtime.block_on(http::serve(listener, Arc::new(answers))))
            .map(drop)
    }
}

/// What is answered.
struct Answers {
    role: Role,
    /// Of the whole fleet; only a router looks.
    fleet: Option<FleetPage>,
    ready: Readiness,
    progress: Progress,
}

impl Answers {
    async fn metrics(&self, format: Format) -> Result<String, std::fmt::Error> {
        let mut page = Page::default();
        metrics::of_process(&mut page, self.role.name());
        match &self.fleet {
            Some(fleet) => {
                metrics::of_router(&mut page);
                fleet.add_to(&mut page).await;
            }
            None => metrics::of_worker(&mut page),
        }
        match self.role.subscriber() {
            Some(subscriber) => page.text(&[("subscriber", subscriber)], format),
            None => page.text(&[], format),
        }
    }

    /// Whether all loops get on, as the watchdog sees it; Redis may be away.
    fn health(&self) -> Result<String, String> {
        match self.progress.stalled() {
            None => Ok("alive\n".to_owned()),
            Some(Stalled { name, silent }) => Err(format!(
                "the {} has made no progress in {name} for {} s: restart it\n",
                self.role.name(),
                silent.as_secs()
            )),
        }
    }
}
