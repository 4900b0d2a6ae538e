//! `streamfleet capacity`: whether the workers are enough, by what is observed and by theory.

mod model;
mod sample;

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::time::Duration;

use serde::Serialize;

use self::model::{erlang_wait, little, mm1_wait, slots_for};
use self::sample::{Observed, observe};
use super::answer::{Output, answer};
use super::names::Router;
use super::text::{Paint, Tone, escape, table};
use super::{CommandError, Session};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::status::{State, workers};

/// Look at each subscriber for a while, and say whether its workers are enough: what arrives, what
/// they settle, how long deliveries wait, what queueing theory says of it, and how many workers a
/// target takes.
///
/// Utilisation is λ/(cμ), with a slot's rate μ by Little's law from the deliveries that are in the
/// hands of workers. Exits with 1 if more arrives for somebody than its workers can settle.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Only this subscriber.
    subscriber: Option<String>,
    /// How long to look.
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    how_long: Duration,
    /// How long a delivery may wait for a free slot, on average.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = super::duration)]
    target: Duration,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is seen of a subscriber, and what follows. Times are in seconds, rates per second.
#[derive(Debug, PartialEq, Serialize)]
struct Capacity {
    subscriber: String,
    workers: u64,
    /// Deliveries that they work on at a time, together.
    slots: u64,
    /// λ.
    arrivals: f64,
    settled: f64,
    /// 1/μ; unknown while nothing is settled.
    service: Option<f64>,
    /// μ of one slot.
    rate: Option<f64>,
    /// ρ = λ/(cμ).
    utilisation: Option<f64>,
    /// On average: not read yet, and in hand.
    waiting: f64,
    in_flight: f64,
    /// By Little's law from what waits.
    observed_wait: Option<f64>,
    /// By theory; absent if the queue grows for ever.
    mm1_wait: Option<f64>,
    erlang_wait: Option<f64>,
    /// Slots and workers that the target takes.
    slots_needed: Option<u64>,
    workers_needed: Option<u64>,
}

impl Capacity {
    fn of(name: &str, seen: &Observed, workers: u64, concurrency: u64, target: Duration) -> Self {
        let per_second = |n: f64| {
            if seen.seconds > 0.0 {
                n / seen.seconds
            } else {
                0.0
            }
        };
        let (lambda, settled) = (per_second(seen.arrived), per_second(seen.settled));
        let slots = workers * concurrency;
        // Little's law of the slots: held = settled × service. What is caught in no look at all
        // takes next to nothing.
        let service = (settled > 0.0 && seen.held > 0.0).then(|| seen.held / settled);
        let rate = service.map(|service| 1.0 / service);
        let with_slots = rate.filter(|_| slots > 0);
        let needed = rate.and_then(|mu| slots_for(target.as_secs_f64(), lambda, mu));
        Self {
            subscriber: name.to_owned(),
            workers,
            slots,
            arrivals: lambda,
            settled,
            service,
            rate,
            utilisation: with_slots.map(|mu| lambda / (slots as f64 * mu)),
            waiting: seen.waiting,
            in_flight: seen.held,
            observed_wait: (settled > 0.0).then(|| seen.waiting / settled),
            mm1_wait: with_slots.and_then(|mu| mm1_wait(lambda, slots as f64 * mu)),
            erlang_wait: with_slots.and_then(|mu| erlang_wait(slots, lambda, mu)),
            slots_needed: needed,
            workers_needed: needed.map(|slots| slots.div_ceil(concurrency.max(1))),
        }
    }

