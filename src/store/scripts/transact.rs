//! Routing the ordinary batch without carrying it through Lua: a script without payloads checks
//! (`check_route.lua`), and a transaction of plain commands writes. Redis spends on a batch little
//! more than on the commands themselves; `route.lua` remains for everything else.
//!
//! `WATCH`, the check, `MULTI` and the writes go out together, on a connection that nobody else
//! uses (an EXEC or DISCARD of another would end what is watched); `EXEC` only after check and
//! MULTI were answered as they should: a check that was refused (NOSCRIPT, BUSY, OOM) must not have
//! an EXEC behind it. So Redis has the writes at hand, and waits for one short command.
//!
//! What was checked still holds at EXEC, or EXEC does nothing:
//! - The batch is still ours. Whoever claims an entry leaves a record in `attempts`, which is
//!   watched: reclaim.lua (`:claimed`), take_over.lua (`:starts`), park.lua (`:due`). There was
//!   none when it was checked, so the first one is a change, even if it is removed again. (The
//!   pending list itself cannot be watched: XCLAIM touches no key, as far as WATCH goes.)
//! - None of its events was routed meanwhile. Whoever routes one marks it in a bucket that is
//!   watched, and appends it to a stream that is watched if it is one of ours. A router with
//!   another dedupe window marks in a bucket of that window's size, which we read and watch.
//! - The target streams can be appended to: what changes their type is seen as well.
//! - A transaction that arrives late, its sender having given up and sent the batch through
//!   `route.lua`, finds just that changed.
//!
//! That all of the batch is ours if its first entry is the oldest that is owed: it was read in one
//! piece and recently (the caller sees to that), so no lease of it has run out; and claims go from
//! the oldest on. Commands by hand can break this: then fewer entries are acknowledged than were
//! appended, and [`Ready::execute`] answers an error.
//!
//! An ACL that takes away single rights is noticed by the next check at the latest. In the moment
//! between, Redis leaves out of a transaction what it refuses, and a MULTI that it refuses protects
//! nothing; so that there is a MULTI at all is tried when the connection is built.

use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};

use super::CHECK_ROUTE;
use super::route::{RouteBatch, Routed};

/// A connection for transactions that nobody else uses.
pub struct Transactions {
    connection: MultiplexedConnection,
}

/// What became of the attempt to begin.
pub enum Opened {
    /// The batch may be written.
    Clean(Ready),
    /// It may not, for this reason; nothing is open on this connection.
    Doubtful(String),
}

/// A transaction that is checked and queued.
pub struct Ready {
    connection: MultiplexedConnection,
    queued: Sent,
    entries: usize,
}

/// What was sent and is not answered yet: anything sent later comes behind it.
type Sent =
    Pin<Box<MaybeDone<Pin<Box<dyn Future<Output = Result<Vec<Value>, RedisError>> + Send>>>>>;

