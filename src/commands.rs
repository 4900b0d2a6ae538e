//! The write side: commands that come from outside of any delivery (a web server, a program of the
//! operator, a test). A command loads, decides, appends with the version that it decided on, and
//! publishes, as a handler does and with the same [`Context`]; all of it in one step, or nothing.
//!
//! Redis: whatever the command asks for, and `command:<id>`, a string that is kept for the dedupe
//! window: it tells that the command was carried out.
//!
//! **Guarantee.** A command is carried out at most once under its ID: when its answer is lost, it is
//! given again with the same ID. Of two commands on one aggregate, the second is decided on what the
//! first left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::{Failure, HandlerError};
use crate::event::Event;
use crate::event_type::EventType;
use crate::routing::Config;
use crate::store::{
    self, Access, Asked, Keys, Link, Redis, StoreError, Written, loses_connection, retry_until,
};
use crate::worker::{Context, Environment};

/// How often a command is decided anew because others were faster.
const MAX_CONFLICTS: u32 = 100;
/// How long a Redis that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a command is called where an event has a type.
const COMMAND: &str = "System.Command.Given";

/// Carries out commands.
#[derive(Clone)]
pub struct Commands {
    env: Arc<Environment>,
    config: Arc<Config>,
    link: Link,
}

/// Which command this is, and the business flow that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Equal for the same command given again.
    pub id: Uuid,
    /// The correlation ID of what it publishes.
    pub flow: Uuid,
}

impl Command {
    /// A command of its own in a flow.
    pub fn in_flow(flow: Uuid) -> Self {
        Self {
            id: Uuid::now_v7(),
            flow,
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It does not fit what is there; nothing was written.
    #[error("{0}")]
    Refused(String),
    /// Something failed on the way; nothing was written, and it may work next time.
    #[error("{0}")]
    Failed(String),
    /// Others were always faster; nothing was written.
    #[error("others changed the same things {0} times while this was decided: give it again later")]
    Contended(u32),
    /// Redis would not do it (it is full, or denies a right); nothing was written.
    #[error("{0}")]
    NotDone(StoreError),
    /// Redis did not answer: nobody knows whether it was carried out.
    #[error("{cause}; give the command again under the ID {id}: it is carried out once")]
    Unanswered {
        /// The command's ID.
        id: Uuid,
        /// What happened.
        cause: StoreError,
    },
}

impl Commands {
    /// Carries out commands on a Redis; `source` names who gives them, as events tell it.
    ///
    /// # Errors
    /// The access cannot be used, or Redis cannot be reached.
    pub async fn connect(
        access: impl Into<Access>,
        config: Arc<Config>,
        source: &str,
    ) -> Result<Self, StoreError> {
        let redis = Redis::open(access)?;
        let link = redis.link();
        link.run(|mut c| async move { redis::cmd("PING").exec_async(&mut c).await })
            .await?;
        Ok(Self {
            env: Arc::new(Environment {
                keys: Keys::new(config.routing.namespace()),
                redis,
                subscriber: source.into(),
                group: source.into(),
                stop: CancellationToken::new(),
            }),
            config,
            link,
        })
    }

    /// Carries out a command: runs `decide`, which reads, and asks for effects and events, and
    /// writes what it asked for; again when a condition no longer held. Answers what it returned;
    /// nothing if the command had been carried out before.
    ///
    /// Effects are written under the prefix of the source, as those of a handler are under that of
    /// its subscriber.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute<T>(
        &self,
        command: Command,
        decide: impl AsyncFn(&mut Context) -> Result<T, HandlerError>,
    ) -> Result<Option<T>, CommandError> {
        let unanswered = |cause| CommandError::Unanswered {
            id: command.id,
            cause,
        };
        let mark = self.env.keys.command(command.id);
        if self.is_done(&mark).await.map_err(unanswered)? {
            return Ok(None);
        }
        let (cause, writer) = (Arc::new(given(command)?), Uuid::new_v4());
        for _ in 0..MAX_CONFLICTS {
            let (env, config) = (self.env.clone(), self.config.clone());
            let mut cx = Context::new(env, config, cause.clone(), 1);
            let answer = match decide(&mut cx).await {
                Ok(answer) => answer,
                // It may not fit what is there because somebody gave the same command at the same time.
                Err(_) if self.is_done(&mark).await.map_err(unanswered)? => return Ok(None),
                Err(error) => return Err(refusal(&error)),
            };
            if cx.effects.is_empty() {
                return Ok(Some(answer));
            }
            let asked = cx.effects.encode(0);
            match self.write(command, &mark, writer, &asked).await? {
                Written::Done => return Ok(Some(answer)),
                Written::Repeated => return Ok(None),
                Written::Conflict => {}
                Written::Invalid(why) => return Err(CommandError::Refused(why)),
            }
        }
        Err(CommandError::Contended(MAX_CONFLICTS))
    }

    async fn is_done(&self, mark: &str) -> Result<bool, StoreError> {
        self.link
            .run(|mut c| async move { redis::cmd("EXISTS").arg(mark).query_async(&mut c).await })
            .await
    }

    async fn write(
        &self,
        command: Command,
        mark: &str,
        writer: Uuid,
        asked: &Asked,
    ) -> Result<Written, CommandError> {
        let kept = self.config.routing.dedupe_window().as_millis() as u64;
        let inbox = self.env.keys.inbox();
        let (link, inbox) = (&self.link, inbox.as_str());
        let is_answer = |error: &StoreError| error.redis().is_some_and(|e| !loses_connection(e));
        let sent = AtomicU32::new(0);
        let written = retry_until(Some(Instant::now() + PATIENCE), is_answer, |failures| {
            sent.store(failures, Relaxed);
            let write =
                |mut c| async move { store::write(&mut c, mark, kept, writer, inbox, asked).await };
            link.run(write)
        });
        written.await.map_err(|cause| {
            // What Redis answers to a repetition says nothing of what was sent before.
            match is_answer(&cause) && sent.load(Relaxed) == 0 {
                true => CommandError::NotDone(cause),
                false => CommandError::Unanswered {
                    id: command.id,
                    cause,
                },
            }
        })
    }
}

/// Why a command was not decided.
fn refusal(error: &HandlerError) -> CommandError {
    match error.kind() {
        Failure::Reject => CommandError::Refused(error.to_string()),
        Failure::Retry | Failure::Unavailable => CommandError::Failed(error.to_string()),
    }
}

/// The command as what caused its events.
fn given(command: Command) -> Result<Event, CommandError> {
    let failed = |e: &dyn std::error::Error| CommandError::Failed(e.to_string());
    let name = EventType::parse(COMMAND).map_err(|e| failed(&e))?;
    let event = Event::new(&name, &serde_json::Map::new()).map_err(|e| failed(&e))?;
    Ok(event.identified(command.id, command.flow))
}