    /// Whether more comes than can be settled.
    fn is_too_small(&self) -> bool {
        let nobody = self.workers == 0 && self.arrivals > 0.0;
        nobody
            || self
                .utilisation
                .is_some_and(|utilisation| utilisation >= 1.0)
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    if let Some(name) = &args.subscriber {
        session.expect_subscriber(name, Router::DoesNot).await?;
    }
    let only = args.subscriber.as_deref();
    let routed = session.config.routing.subscribers();
    let routed: Vec<_> = routed
        .filter(|s| only.is_none_or(|only| *s.name == *only))
        .collect();
    let names: Vec<_> = routed.iter().map(|s| &*s.name).collect();
    let seen = observe(&session, &names, args.how_long).await?;
    let mut alive: BTreeMap<String, u64> = BTreeMap::new();
    for one in workers(&session.link, &session.keys, only).await? {
        if one.state == State::Alive {
            *alive.entry(one.subscriber).or_default() += 1;
        }
    }
    let of = |settings: &&crate::routing::SubscriberSettings| {
        let name = &*settings.name;
        let observed = seen.get(name).copied().unwrap_or_default();
        let workers = alive.get(name).copied().unwrap_or(0);
        Capacity::of(
            name,
            &observed,
            workers,
            settings.concurrency as u64,
            args.target,
        )
    };
    let found: Vec<_> = routed.iter().map(of).collect();
    match args.output {
        Output::Table => stdout().write_all(render(&found, Paint::stdout()).as_bytes())?,
        output => answer(output, "capacity", &found)?,
    }
    Ok(match found.iter().any(Capacity::is_too_small) {
        true => Exit::Failure,
        false => Exit::Clean,
    })
}

fn render(found: &[Capacity], paint: Paint) -> String {
    let header = [
        "SUBSCRIBER",
        ">WORKERS",
        ">SLOTS",
        ">ARRIVE/S",
        ">SETTLED/S",
        ">SERVICE",
        ">USED",
        ">WAITING",
        ">IN FLIGHT",
        ">WAIT",
        ">M/M/1",
        ">ERLANG C",
        ">NEEDED",
    ];
    let (mut rows, mut tones) = (table(&header), Vec::new());
    for one in found {
        let unstable = one.is_too_small();
        let theory = |wait: Option<f64>| match one.utilisation {
            Some(_) => wait.map_or("grows".to_owned(), seconds),
            None => "-".to_owned(),
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.add_row([
            escape(&one.subscriber),
            one.workers.to_string(),
            one.slots.to_string(),
            format!("{:.1}", one.arrivals),
            format!("{:.1}", one.settled),
            or_dash(one.service.map(seconds)),
            or_dash(one.utilisation.map(|u| format!("{:.0} %", u * 100.0))),
            format!("{:.1}", one.waiting),
            format!("{:.1}", one.in_flight),
            or_dash(one.observed_wait.map(seconds)),
            theory(one.mm1_wait),
            theory(one.erlang_wait),
            or_dash(one.workers_needed.map(|n| n.to_string())),
        ]);
        tones.push(match one.utilisation {
            _ if unstable => Some(Tone::Alarm),
            Some(utilisation) if utilisation > 0.8 => Some(Tone::Notice),
            _ => None,
        });
    }
    let mut text = paint.table(&rows, &tones);
    for one in found.iter().filter(|one| one.is_too_small()) {
        let needed = one.workers_needed.map_or_else(
            || "start a worker".to_owned(),
            |n| format!("{n} workers, or a higher concurrency, would be enough"),
        );
        text += &format!(
            "{}: more arrives than {} workers settle, and the queue grows: {needed}\n",
            escape(&one.subscriber),
            one.workers
        );
    }
    // Little's law of all that is owed: how many there would be, were the theory right.
    for one in found {
        if let (Some(wait), Some(service)) = (one.erlang_wait, one.service) {
            let expected = little(one.arrivals, wait + service);
            let there = one.waiting + one.in_flight;
            text += &format!(
                "{}: L = λW is {expected:.1} by Erlang C, observed {there:.1}\n",
                escape(&one.subscriber)
            );
        }
    }
    text
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_5 => format!("{:.0} µs", s * 1e6),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_and_what_follows() {
        // 20 per second of 0.2 s each are 4 erlangs; one worker of 8 slots.
        let seen = Observed {
            seconds: 10.0,
            arrived: 200.0,
            settled: 200.0,
            waiting: 2.0,
            held: 4.0,
        };
        let target = Duration::from_millis(100);
        let one = Capacity::of("a-service", &seen, 1, 8, target);
        assert_eq!((one.arrivals, one.settled, one.slots), (20.0, 20.0, 8));
        assert_eq!((one.service, one.utilisation), (Some(0.2), Some(0.5)));
        assert_eq!(one.observed_wait, Some(0.1));
        assert!(!one.is_too_small());
        assert_eq!((one.slots_needed, one.workers_needed), (Some(6), Some(1)));

        let small = Capacity::of("a-service", &seen, 1, 4, target);
        assert_eq!((small.utilisation, small.erlang_wait), (Some(1.0), None));
        assert!(small.is_too_small());
        assert_eq!(small.workers_needed, Some(2));
        let nobody = Capacity::of(
            "a-service",
            &Observed {
                settled: 0.0,
                held: 0.0,
                ..seen
            },
            0,
            4,
            target,
        );
        assert!(nobody.is_too_small() && nobody.service.is_none());
        let idle = Capacity::of("a-service", &Observed::default(), 0, 4, target);
        assert!(!idle.is_too_small());
    }

    #[test]
    fn times_are_short() {
        for (s, text) in [
            (0.000_12, "120 µs"),
            (0.001_5, "1.5 ms"),
            (0.25, "250 ms"),
            (12.34, "12.3 s"),
        ] {
            assert_eq!(seconds(s), text);
        }
    }
}