async fn send(mut connection: MultiplexedConnection, commands: Pipeline, but_last: usize) -> Sent {
    let exchange = async move {
        let skipped = commands.len().saturating_sub(but_last);
        connection
            .req_packed_commands(&commands, skipped, but_last)
            .await
    };
    let mut sent: Sent = Box::pin(maybe_done(Box::pin(exchange) as _));
    // Polled once it is in the connection's queue, which is first in, first out.
    std::future::poll_fn(|context| {
        let _ = sent.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    sent
}

async fn answers(mut sent: Sent) -> Result<Vec<Value>, RedisError> {
    sent.as_mut().await;
    let answers = sent.as_mut().take_output();
    answers.unwrap_or_else(|| Err(unexpected("no answer")))
}

impl Transactions {
    /// Takes over a connection on which MULTI is possible.
    ///
    /// # Errors
    /// It is not, or Redis could not be asked.
    pub async fn on(mut connection: MultiplexedConnection) -> Result<Self, RedisError> {
        redis::cmd("MULTI").exec_async(&mut connection).await?;
        discard(&mut connection).await?;
        CHECK_ROUTE.load(&mut connection).await?;
        Ok(Self { connection })
    }

    /// Watches, checks, and queues the writes of a batch. What was sent on this connection before
    /// is answered by then.
    ///
    /// # Errors
    /// Redis could not be asked: this connection must be dropped.
    pub async fn open(&mut self, batch: &RouteBatch<'_>) -> Result<Opened, RedisError> {
        let Some(commands) = opening(batch) else {
            return Ok(Opened::Doubtful(
                "it is empty, is audited, or not all of it is to be appended".into(),
            ));
        };
        let opened = send(self.connection.clone(), commands, 3).await;
        // The question is on its way while the writes are prepared.
        let entries = batch.entries.len();
        let queued = send(self.connection.clone(), writes(batch), 1).await;
        let checked = match <[Value; 3]>::try_from(answers(opened).await?) {
            Ok([Value::Okay, checked, Value::Okay]) => checked,
            Ok(answers) => return Err(first_error(answers)),
            Err(_) => return Err(unexpected("three answers were due")),
        };
        let mut forgotten = false;
        let doubt = match checked {
            Value::BulkString(text) if text == b"clean" => {
                return Ok(Opened::Clean(Ready {
                    connection: self.connection.clone(),
                    queued,
                    entries,
                }));
            }
            Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
            Value::ServerError(error) => {
                let error = RedisError::from(error);
                forgotten = error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
                error.to_string()
            }
            _ => return Err(unexpected("the check answers a text")),
        };
        discard(&mut self.connection).await?;
        answers(queued).await?;
        if forgotten {
            CHECK_ROUTE.load(&mut self.connection).await?;
        }
        Ok(Opened::Doubtful(doubt))
    }
}

/// Ends a transaction without a write, and what is watched.
async fn discard(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    redis::cmd("DISCARD").exec_async(connection).await
}

fn opening(batch: &RouteBatch<'_>) -> Option<Pipeline> {
    if batch.audit.is_some() {
        return None;
    }
    let (first, last) = (batch.entries.first()?.0.id, batch.entries.last()?.0.id);
    let mut watch = redis::cmd("WATCH");
    watch.arg(&batch.inbox.attempts);
    watch.arg(batch.seen).arg(batch.targets);
    let mut check = CHECK_ROUTE.key(&batch.inbox.stream);
    check.key(&batch.inbox.stats).key(&batch.inbox.attempts);
    check.key(batch.seen).key(batch.targets);
    check.reserve(6 + batch.entries.len(), 100 + 36 * batch.entries.len());
    check.arg(&batch.inbox.group).arg(&batch.inbox.consumer);
    check.arg(batch.seen.len()).arg(batch.entries.len());
    check.arg(first).arg(last);
    for (_, routed) in batch.entries {
        let Routed::Append { event_id, .. } = routed else {
            return None; // refused, or to be delivered later
        };
        check.arg(event_id);
    }
    let mut commands = Pipeline::with_capacity(3);
    commands.add_command(watch);
    commands.add_command(check.into_command());
    commands.cmd("MULTI");
    Some(commands)
}

/// The writes of a batch all of whose events are to be appended.
fn writes(batch: &RouteBatch<'_>) -> Pipeline {
    let n = batch.entries.len();
    let mut commands = Pipeline::with_capacity(n + 6);
    let mut mark = Cmd::with_capacity(2 + 2 * n, 64 + 100 * n);
    let mut acknowledge = Cmd::with_capacity(3 + n, 64 + 24 * n);
    let current = batch.seen.first().map_or("", String::as_str);
    mark.arg("HSET").arg(current);
    acknowledge
        .arg("XACK")
        .arg(&batch.inbox.stream)
        .arg(&batch.inbox.group);
    let mut entries = 0;
    for (fence, routed) in batch.entries {
        let Routed::Append {
            event_id,
            content,
            target,
            event_type,
            to,
            hops,
            event,
        } = routed
        else {
            continue;
        };
        let Some(stream) = batch.targets.get(*target) else {
            continue;
        };
        let bytes = stream.len() + event_id.len() + event_type.len() + to.len() + event.len();
        let mut add = Cmd::with_capacity(13, 48 + bytes);
        add.arg("XADD").arg(stream).arg("*");
        add.arg("id").arg(event_id).arg("type").arg(event_type);
        add.arg("to").arg(&**to).arg("event").arg(event.as_slice());
        if *hops > 0 {
            add.arg("hops").arg(*hops);
        }
        commands.add_command(add);
        mark.arg(event_id).arg(content);
        acknowledge.arg(fence.id);
        entries += 1;
    }
    commands.add_command(mark);
    let expire = commands.cmd("PEXPIRE").arg(current);
    expire.arg(batch.seen_ttl_ms).arg("NX");
    commands.add_command(acknowledge);
    if let Some((last, _)) = batch.entries.last() {
        let cut = commands.cmd("XTRIM").arg(&batch.inbox.stream);
        cut.arg("MINID").arg("=").arg(last.id.next());
    }
    let count = commands.cmd("HINCRBY").arg(&batch.inbox.stats);
    count.arg("routed").arg(entries);
    commands
}

impl Ready {
    /// Executes what was queued. Answers whether it happened; if not, something that is watched
    /// has changed, and nothing was written.
    ///
    /// # Errors
    /// Whether it happened is unknown, or it did in part (see the module); the connection is to be
    /// dropped.
    pub async fn execute(self) -> Result<bool, RedisError> {
        let mut exec = Pipeline::with_capacity(1);
        exec.cmd("EXEC");
        let executed = send(self.connection, exec, 1).await;
        answers(self.queued).await?;
        let answers = match answers(executed).await?.pop() {
            Some(Value::Nil) => return Ok(false),
            Some(Value::Array(answers)) => answers,
            Some(other) => return Err(first_error([other])),
            None => return Err(unexpected("no answer to EXEC")),
        };
        // XADD of each, HSET, PEXPIRE, XACK: what was acknowledged.
        let acknowledged = answers.get(self.entries + 2);
        let all = usize_of(acknowledged) == Some(self.entries);
        let mut refused = answers
            .iter()
            .filter(|a| matches!(a, Value::ServerError(_)));
        if !all || refused.next().is_some() {
            tracing::error!(
                ?acknowledged,
                appended = self.entries,
                "a batch was routed in part: were entries of the inbox settled by hand, or rights taken away?"
            );
            return Err(first_error(answers));
        }
        Ok(true)
    }
}

fn usize_of(value: Option<&Value>) -> Option<usize> {
    match value? {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

fn first_error(answers: impl IntoIterator<Item = Value>) -> RedisError {
    let error = answers.into_iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(RedisError::from(error)),
        _ => None,
    });
    error.unwrap_or_else(|| unexpected("another answer was due"))
}

fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}
