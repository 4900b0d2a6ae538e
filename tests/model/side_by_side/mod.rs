//! The model beside the real thing: random sequences of steps, sensible or not, run on the model's
//! scripts and, through the product's own functions, on a real Redis. After every step both must
//! have given the same answer and hold the same. So what is proved of the model is proved of
//! scripts that behave as src/store/lua does.
//!
//! The sequences are drawn from a fixed seed: a failure repeats, and proptest shrinks it.

mod real;
mod show;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};

use self::real::Real;
use super::scripts::{Answer, Call, Handed, Request, Scripts};
use super::store::{Consumer, Content, Due, Id, Owner, Queue, Reason, Store};

/// How many sequences, of how many steps at most.
pub(crate) const SEQUENCES: u32 = 48;
pub(crate) const STEPS: usize = 60;

pub(crate) const SUBSCRIBERS: u8 = 2;
const QUEUES: [Queue; 5] = [
    Queue::Inbox,
    Queue::Domain(0),
    Queue::Domain(1),
    Queue::Redrive(0),
    Queue::Redrive(1),
];

/// A step on both. Numbers choose among what is there: `claim` 0 is the newest ever handed out.
#[derive(Clone, Debug)]
pub(crate) enum Op {
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
    TakeOver(Queue, u8),
    DropConsumer(Queue, u8),
    /// No sign of life of a pending entry for a lease.
    Freeze(Queue, usize),
    Redrive(usize),
    Trim {
        maxlen: Option<usize>,
        oldest: Option<u8>,
    },
    /// Somebody else deletes an entry.
    Delete(Queue, usize),
}

/// What a step answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    Settled(Answer),
    /// Per delivery: ID, count, starts, length of the log.
    Handed(Vec<(Id, u8, Option<u8>, u8)>),
    /// How many of a batch were fenced.
    Fenced(usize),
    Redriven(bool),
}

pub(crate) fn consumer(name: u8) -> Consumer {
    Consumer { name, life: 0 }
}

