//! Putting a rebuilt read model in the place of the live one.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ParsingError, RedisError, Value};

use super::super::codec::EntryId;
use super::SWITCH;

/// A domain stream that both groups read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchStream {
    /// Its key.
    pub stream: String,
    /// Field of the live group in `fleet`.
    pub live_field: String,
    /// Field of the shadow in `fleet`.
    pub shadow_field: String,
    /// How far the live group had read when the keys were looked for.
    pub live_at: EntryId,
    /// And how many deliveries it had not settled.
    pub live_pending: u64,
}

/// What the switch is told: everything that it changes, and what must still be so.
#[derive(Clone, Debug)]
pub struct Switch<'a> {
    /// Key of `fleet`.
    pub fleet: &'a str,
    /// Field of `fleet` for the number of the rebuild that a model is from.
    pub rebuilt_field: &'a str,
    /// The number of this one.
    pub number: u64,
    /// The live group.
    pub live: &'a str,
    /// The shadow's.
    pub shadow: &'a str,
    /// Key of the live group's dead letters.
    pub dead: &'a str,
    /// Key of the shadow's.
    pub shadow_dead: &'a str,
    /// Key of the stream of letters that are sent back.
    pub redrive: &'a str,
    /// How far the live group had read there.
    pub redrive_at: EntryId,
    /// The domain streams.
    pub streams: &'a [SwitchStream],
    /// Keys that end: those of the old model, and what is left of both groups.
    pub unlinked: &'a [String],
    /// Keys of the shadow, and the keys that they become.
    pub renamed: &'a [(String, String)],
    /// Letters of the live group whose entries were no part of the history that was run again.
    pub kept_letters: &'a [EntryId],
}

/// What a switch came to. Of all but `Done` nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    /// The new model is the live one, by this call or by one before it.
    Done,
    /// The live group went on since the keys were looked for.
    Moved,
    /// The shadow has not settled everything that it has read.
    Owes,
    /// The shadow has not read everything that the live group has.
    Behind,
    /// Letters are on their way back to the live group.
    Redrive,
    /// The live group has other streams than the shadow.
    Streams,
    /// A group of the live subscriber is not there.
    Lost,
    /// The shadow is not there.
    Gone,
}

impl FromRedisValue for Switched {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text = String::from_redis_value(value)?;
        Ok(match text.as_str() {
            "DONE" => Self::Done,
            "MOVED" => Self::Moved,
            "OWES" => Self::Owes,
            "BEHIND" => Self::Behind,
            "REDRIVE" => Self::Redrive,
            "STREAMS" => Self::Streams,
            "LOST" => Self::Lost,
            "GONE" => Self::Gone,
            _ => return Err(format!("unknown answer {text:?} of the switch script").into()),
        })
    }
}

/// Switches, if everything is still as it was told.
pub async fn switch(
    connection: &mut MultiplexedConnection,
    switch: &Switch<'_>,
) -> Result<Switched, RedisError> {
    let mut call = SWITCH.key(switch.fleet);
    call.key(switch.dead)
        .key(switch.shadow_dead)
        .key(switch.redrive);
    for stream in switch.streams {
        call.key(&stream.stream);
    }
    call.key(switch.unlinked);
    for (from, to) in switch.renamed {
        call.key(from).key(to);
    }
    call.arg(switch.live)
        .arg(switch.shadow)
        .arg(switch.number)
        .arg(switch.rebuilt_field)
        .arg(switch.streams.len())
        .arg(switch.unlinked.len())
        .arg(switch.redrive_at);
    for stream in switch.streams {
        call.arg(&stream.live_field)
            .arg(&stream.shadow_field)
            .arg(stream.live_at)
            .arg(stream.live_pending);
    }
    for id in switch.kept_letters {
        call.arg(id);
    }
    call.invoke_async(connection).await
}
