//! Layer 1b: everything that speaks to Redis. The layers above say what should happen; the
//! keys, the wire format of entries and the scripts that make it atomic are here.
//!
//! Three kinds of connection, because they fail differently:
//! - [`Redis::pool`]: short commands of handlers and of the operator (deadpool);
//! - [`Link`]: one shared, multiplexed connection per process for settling and upkeep;
//! - [`Redis::dedicated`]: for a blocking read, whose answer may take as long as BLOCK; and for the
//!   router's transactions, which nothing else may come between.

mod access;
mod cli;
mod codec;
mod findings;
mod keys;
mod link;
mod reader;
mod scan;
mod scripts;
mod server;
mod xinfo;

pub use access::{Access, AccessError, Distrust, TlsFiles, distrust, holds_password};
pub use cli::quoted;
pub use codec::{Entry, EntryId, Fields, InvalidEntryId, StreamField, read_streams};
pub use findings::{Finding, Severity, findings};
pub use keys::Keys;
pub use link::{
    Link, Redis, StoreError, is_dataset_gone, loses_connection, name_denied, name_wrong_type,
    refuses_key, retry_until,
};
pub use reader::Reader;
pub use scan::{Walk, scan};
pub use scripts::*;
pub use server::{ClockOffset, Info, ServerFacts, info, time, uptime};
pub use xinfo::{ConsumerInfo, GroupPositions, Held, Position, StreamInfo};
