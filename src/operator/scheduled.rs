//! `streamfleet scheduled`: events that are to be delivered later.

use std::io::{Write, stdout};
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::answer::{Output, answer};
use super::confirm::YesArgs;
use super::text::{Paint, age, count, escape, shorten, table};
use super::{CommandError, Session};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::scheduled::{ScheduledEvent, ScheduledEvents};

/// Look at events that are to be delivered later, and cancel them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Cancel(CancelArgs),
}

/// List scheduled events, the one that is due first being the first.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "50", value_parser = super::at_least_one::<NonZeroU32>)]
    limit: NonZeroU32,
    /// Show also what `redact` in routing.yaml hides.
    #[arg(long)]
    unredacted: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Cancel scheduled events: they are never delivered. Exits with 1 if one of them is not
/// scheduled (any more). Their IDs stay remembered: to publish one again, give it another ID.
#[derive(Debug, clap::Args)]
struct CancelArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// IDs of events, as `scheduled list` shows them.
    #[arg(required = true, value_name = "EVENT_ID")]
    ids: Vec<Uuid>,
    #[command(flatten)]
    yes: YesArgs,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Cancel(args) => cancel(args).await,
    }
}

/// An event for programs.
#[derive(Serialize)]
struct Shown<'a> {
    event_id: &'a str,
    event_type: Option<&'a str>,
    due: String,
    hops: u32,
    event: Option<&'a RawValue>,
}

impl<'a> Shown<'a> {
    fn new(event: &'a ScheduledEvent) -> Self {
        Self {
            event_id: &event.id,
            event_type: event.event_type.as_deref(),
            due: event.due.to_string(),
            hops: event.hops,
            event: serde_json::from_slice(&event.event).ok(),
        }
    }
}

async fn list(args: ListArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let scheduled = ScheduledEvents::new(session.link.clone(), &session.keys);
    let limit = usize::try_from(args.limit.get()).unwrap_or(usize::MAX);
    let mut events = scheduled.list(limit.saturating_add(1)).await?;
    let more = events.len() > limit;
    events.truncate(limit);
    let mut rows = table(&["DUE", ">IN", "TYPE", "EVENT"]);
    let now = Timestamp::now();
    let redact = session.config.routing.redact();
    for event in events.iter_mut().filter(|_| !args.unredacted) {
        if let Some(redacted) = redact.look(event.event_type.as_deref(), &event.event) {
            event.event = redacted.event.into_bytes();
        }
    }
    for event in &events {
        let left = event.due.duration_since(now).as_millis();
        rows.add_row([
            event.due.to_string(),
            age(Some(u64::try_from(left).unwrap_or(0))),
            event
                .event_type
                .as_deref()
                .map_or("-".into(), |t| shorten(t, 40)),
            escape(&event.id),
        ]);
    }
    match (args.output, events.len()) {
        (Output::Table, 0) => writeln!(stdout(), "no scheduled events")?,
        (Output::Table, _) => stdout().write_all(Paint::stdout().table(&rows, &[]).as_bytes())?,
        (output, _) => answer(output, "scheduled-events", events.iter().map(Shown::new))?,
    }
    if more {
        eprintln!("there are more: use --limit");
    }
    Ok(Exit::Clean)
}

async fn cancel(args: CancelArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let scheduled = ScheduledEvents::new(session.link, &session.keys);
    let ids: Vec<_> = args.ids.iter().map(Uuid::to_string).collect();
    let events = count(ids.len() as u64, "scheduled event");
    args.yes
        .confirm(&format!("{events} will never be delivered"))?;
    let cancelled = scheduled.cancel(&ids).await?;
    for (id, _) in ids.iter().zip(&cancelled).filter(|(_, done)| !**done) {
        eprintln!(
            "streamfleet: no event {id} is scheduled: it was delivered, cancelled, or is not accepted yet"
        );
    }
    let done = cancelled.iter().filter(|done| **done).count();
    let events = count(done as u64, "scheduled event");
    writeln!(stdout(), "cancelled {events}")?;
    Ok(if done == ids.len() {
        Exit::Clean
    } else {
        Exit::Failure
    })
}
