//! `streamfleet capacity`: whether the workers are enough, by what is observed and by theory.

mod model;
mod sample;

use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::time::Duration;

use serde::Serialize;

use self::model::{erlang_wait, little, mm1_wait, slots_for};
use self::sample::{Observed, Pair, observe};
use super::answer::{Output, answer};
use super::names::Router;
use super::text::{Paint, Tone, escape, table};
use super::{CommandError, Session};
use crate::fleet::{self, ROUTER};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::status::{alive, workers};
use crate::store::Keys;

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
    standing: Standing,
    workers: u64,
    /// Deliveries that they work on at a time, together; unknown of one that routing.yaml does not have.
    slots: Option<u64>,
    /// λ.
    arrivals: f64,
    /// Unknown where Redis cannot tell what waits.
    settled: Option<f64>,
    /// 1/μ; unknown while nothing is settled.
    service: Option<f64>,
    /// μ of one slot.
    rate: Option<f64>,
    /// ρ = λ/(cμ).
    utilisation: Option<f64>,
    /// On average: not read yet (unknown where Redis cannot tell), and in hand.
    waiting: Option<f64>,
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

/// What routing.yaml has of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Routed,
    /// It gets nothing new, and settles what it owes.
    Retired,
    /// Nothing: only its groups are left.
    Unrouted,
}

impl Capacity {
    fn of(
        name: &str,
        seen: &Observed,
        workers: u64,
        concurrency: Option<u64>,
        target: Duration,
    ) -> Self {
        let per_second = |n: f64| {
            if seen.seconds > 0.0 {
                n / seen.seconds
            } else {
                0.0
            }
        };
        let (lambda, settled) = (per_second(seen.arrived), seen.settled.map(per_second));
        let slots = concurrency.map(|concurrency| workers * concurrency);
        let settles = settled.filter(|settled| *settled > 0.0);
        // Little's law of the slots: held = settled × service. What is caught in no look at all
        // takes next to nothing.
        let service = settles
            .filter(|_| seen.held > 0.0)
            .map(|settled| seen.held / settled);
        let rate = service.map(|service| 1.0 / service);
        let with_slots = rate.zip(slots.filter(|slots| *slots > 0));
        let needed = rate.and_then(|mu| slots_for(target.as_secs_f64(), lambda, mu));
        Self {
            subscriber: name.to_owned(),
            standing: Standing::Routed,
            workers,
            slots,
            arrivals: lambda,
            settled,
            service,
            rate,
            utilisation: with_slots.map(|(mu, slots)| lambda / (slots as f64 * mu)),
            waiting: seen.waiting,
            in_flight: seen.held,
            observed_wait: seen
                .waiting
                .zip(settles)
                .map(|(waiting, settled)| waiting / settled),
            mm1_wait: with_slots.and_then(|(mu, slots)| mm1_wait(lambda, slots as f64 * mu)),
            erlang_wait: with_slots.and_then(|(mu, slots)| erlang_wait(slots, lambda, mu)),
            slots_needed: needed,
            workers_needed: needed
                .zip(concurrency)
                .map(|(slots, concurrency)| slots.div_ceil(concurrency.max(1))),
        }
    }

