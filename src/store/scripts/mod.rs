//! The scripts: one `.lua` file each, which documents its KEYS, ARGV and answers; here they are
//! named, flagged and called. Settling and trimming, and what a worker needs to start, may run
//! when Redis is out of memory (`allow-oom`), because only they can free any; so may what stops
//! workers or lets them go on. Bringing in new work (routing, redriving, commands) may not.
//!
//! | file | what its scripts do |
//! |---|---|
//! | settle | end a delivery: commit, retry later, release, dead-letter |
//! | write | what a command asked for, outside of any delivery |
//! | call | how a script is called |
//! | claim | get and keep deliveries: reclaim, take over, mark, renew, restart idle times |
//! | route | move a batch of the inbox on; redrive a letter |
//! | transact | the same for an ordinary batch: a script checks, a transaction writes |
//! | groups | dataset, groups, live workers, who is not well |
//! | scheduled | events that are to be delivered later: find, move, refuse, cancel |
//! | trim | cut history |
//! | control | pause and resume a subscriber; its circuit breaker |
//! | switch | put a rebuilt read model in the place of the live one |

mod call;
mod claim;
mod control;
mod groups;
mod route;
mod scheduled;
mod settle;
mod switch;
pub mod transact;
mod trim;
mod write;

use std::sync::LazyLock;

use super::codec::{EntryId, Fields};
use call::{Call, Script};

pub use claim::{Claimed, Reclaimed, Scope};
pub use control::{
    BreakerKeys, ProbeEnd, ProbeEnded, ProbeTaken, end_probe, open_breaker, pause, read_control,
    resume, take_probe,
};
pub use groups::{
    Announce, Ensure, GroupState, HealthNote, Membership, Retired, ensure_group, forget_worker,
    join_fleet, note_health, register_worker, retire_group,
};
pub use route::{Audit, RouteBatch, RouteCounts, Routed, redrive, route};
pub use scheduled::{
    Deliver, Due, DueEvents, RefuseDue, ScheduledKeys, cancel_scheduled, deliver, due_events,
    list_scheduled, refuse_due,
};
pub use settle::{AckCounts, Asked, CommitRequest, Committed, Parked, Settled};
pub use switch::{Switch, SwitchStream, Switched, switch};
pub use trim::{Trimmed, trim};
pub use write::{Written, write};

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $flags:literal, $($file:literal),+;)*) => {$(
        $(#[$doc])*
        static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!("#!lua", $flags, "\n", include_str!("../lua/prelude.lua"), $(include_str!($file)),+))
        });
    )*};
}

scripts! {
    ACK = " flags=allow-oom", "../lua/ack.lua";
    COMMIT = " flags=allow-oom", "../lua/effects.lua", "../lua/commit.lua";
    WRITE = "", "../lua/effects.lua", "../lua/write.lua";
    PARK = " flags=allow-oom", "../lua/park.lua";
    DEAD_LETTER = " flags=allow-oom", "../lua/dead_letter.lua";
    RECLAIM = " flags=allow-oom", "../lua/reclaim.lua";
    MARK_STARTED = " flags=allow-oom", "../lua/mark_started.lua";
    RESTART_IDLE = " flags=allow-oom", "../lua/restart_idle.lua";
    TAKE_OVER = " flags=allow-oom", "../lua/take_over.lua";
    RENEW = " flags=allow-oom", "../lua/renew.lua";
    TRIM = " flags=allow-oom", "../lua/trim.lua";
    DROP_CONSUMER = " flags=allow-oom", "../lua/drop_consumer.lua";
    FORGET_WORKER = " flags=allow-oom", "../lua/forget_worker.lua";
    REGISTER_WORKER = " flags=allow-oom", "../lua/register_worker.lua";
    ROUTE = "", "../lua/route.lua";
    CHECK_ROUTE = "", "../lua/check_route.lua";
    JOIN_FLEET = " flags=allow-oom", "../lua/join_fleet.lua";
    ENSURE_GROUP = " flags=allow-oom", "../lua/ensure_group.lua";
    RETIRE_GROUP = " flags=allow-oom", "../lua/retire_group.lua";
    REDRIVE = "", "../lua/redrive.lua";
    DUE = " flags=no-writes", "../lua/due.lua";
    DELIVER = "", "../lua/deliver.lua";
    REFUSE_DUE = "", "../lua/refuse_due.lua";
    CANCEL_SCHEDULED = " flags=allow-oom", "../lua/cancel_scheduled.lua";
    READ_CONTROL = " flags=no-writes", "../lua/read_control.lua";
    PAUSE = " flags=allow-oom", "../lua/pause.lua";
    RESUME = " flags=allow-oom", "../lua/resume.lua";
    OPEN_BREAKER = " flags=allow-oom", "../lua/open_breaker.lua";
    TAKE_PROBE = " flags=allow-oom", "../lua/take_probe.lua";
    END_PROBE = " flags=allow-oom", "../lua/end_probe.lua";
    NOTE_HEALTH = "", "../lua/note_health.lua";
    SWITCH = " flags=allow-oom", "../lua/switch.lua";
}

/// A delivery as the fence knows it: which entry, under which delivery count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The entry.
    pub id: EntryId,
    /// Redis' delivery count when it was handed to us.
    pub count: u64,
}

/// The group and consumer on whose behalf a script runs, and the keys of their stream.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Key of the stream.
    pub stream: String,
    /// Key of the hash of troubled deliveries.
    pub attempts: String,
    /// Key of the counters.
    pub stats: String,
    /// Group: the subscriber.
    pub group: String,
    /// Consumer: `<name>.<nonce>`.
    pub consumer: String,
    /// Whether settled entries are deleted (a redrive stream) or kept as history.
    pub delete_settled: bool,
}

/// Idle time that makes a delivery claimable whatever the lease (which is an hour at most).
pub const BEYOND_ANY_LEASE_MS: u64 = 24 * 3600 * 1000;

/// Reserved consumer that holds what waits for its next attempt.
pub const RETRY: &str = "retry";
/// Reserved consumer that holds what was given back unstarted.
pub const RELEASED: &str = "released";

fn flag(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

fn push_fields(call: &mut Call<'_>, fields: &Fields) {
    for (name, value) in &fields.0 {
        call.arg(name.as_slice()).arg(value.as_slice());
    }
}
