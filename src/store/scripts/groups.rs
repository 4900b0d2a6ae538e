//! The fleet's memory: dataset and configurations, groups, live workers, who is not well.

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::{
    ENSURE_GROUP, FORGET_WORKER, Holder, JOIN_FLEET, NOTE_HEALTH, REGISTER_WORKER, RETIRE_GROUP,
    flag,
};

/// What a process learns when it joins the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Identity of the data in this Redis; another one means that the data are others.
    pub dataset: String,
    /// Number of the configuration that this process runs.
    pub generation: u64,
    /// Number of the newest configuration that any process runs.
    pub newest: u64,
}

/// Joins the fleet with a configuration, known by its fingerprint.
pub async fn join_fleet(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    fresh_dataset: &str,
    fingerprint: &str,
) -> Result<Membership, RedisError> {
    let mut call = JOIN_FLEET.key(fleet);
    call.arg(fresh_dataset).arg(fingerprint);
    let (dataset, generation, newest) = call.invoke_async(connection).await?;
    Ok(Membership {
        dataset,
        generation,
        newest,
    })
}

/// Whether a group is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// It was created just now.
    Created,
    /// It was there.
    Exists,
    /// `fleet` knows it, Redis does not: only the operator may recreate it.
    Lost,
    /// `fleet` does not know it.
    Retired,
}

/// What may be done about a group that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensure {
    /// Create it if it never existed.
    Create,
    /// Create it even if it was lost.
    Recreate,
    /// Nothing: only look.
    Look,
    /// Nothing: only look whether anything stands against creating it.
    Check,
}

/// Looks for a group, and creates it where `how` allows.
pub async fn ensure_group(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    holder: &Holder,
    fleet_field: &str,
    start: &str,
    lease_ms: u64,
    how: Ensure,
) -> Result<GroupState, RedisError> {
    let mut call = ENSURE_GROUP.key(fleet);
    call.key(&holder.stream)
        .key(&holder.attempts)
        .arg(&holder.group)
        .arg(fleet_field)
        .arg(start)
        .arg(lease_ms);
    call.arg(match how {
        Ensure::Create => "ensure",
        Ensure::Recreate => "recreate",
        Ensure::Look => "look",
        Ensure::Check => "check",
    });
    let answer: String = call.invoke_async(connection).await?;
    Ok(match answer.as_str() {
        "CREATED" => GroupState::Created,
        "EXISTS" => GroupState::Exists,
        "RETIRED" => GroupState::Retired,
        _ => GroupState::Lost,
    })
}

/// What became of a group that was to be retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It is gone.
    Done,
    /// There was none.
    Absent,
    /// It still owes deliveries, and consent to give them up was not given.
    Owes,
}

/// Retires a group; `give_up` consents to drop what it has not settled.
pub async fn retire_group(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    holder: &Holder,
    fleet_field: &str,
    give_up: bool,
) -> Result<Retired, RedisError> {
    let mut call = RETIRE_GROUP.key(fleet);
    call.key(&holder.stream)
        .key(&holder.attempts)
        .arg(&holder.group)
        .arg(fleet_field)
        .arg(flag(give_up));
    let answer: String = call.invoke_async(connection).await?;
    Ok(match answer.as_str() {
        "RETIRED" => Retired::Done,
        "ABSENT" => Retired::Absent,
        _ => Retired::Owes,
    })
}

/// How a worker's announcement treats one that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Take the name only if nobody alive has it.
    Claim,
    /// The name is ours by right (given with `--name`): whoever had it is replaced.
    Replace,
    /// Renew, unless we were replaced.
    Renew,
    /// Take it back, unless we were replaced.
    Withdraw,
}

/// Announces a live worker, which is found by its field in `fleet`; false if the name is another's.
pub async fn register_worker(
    connection: &mut MultiplexedConnection,
    worker: &str,
    (fleet, fleet_field): (&str, &str),
    nonce: &str,
    ttl_ms: u64,
    how: Announce,
    fields: &[(&str, String)],
) -> Result<bool, RedisError> {
    let mut call = REGISTER_WORKER.key(worker);
    call.key(fleet).arg(nonce).arg(ttl_ms).arg(match how {
        Announce::Claim => "claim",
        Announce::Replace => "replace",
        Announce::Renew => "renew",
        Announce::Withdraw => "withdraw",
    });
    call.arg(fleet_field);
    for (name, value) in fields {
        call.arg(*name).arg(value);
    }
    let answer: String = call.invoke_async(connection).await?;
    Ok(answer == "OK")
}

/// Forgets a worker that gives no sign of life any more; false if it does.
pub async fn forget_worker(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    worker: &str,
    fleet_field: &str,
) -> Result<bool, RedisError> {
    let mut call = FORGET_WORKER.key(fleet);
    call.key(worker).arg(fleet_field);
    call.invoke_async(connection).await
}

/// A change of the mark that says since when something is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthNote {
    /// The field of the mark in `fleet`.
    pub field: String,
    /// The mark as it was read; empty if there was none.
    pub before: String,
    /// The new one; empty for none.
    pub after: String,
    /// The event that tells of it; empty for none.
    pub event: Vec<u8>,
}

/// Makes the change; false if the mark is another by now: then nothing is written.
pub async fn note_health(
    connection: &mut MultiplexedConnection,
    fleet: &str,
    inbox: &str,
    note: &HealthNote,
) -> Result<bool, RedisError> {
    let mut call = NOTE_HEALTH.key(fleet);
    call.key(inbox).arg(&note.field).arg(&note.before);
    call.arg(&note.after).arg(note.event.as_slice());
    call.invoke_async(connection).await
}
