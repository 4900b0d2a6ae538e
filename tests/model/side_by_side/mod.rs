//! The model beside the real thing: random sequences of steps, sensible or not, run on the model's
//! scripts and, through the product's own functions, on a real Redis. After every step both must
//! have given the same answer and hold the same. So what is proved of the model is proved of
//! scripts that behave as src/store/lua does.
//!
//! The sequences are drawn from a fixed seed: a failure repeats, and proptest shrinks it.

mod observe;
mod ops;
mod real;
mod show;
mod twin;

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prop_assert_eq;
use proptest::test_runner::{Config, TestRng, TestRunner};
use tokio::runtime::Builder;

use self::ops::{Op, op, prelude};
use self::real::Real;
use self::twin::Twin;
use super::bounds::is_large;
use super::scripts::{Answer, Scripts};
use super::store::{Consumer, Id, Queue};

/// How many sequences are run.
pub(crate) fn sequences() -> u32 {
    if is_large() { 2_000 } else { 64 }
}

/// Of how many steps.
const STEPS: std::ops::Range<usize> = 50..80;

/// How long a difference is made smaller.
const MOST_SHRINKING_MS: u32 = 15_000;

const SUBSCRIBERS: u8 = 2;
const QUEUES: [Queue; 5] = [
    Queue::Inbox,
    Queue::Domain(0),
    Queue::Domain(1),
    Queue::Redrive(0),
    Queue::Redrive(1),
];

/// A delivery handed out: ID, count, starts, length of the log.
type Row = (Id, u8, Option<u8>, u8);

/// What a step answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Settled(Answer),
    Handed(Vec<Row>),
    /// And how many had been deleted, and were parked again.
    Reclaimed(Vec<Row>, usize, usize),
    /// How many of a batch were fenced.
    Fenced(usize),
    Redriven(bool),
    /// Whether a transaction was begun, and then whether it wrote.
    Transacted(Option<bool>),
}

fn consumer(name: u8) -> Consumer {
    Consumer { name, life: 0 }
}

/// What a comparison went through: how often each kind of answer was given.
pub(crate) type Tally = BTreeMap<String, usize>;

fn kind(op: &Op, said: &Said) -> String {
    let kind = match (op, said) {
        (Op::Fenced { queue, call, .. }, Said::Settled(answer)) => {
            let call = ops::name(call);
            let redriven = matches!(queue, Queue::Redrive(_));
            let from = if redriven { ", redriven" } else { "" };
            return format!("{call}: {answer:?}{from}");
        }
        (_, Said::Reclaimed(.., 1..)) => "parked again",
        (_, Said::Reclaimed(_, 1.., _)) => "deleted while pending",
        (_, Said::Reclaimed(rows, ..)) if rows.iter().any(|row| row.2.is_some()) => "lost start",
        (_, Said::Reclaimed(rows, ..)) if !rows.is_empty() => "reclaimed",
        (_, Said::Handed(rows)) if !rows.is_empty() => "read",
        (_, Said::Fenced(0)) => "routed",
        (_, Said::Fenced(_)) => "routing fenced",
        (_, Said::Redriven(true)) => "redriven",
        (_, Said::Redriven(false)) => "redriven before",
        (_, Said::Transacted(None)) => "not begun",
        (_, Said::Transacted(Some(true))) => "written",
        (_, Said::Transacted(Some(false))) => "written by nobody",
        _ => "nothing said",
    };
    kind.to_owned()
}

/// What must occur and did not.
pub(crate) fn missing(tally: &Tally) -> Vec<String> {
    let answers = ["Held", "Gone", "Fenced", "Held, redriven"];
    let of_call = |call: &str| answers.map(|answer| format!("{call}: {answer}"));
    let calls = ["mark", "ack", "commit", "park", "dead-letter", "renew"];
    let others = [
        "park: Lost",
        "renew: Lost",
        "parked again",
        "deleted while pending",
        "lost start",
        "reclaimed",
        "read",
        "routed",
        "routing fenced",
        "redriven",
        "redriven before",
        "not begun",
        "written",
        "written by nobody",
    ];
    let mut all: Vec<_> = calls.into_iter().flat_map(of_call).collect();
    all.extend(others.map(str::to_owned));
    all.retain(|kind| !tally.contains_key(kind));
    all
}

/// Runs all sequences on the model and on a Redis, until they differ. A difference is shrunk to
/// its shortest sequence if `shrink`.
pub(crate) fn compare(scripts: Scripts, shrink: bool) -> Result<Tally, String> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let real = RefCell::new(runtime.block_on(Real::start()));
    let tally = RefCell::new(Tally::new());
    let config = Config {
        cases: sequences(),
        failure_persistence: None,
        max_shrink_iters: if shrink { u32::MAX } else { 0 },
        max_shrink_time: MOST_SHRINKING_MS,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(config.rng_algorithm);
    let ops = proptest::collection::vec(op(), STEPS);
    let outcome = TestRunner::new_with_rng(config, seed).run(&ops, |ops| {
        let mut real = real.borrow_mut();
        runtime.block_on(async {
            real.reset().await;
            let mut twin = Twin::new(scripts);
            for op in prelude().iter().chain(&ops) {
                let Some((model, redis)) = twin.step(&mut real, op).await else {
                    continue; // there is nothing for it to act on
                };
                *tally.borrow_mut().entry(kind(op, &redis)).or_default() += 1;
                prop_assert_eq!(model, redis, "model and Redis answer differently: {:?}", op);
                let (model, redis) = (show::model(&twin.store), real.observe().await);
                prop_assert_eq!(
                    model,
                    redis,
                    "model and Redis hold different things after {:?}",
                    op
                );
            }
            Ok(())
        })
    });
    outcome
        .map(|()| tally.take())
        .map_err(|error| error.to_string())
}
