//! `streamfleet pending`: who holds what.

use std::io::{Write, stdout};
use std::num::NonZeroU32;

use jiff::Timestamp;

use super::answer::{Output, answer};
use super::names::Router;
use super::text::{Paint, Tone, age, escape, moment, shorten, table};
use super::{CommandError, Session};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::status::{Holder, Owed, State, owed, workers};

/// Show every delivery that is owed, the oldest first: who holds it, since when, which attempt it
/// is, when the next one is due, and what the last one said.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Only what is owed to this subscriber, or to `router` (what it has read and not routed).
    subscriber: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "50", value_parser = super::at_least_one::<NonZeroU32>)]
    limit: NonZeroU32,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let subscriber = args.subscriber.as_deref();
    if let Some(name) = subscriber {
        session.expect_subscriber(name, Router::Counts).await?;
    }
    let limit = usize::try_from(args.limit.get()).unwrap_or(usize::MAX);
    let (owed, more) = owed(&session.link, &session.keys, subscriber, limit).await?;
    match args.output {
        Output::Table if owed.is_empty() => {
            writeln!(stdout(), "nothing is pending")?;
        }
        Output::Table => {
            let all = workers(&session.link, &session.keys, subscriber).await?;
            let ghosts = all.iter().filter(|worker| worker.state == State::Ghost);
            let ghosts: Vec<_> = ghosts.map(|ghost| ghost.consumer.as_str()).collect();
            let text = render(&owed, &ghosts, Timestamp::now(), Paint::stdout());
            stdout().write_all(text.as_bytes())?;
        }
        output => answer(output, "pending", &owed)?,
    }
    if more {
        eprintln!("there are more: use --limit, or name a subscriber");
    }
    Ok(Exit::Clean)
}

fn render(owed: &[Owed], ghosts: &[&str], now: Timestamp, paint: Paint) -> String {
    let header = [
        "STREAM",
        "SUBSCRIBER",
        "ENTRY",
        "TYPE",
        "HELD BY",
        ">OWED FOR",
        ">IDLE",
        ">ATTEMPT",
        "DUE",
        "ERROR",
    ];
    let (mut rows, mut tones) = (table(&header), Vec::new());
    for one in owed {
        let ghost = matches!(&one.holder, Holder::Worker(name) if ghosts.contains(&name.as_str()));
        let holder = match &one.holder {
            Holder::Worker(name) if ghost => format!("{} (ghost)", escape(name)),
            Holder::Worker(name) => escape(name),
            Holder::Retry => "retry".to_owned(),
            Holder::Released => "released".to_owned(),
        };
        let owed_for = now.duration_since(one.since).as_millis();
        rows.add_row([
            escape(&one.stream),
            escape(&one.subscriber),
            one.entry.clone(),
            one.event_type
                .as_deref()
                .map_or("-".to_owned(), |name| shorten(name, 40)),
            holder,
            age(u64::try_from(owed_for).ok()),
            age(one.idle_ms),
            one.attempt.to_string(),
            one.due.map_or("-".to_owned(), |due| moment(Some(due))),
            one.error
                .as_deref()
                .map_or("-".to_owned(), |text| shorten(text, 80)),
        ]);
        tones.push(match &one.holder {
            _ if ghost => Some(Tone::Alarm),
            Holder::Retry => Some(Tone::Notice),
            _ => None,
        });
    }
    paint.table(&rows, &tones)
}