    /// Whether more comes than can be settled. (To others than those that are routed nothing comes: what
    /// is added to their streams is for somebody else.)
    fn is_too_small(&self) -> bool {
        if self.standing != Standing::Routed {
            return false;
        }
        let nobody = self.workers == 0 && self.arrivals > 0.0;
        nobody
            || self
                .utilisation
                .is_some_and(|utilisation| utilisation >= 1.0)
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let only = args.subscriber.as_deref();
    if let Some(name) = only {
        session.expect_subscriber(name, Router::DoesNot).await?;
    }
    let pairs = pairs(&session, only).await?;
    let seen = observe(&session, &pairs, args.how_long).await?;
    let found_workers = workers(&session.link, &session.keys, only).await?;
    let routing = &session.config.routing;
    let of = |(name, observed): (&String, &Observed)| {
        let standing = match (routing.subscriber(name), routing.served(name)) {
            (Some(_), _) => Standing::Routed,
            (None, Some(_)) => Standing::Retired,
            (None, None) => Standing::Unrouted,
        };
        let settings = routing.served(name);
        let concurrency = settings.map(|settings| settings.concurrency as u64);
        let workers = alive(&found_workers, name) as u64;
        Capacity {
            standing,
            ..Capacity::of(name, observed, workers, concurrency, args.target)
        }
    };
    let found: Vec<_> = seen.iter().map(of).collect();
    match args.output {
        Output::Table => stdout().write_all(render(&found, Paint::stdout()).as_bytes())?,
        output => answer(output, "capacity", &found)?,
    }
    Ok(match found.iter().any(Capacity::is_too_small) {
        true => Exit::Failure,
        false => Exit::Clean,
    })
}

/// The groups to look at: those that routing.yaml asks for, and those of others that Redis knows.
async fn pairs(session: &Session, only: Option<&str>) -> Result<Vec<Pair>, CommandError> {
    let wanted = fleet::wanted_groups(&session.config.routing, None);
    let wanted = wanted
        .into_iter()
        .map(|group| (group.stream, group.subscriber));
    let known = fleet::group_records(&session.link, &session.keys).await?;
    let all: BTreeSet<Pair> = wanted.chain(known.into_keys()).collect();
    let ours = |(_, name): &Pair| {
        name != ROUTER && Keys::shadow_of(name).is_none() && only.is_none_or(|only| only == name)
    };
    Ok(all.into_iter().filter(ours).collect())
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
        // What does not follow is absent while nothing is settled, and unknown if that is unknown.
        let nothing = if one.settled.is_some() { "-" } else { "?" };
        let theory = |wait: Option<f64>| match one.utilisation {
            Some(_) => wait.map_or("grows".to_owned(), seconds),
            None => nothing.to_owned(),
        };
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| nothing.to_owned());
        let known = |number: Option<String>| number.unwrap_or_else(|| "?".to_owned());
        let short = |number: f64| format!("{number:.1}");
        rows.add_row([
            escape(&one.subscriber),
            one.workers.to_string(),
            known(one.slots.map(|slots| slots.to_string())),
            short(one.arrivals),
            known(one.settled.map(short)),
            or_nothing(one.service.map(seconds)),
            or_nothing(one.utilisation.map(|u| format!("{:.0} %", u * 100.0))),
            known(one.waiting.map(short)),
            short(one.in_flight),
            or_nothing(one.observed_wait.map(seconds)),
            theory(one.mm1_wait),
            theory(one.erlang_wait),
            or_nothing(one.workers_needed.map(|n| n.to_string())),
        ]);
        tones.push(match one.utilisation {
            _ if unstable => Some(Tone::Alarm),
            _ if one.standing != Standing::Routed => Some(Tone::Notice),
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
    for one in found {
        let what = match one.standing {
            Standing::Routed => continue,
            Standing::Retired => {
                "it is retired: it gets nothing new, and its workers settle what it owes"
            }
            Standing::Unrouted => {
                "it is in no route, and no worker of it can be started: put it back, or streamfleet group retire"
            }
        };
        text += &format!("{}: {what}\n", escape(&one.subscriber));
    }
    if found.iter().any(|one| one.waiting.is_none()) {
        text += "?: Redis cannot tell what waits (entries were deleted); streamfleet status shows how old the oldest is\n";
    }
    // Little's law of all that is owed: how many there would be, were the theory right.
    for one in found {
        if let (Some(wait), Some(service), Some(waiting)) =
            (one.erlang_wait, one.service, one.waiting)
        {
            let expected = little(one.arrivals, wait + service);
            let there = waiting + one.in_flight;
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
            settled: Some(200.0),
            waiting: Some(2.0),
            held: 4.0,
        };
        let target = Duration::from_millis(100);
        let one = Capacity::of("a-service", &seen, 1, Some(8), target);
        let told = (one.arrivals, one.settled, one.slots);
        assert_eq!(told, (20.0, Some(20.0), Some(8)));
        assert_eq!((one.service, one.utilisation), (Some(0.2), Some(0.5)));
        assert_eq!(one.observed_wait, Some(0.1));
        assert!(!one.is_too_small());
        assert_eq!((one.slots_needed, one.workers_needed), (Some(6), Some(1)));

        let small = Capacity::of("a-service", &seen, 1, Some(4), target);
        assert_eq!((small.utilisation, small.erlang_wait), (Some(1.0), None));
        assert!(small.is_too_small());
        assert_eq!(small.workers_needed, Some(2));
        let nobody = Capacity::of(
            "a-service",
            &Observed {
                settled: Some(0.0),
                held: 0.0,
                ..seen
            },
            0,
            Some(4),
            target,
        );
        assert!(nobody.is_too_small() && nobody.service.is_none());
        let idle = Capacity::of("a-service", &Observed::default(), 0, Some(4), target);
        assert!(!idle.is_too_small());
        // Where Redis cannot tell what waits, nothing is concluded.
        let unknown = Observed {
            settled: None,
            waiting: None,
            ..seen
        };
        let unknown = Capacity::of("a-service", &unknown, 1, Some(4), target);
        let follows = (unknown.service, unknown.utilisation, unknown.slots_needed);
        assert_eq!(follows, (None, None, None));
        assert!(!unknown.is_too_small());
        let shown = render(&[unknown], Paint::none());
        let row: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = "a-service 1 4 20.0 ? ? ? ? 4.0 ? ? ? ?";
        assert_eq!(row.join(" "), expected);
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
