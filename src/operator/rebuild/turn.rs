//! One rebuild of a subscriber at a time: whoever has the turn announces itself as a live worker does
//! (`worker:<subscriber>@rebuild:command`), so that its turn ends with it, however it ends.

use std::time::Duration;

use tokio::time::Instant;

use super::show::Progress;
use crate::fleet::{HEARTBEAT, Identity, WORKER_TTL};
use crate::operator::text::escape;
use crate::operator::{CommandError, Session};

const NAME: &str = "command";

/// Our turn.
pub(super) struct Turn(Identity);

impl Turn {
    /// Takes the turn. One that was killed counts as alive for a moment, which is waited for.
    pub(super) async fn take(
        session: &Session,
        subscriber: &str,
        progress: &Progress,
    ) -> Result<Self, CommandError> {
        let group = format!("{subscriber}@rebuild");
        let until = Instant::now() + WORKER_TTL;
        let mut first = None;
        loop {
            let (link, keys) = (&session.link, &session.keys);
            if let Some(identity) = Identity::claim(link, keys, &group, NAME).await? {
                return Ok(Self(identity));
            }
            let key = keys.worker(&group, NAME);
            let (host, pid, seen): (Option<String>, Option<String>, Option<String>) = link
                .run(|mut c| async move {
                    let mut ask = redis::cmd("HMGET");
                    ask.arg(key).arg("host").arg("pid").arg("seen");
                    ask.query_async(&mut c).await
                })
                .await?;
            let who = format!(
                "process {} on {}",
                escape(&pid.unwrap_or_default()),
                escape(&host.unwrap_or_default())
            );
            match &first {
                None => progress.say(&format!(
                    "{who} rebuilds {subscriber}; waiting for a moment, in case it was killed"
                )),
                // It gives signs of life, or has just ended.
                Some(first) if *first != seen && seen.is_some() => {
                    return Err(CommandError::Refused(format!(
                        "{subscriber} is being rebuilt by {who}: wait for it, or stop it with Ctrl-C there"
                    )));
                }
                Some(_) => {}
            }
            first.get_or_insert(seen);
            if Instant::now() > until {
                return Err(CommandError::Refused(format!(
                    "{subscriber} is being rebuilt by {who}: try again in a moment"
                )));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Gives signs of life; ends only when the turn was lost.
    pub(super) async fn keep(&self, session: &Session) -> CommandError {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            match self.0.renew(&session.link, &session.keys).await {
                Ok(true) => {}
                Ok(false) => {
                    return CommandError::Refused(format!(
                        "another process rebuilds {} by now: this one was away for too long",
                        self.0.subscriber
                    ));
                }
                // What is under way meets the same error, and decides.
                Err(error) => tracing::warn!(%error, "Redis took no sign of life; trying again"),
            }
        }
    }

    /// Ends it; if this fails, it ends by itself.
    pub(super) async fn give_back(self, session: &Session) {
        if let Err(error) = self.0.withdraw(&session.link, &session.keys).await {
            tracing::debug!(%error, "the turn ends by itself");
        }
    }
}