fn call() -> impl Strategy<Value = Call> {
    let park = (
        any::<bool>(),
        proptest::option::of(1..4u8),
        proptest::option::of(0..3u8),
        any::<bool>(),
    );
    let park = park.prop_map(|(retry, failures, starts, far)| Call::Park {
        to: if retry { Owner::Retry } else { Owner::Released },
        // Releasing records nothing and waits for nothing.
        failures: failures.filter(|_| retry),
        charged: false,
        starts,
        due: if far && retry { Due::FarAway } else { Due::Now },
    });
    prop_oneof![
        5 => park,
        3 => Just(Call::Ack),
        2 => Just(Call::Commit { follow_up: None }),
        1 => (0..6u8).prop_map(|event| Call::Commit { follow_up: Some(event) }),
        2 => (1..3u8).prop_map(|starts| Call::Mark { starts }),
        2 => Just(Call::Renew),
        1 => Just(Call::DeadLetter(Reason::Exhausted)),
        1 => Just(Call::DeadLetter(Reason::Crashed)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let queue = || {
        prop_oneof![1 => Just(0), 4 => Just(1), 2 => Just(2), 2 => Just(3), 1 => Just(4)]
            .prop_map(|at: usize| QUEUES[at])
    };
    let worker_queue = || (1..QUEUES.len()).prop_map(|at| QUEUES[at]);
    let content = prop_oneof![6 => Just(Content::Original), 1 => Just(Content::Altered), 1 => Just(Content::Invalid)];
    let recent = || prop_oneof![6 => Just(0usize), 3 => 0..4usize, 1 => 0..40usize];
    let reclaim = (queue(), 0..2u8, any::<bool>(), 1..4usize);
    let fenced = (worker_queue(), recent(), any::<bool>(), call());
    prop_oneof![
        4 => (0..6u8, content).prop_map(|(event, content)| Op::Publish(event, content)),
        3 => (0..2u8).prop_map(|by| Op::Read(Queue::Inbox, by)),
        5 => (worker_queue(), 0..2u8).prop_map(|(queue, by)| Op::Read(queue, by)),
        5 => reclaim.prop_map(|(queue, by, parked_only, limit)| Op::Reclaim { queue, by, parked_only, limit }),
        12 => fenced.prop_map(|(queue, claim, troubled, call)| Op::Fenced { queue, claim, troubled, call }),
        3 => recent().prop_map(|claim| Op::Fenced { queue: Queue::Inbox, claim, troubled: false, call: Call::Route }),
        2 => (0..3usize, 0..3usize).prop_map(|(a, b)| Op::RouteTwo(a, b)),
        1 => (queue(), 0..2u8).prop_map(|(queue, of)| Op::TakeOver(queue, of)),
        1 => (queue(), 0..2u8).prop_map(|(queue, of)| Op::DropConsumer(queue, of)),
        3 => (queue(), 0..4usize).prop_map(|(queue, nth)| Op::Freeze(queue, nth)),
        2 => (0..3usize).prop_map(Op::Redrive),
        1 => (proptest::option::of(1..4usize), proptest::option::of(1..9u8)).prop_map(|(maxlen, oldest)| Op::Trim { maxlen, oldest }),
        1 => (queue(), 0..6usize).prop_map(|(queue, nth)| Op::Delete(queue, nth)),
    ]
}

/// The model, and what was ever handed out, newest first per queue.
struct Twin {
    scripts: Scripts,
    store: Store,
    handed: Vec<Handed>,
}

impl Twin {
    fn claim(&self, queue: Queue, nth: usize) -> Option<Handed> {
        let of_queue = self
            .handed
            .iter()
            .rev()
            .filter(|handed| handed.claim.queue == queue);
        of_queue.cycle().nth(nth).copied()
    }

    /// Runs a step on both; `None` if there is nothing for it to act on.
    async fn step(&mut self, real: &mut Real, op: &Op) -> Option<(Said, Said)> {
        let (scripts, store) = (self.scripts, &mut self.store);
        Some(match *op {
            Op::Publish(event, content) => {
                store.inbox.add(event, content);
                (Said::Nothing, real.publish(event, content).await)
            }
            Op::Read(queue, by) => {
                let handed = scripts.read(store, queue, consumer(by));
                self.handed.extend(handed);
                (said(handed), real.read(queue, by).await)
            }
            Op::Reclaim {
                queue,
                by,
                parked_only,
                limit,
            } => {
                let due = scripts.due(store, queue, parked_only);
                let due = due.into_iter().take(limit);
                let handed: Vec<_> = due
                    .filter_map(|id| scripts.reclaim(store, queue, id, consumer(by)))
                    .collect();
                self.handed.extend(&handed);
                (
                    said(handed),
                    real.reclaim(queue, by, parked_only, limit).await,
                )
            }
            Op::Fenced {
                queue,
                claim,
                troubled,
                call,
            } => {
                let request = request(self.claim(queue, claim)?, troubled, call);
                let answer = scripts.run(&mut self.store, &request);
                let said = match call {
                    Call::Route => Said::Fenced(usize::from(answer != Answer::Held)),
                    _ => Said::Settled(answer),
                };
                (said, real.fenced(&[request]).await)
            }
            Op::RouteTwo(a, b) => {
                let of = |nth| {
                    self.claim(Queue::Inbox, nth)
                        .map(|handed| request(handed, false, Call::Route))
                };
                let mut batch = [of(a)?, of(b)?];
                batch.sort_by_key(|request| request.claim.id);
                let same = batch[0].claim.consumer == batch[1].claim.consumer;
                if !same || batch[0].claim.id == batch[1].claim.id {
                    return None;
                }
                let answers = batch.map(|request| scripts.run(&mut self.store, &request));
                let fenced = answers
                    .iter()
                    .filter(|answer| **answer != Answer::Held)
                    .count();
                (Said::Fenced(fenced), real.fenced(&batch).await)
            }
            Op::TakeOver(queue, of) => {
                scripts.take_over(store, queue, consumer(of));
                (Said::Nothing, real.take_over(queue, of).await)
            }
            Op::DropConsumer(queue, of) => {
                scripts.drop_consumer(store, queue, consumer(of));
                (Said::Nothing, real.drop_consumer(queue, of).await)
            }
            Op::Freeze(queue, nth) => {
                let pending = store.group(queue).pending.iter();
                let (&id, &pending) = pending.clone().cycle().nth(nth)?;
                store.stream(queue).get(id)?;
                store.group_mut(queue).pending.get_mut(&id)?.idle = true;
                (Said::Nothing, real.freeze(queue, id, pending.owner).await)
            }
            Op::Redrive(nth) => {
                // One that was ever written; perhaps it is no longer there.
                let letter = store
                    .letters_written
                    .checked_sub(nth as u8)
                    .filter(|id| *id > 0)?;
                let event = store
                    .letters
                    .iter()
                    .find(|l| l.id == letter)
                    .map_or(0, |l| l.event);
                let redriven = scripts.redrive(store, letter);
                (Said::Redriven(redriven), real.redrive(letter, event).await)
            }
            Op::Trim { maxlen, oldest } => {
                let oldest = oldest.map(|id| id.min(store.domain.last + 1));
                if store.domain.entries.is_empty() {
                    return None;
                }
                scripts.trim(store, maxlen, oldest);
                (Said::Nothing, real.trim(maxlen, oldest).await)
            }
            Op::Delete(queue, nth) => {
                let entry = *store.stream(queue).entries.iter().cycle().nth(nth)?;
                store.stream_mut(queue).delete(entry.id);
                (Said::Nothing, real.delete(queue, entry.id).await)
            }
        })
    }
}

fn said(handed: impl IntoIterator<Item = Handed>) -> Said {
    let row = |h: Handed| (h.claim.id, h.claim.count, h.starts, h.failures);
    Said::Handed(handed.into_iter().map(row).collect())
}

fn request(handed: Handed, troubled: bool, call: Call) -> Request {
    let (claim, entry) = (handed.claim, handed.entry);
    Request {
        claim,
        event: entry.event,
        content: entry.content,
        troubled,
        call,
    }
}

/// Runs all sequences on the model and on a Redis; answers how many steps there were.
pub(crate) fn compare(scripts: Scripts) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let real = std::cell::RefCell::new(runtime.block_on(Real::start()));
    let steps = std::cell::Cell::new(0);
    let config = Config {
        cases: SEQUENCES,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(config.rng_algorithm);
    let sequences = proptest::collection::vec(op(), 1..STEPS);
    let outcome = TestRunner::new_with_rng(config, seed).run(&sequences, |ops| {
        let mut real = real.borrow_mut();
        runtime.block_on(async {
            real.reset().await;
            let (store, handed) = (Store::new(SUBSCRIBERS), Vec::new());
            let mut twin = Twin {
                scripts,
                store,
                handed,
            };
            for op in &ops {
                let Some((expected, answer)) = twin.step(&mut real, op).await else {
                    continue;
                };
                steps.set(steps.get() + 1);
                prop_assert_eq!(expected, answer, "answers differ, model first: {:?}", op);
                let (expected, there) = (show::model(&twin.store), real.observe().await);
                prop_assert_eq!(expected, there, "states differ after {:?}, model first", op);
            }
            Ok(())
        })
    });
    outcome
        .map(|()| steps.get())
        .map_err(|error| error.to_string())
}
