//! Belonging to the fleet: who a process is, which dataset it works on, and which groups exist.
//!
//! Redis: `fleet` (dataset, generations, groups, who announced itself), `worker:<subscriber>:<name>` (live workers) and
//! `control:<subscriber>` (paused, circuit breaker).
//! Guarantee: a group that was lost is never recreated by itself, and a process never goes on
//! working on another dataset than the one it joined.

mod alive;
mod announce;
mod clock;
pub(crate) mod configuration;
pub mod control;
pub(crate) mod figures;
mod groups;
mod identity;

pub use alive::announced;
pub(crate) use alive::forget_dead;
pub(crate) use announce::announcement;
pub(crate) use clock::{ServerClock, restart_idle};
pub use configuration::{Configuration, Outcome, Reload, configuration, configurations};
pub(crate) use configuration::{in_force, refused_by_redis, reloaded};
pub use groups::{
    GroupRecord, WantedGroup, ensure_group, ensure_groups, group_records, holder,
    lost_group_advice, wanted_groups,
};
pub(crate) use identity::ROUTING;
pub use identity::{
    HEARTBEAT, Identity, Membership, MembershipLost, WORKER_TTL, check_dataset, current_dataset,
    host, join, keep_alive, route_by, routed_by, take_over,
};

/// The group of the routers, on the inbox.
pub const ROUTER: &str = "router";
/// Name of the inbox, where a stream's name is asked for.
pub const INBOX: &str = "inbox";
