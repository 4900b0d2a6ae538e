//! Blocking reads: a connection of their own, rebuilt after any error, because the reply to a
//! read that was given up may still come; and an end to the wait that loses no reply.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::codec::{Entry, read_streams};
use super::link::{Link, StoreError, name_wrong_type};

/// How long one read waits for something new; also how soon a reader notices a change of what
/// it is to read.
const BLOCK: Duration = Duration::from_millis(1000);

/// Reads new entries for one consumer.
pub struct Reader {
    link: Link,
    /// The connection and its client ID.
    open: Option<(MultiplexedConnection, i64)>,
}

impl Reader {
    /// A reader that is not connected yet.
    pub fn new(link: Link) -> Self {
        Self { link, open: None }
    }

    /// Reads at most `count` new entries of each stream; waits for some if it is to `block`. When
    /// `stop` fires the wait is ended, and what it still brings is answered: these entries are
    /// this consumer's by then.
    ///
    /// # Errors
    /// Redis could not be asked; entries may have been handed to this consumer all the same.
    pub async fn read(
        &mut self,
        group: &str,
        consumer: &str,
        streams: &[&str],
        count: usize,
        block: bool,
        stop: &CancellationToken,
    ) -> Result<Vec<(String, Vec<Entry>)>, StoreError> {
        let (mut connection, client) = match &self.open {
            Some(open) => open.clone(),
            None => self.connect().await?,
        };
        // Taken out until the answer is there: dropped on every other way out.
        self.open = None;
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(group)
            .arg(consumer)
            .arg("COUNT")
            .arg(count);
        if block {
            command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        command.arg("STREAMS").arg(streams);
        for _ in streams {
            command.arg(">");
        }
        let (redis, answers) = (self.link.redis(), self.link.answers());
        let reply = {
            let mut reply = std::pin::pin!(command.query_async::<redis::Value>(&mut connection));
            tokio::select! {
                reply = &mut reply => reply,
                () = stop.cancelled() => {
                    let unblock = self.link.run(|mut c| async move {
                        redis::cmd("CLIENT").arg("UNBLOCK").arg(client).exec_async(&mut c).await
                    });
                    tokio::select! {
                        reply = &mut reply => reply, // it ended by itself
                        unblocked = unblock => {
                            if let Err(error) = unblocked {
                                tracing::debug!(%error, "the read ends by itself");
                            }
                            reply.await
                        }
                    }
                }
            }
        };
        match reply.and_then(|value| Ok(read_streams(value)?)) {
            Ok(entries) => {
                self.open = Some((connection, client));
                Ok(entries)
            }
            Err(cause) => {
                // What swallowed this connection in silence may have swallowed the other: who
                // uses it next need not wait for a time-out as well.
                if cause.is_timeout() {
                    self.link.replace_if_silent(answers).await;
                }
                let cause = name_wrong_type(&self.link, cause, streams, "stream").await;
                Err(redis.error(cause))
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, i64), StoreError> {
        let redis = self.link.redis();
        let mut connection = redis.dedicated(BLOCK).await?;
        let id = redis::cmd("CLIENT")
            .arg("ID")
            .query_async(&mut connection)
            .await;
        Ok((connection, id.map_err(|e| redis.error(e))?))
    }
}
