//! The steps, and how they are drawn.

use proptest::prelude::*;

use super::super::scripts::{Call, Park};
use super::super::store::{Content, Due, Owner, Queue, Reason};

/// A step on both. Numbers choose among what is there: `claim` 0 is the newest ever handed out.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish(u8, Content),
    Read(Queue, u8),
    Reclaim {
        queue: Queue,
        by: u8,
        parked_only: bool,
        limit: usize,
    },
    /// A fenced script for any delivery that was ever handed out, settled since or not.
    Fenced {
        queue: Queue,
        claim: usize,
        troubled: bool,
        call: Call,
    },
    /// Two entries of the inbox in one batch.
    RouteTwo(usize, usize),
    /// One entry by a transaction, which is checked first; and what comes between.
    Transact(usize, Meanwhile),
    TakeOver(Queue, u8),
    DropConsumer(Queue, u8),
    /// No sign of life of a pending entry for a lease.
    Freeze(Queue, usize),
    Redrive(usize),
    Trim {
        maxlen: Option<usize>,
        oldest: Option<u8>,
    },
    /// Somebody else deletes an entry that is pending.
    Delete(Queue, usize),
}

/// What comes between a check and its writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meanwhile {
    Nothing,
    Route(usize),
    TakeOver(u8),
}

/// Mostly one subscriber, so that its deliveries meet often.
fn worker_queue() -> impl Strategy<Value = Queue> {
    prop_oneof![
        5 => Just(Queue::Domain(0)),
        3 => Just(Queue::Redrive(0)),
        1 => Just(Queue::Domain(1)),
        1 => Just(Queue::Redrive(1)),
    ]
}

fn queue() -> impl Strategy<Value = Queue> {
    prop_oneof![1 => Just(Queue::Inbox), 3 => worker_queue()]
}

fn worker() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0), 1 => Just(1)]
}

/// Mostly the newest, often one that was settled or taken since.
fn recent() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 3 => 1..4usize, 1 => 4..20usize]
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![6 => Just(Content::Original), 1 => Just(Content::Altered), 1 => Just(Content::Invalid)]
}

fn park() -> impl Strategy<Value = Park> {
    let log = proptest::option::of(1..4u8);
    let starts = proptest::option::of(0..3u8);
    (any::<bool>(), log, starts, any::<bool>()).prop_map(|(retry, log, starts, far)| Park {
        to: if retry { Owner::Retry } else { Owner::Released },
        // Releasing records nothing and waits for nothing.
        failures: log.filter(|_| retry),
        charged: false,
        starts,
        due: if retry && far { Due::FarAway } else { Due::Now },
    })
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        2 => Just(Meanwhile::Nothing),
        1 => (0..3usize).prop_map(Meanwhile::Route),
        1 => worker().prop_map(Meanwhile::TakeOver),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => park().prop_map(Call::Park),
        2 => Just(Call::Ack),
        1 => Just(Call::Commit { follow_up: None }),
        1 => (0..6u8).prop_map(|event| Call::Commit { follow_up: Some(event) }),
        2 => (1..3u8).prop_map(|starts| Call::Mark { starts }),
        3 => Just(Call::Renew),
        2 => Just(Call::DeadLetter(Reason::Exhausted)),
        1 => Just(Call::DeadLetter(Reason::Crashed)),
    ]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let reclaim = (queue(), worker(), 0..4u8, 1..4usize).prop_map(|(queue, by, scope, limit)| {
        let parked_only = scope == 0;
        Op::Reclaim {
            queue,
            by,
            parked_only,
            limit,
        }
    });
    let fenced = (worker_queue(), recent(), any::<bool>(), call()).prop_map(
        |(queue, claim, troubled, call)| Op::Fenced {
            queue,
            claim,
            troubled,
            call,
        },
    );
    let route = recent().prop_map(|claim| Op::Fenced {
        queue: Queue::Inbox,
        claim,
        troubled: false,
        call: Call::Route,
    });
    let limits = (
        proptest::option::of(1..4usize),
        proptest::option::of(1..9u8),
    );
    prop_oneof![
        4 => (0..6u8, content()).prop_map(|(event, content)| Op::Publish(event, content)),
        3 => worker().prop_map(|by| Op::Read(Queue::Inbox, by)),
        5 => (worker_queue(), worker()).prop_map(|(queue, by)| Op::Read(queue, by)),
        10 => reclaim,
        12 => fenced,
        4 => route,
        1 => (0..3usize, 0..3usize).prop_map(|(a, b)| Op::RouteTwo(a, b)),
        4 => (recent(), meanwhile()).prop_map(|(claim, then)| Op::Transact(claim, then)),
        1 => (queue(), worker()).prop_map(|(queue, of)| Op::TakeOver(queue, of)),
        1 => (queue(), worker()).prop_map(|(queue, of)| Op::DropConsumer(queue, of)),
        5 => (queue(), 0..4usize).prop_map(|(queue, nth)| Op::Freeze(queue, nth)),
        2 => (0..2usize).prop_map(Op::Redrive),
        1 => limits.prop_map(|(maxlen, oldest)| Op::Trim { maxlen, oldest }),
        2 => (queue(), 0..4usize).prop_map(|(queue, nth)| Op::Delete(queue, nth)),
    ]
}

/// Three events for both subscribers, one of them given up by the first and redriven.
pub(super) fn prelude() -> Vec<Op> {
    let publish = |event| Op::Publish(event, Content::Original);
    let settle = |queue, call| Op::Fenced {
        queue,
        claim: 0,
        troubled: false,
        call,
    };
    let route = settle(Queue::Inbox, Call::Route);
    let give_up = settle(Queue::Domain(0), Call::DeadLetter(Reason::Exhausted));
    let routed =
        (0..3).flat_map(|event| [publish(event), Op::Read(Queue::Inbox, 0), route.clone()]);
    let redriven = [Op::Read(Queue::Domain(0), 0), give_up, Op::Redrive(0)];
    routed.chain(redriven).collect()
}

/// What a script is called in the tally.
pub(super) fn name(call: &Call) -> &'static str {
    match call {
        Call::Mark { .. } => "mark",
        Call::Ack => "ack",
        Call::Commit { .. } => "commit",
        Call::Park(_) => "park",
        Call::DeadLetter(_) => "dead-letter",
        Call::Renew => "renew",
        Call::Route | Call::Write | Call::Bare(_) => "other",
    }
}
