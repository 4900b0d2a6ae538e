//! `streamfleet dead`: look at dead letters, send them back, throw them away.

mod groups;
mod moving;

use std::io::{Write, stdout};
use std::num::NonZeroU32;

use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{Items, Output, answer};
use super::filter::FilterArgs;
use super::names::{Router, unknown};
use super::text::{Paint, Tone, age, escape, pretty, shorten, table};
use super::{CommandError, Session};
use crate::dead::DeadLetters;
use crate::letter::Letter;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::store::EntryId;
use crate::time;
use crate::worker::Attempt;

/// Look at dead letters, send them back, throw them away.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    /// Send dead letters back: to the inbox what was refused at the door, the rest to the
    /// subscriber that gave it up.
    Redrive(moving::MoveArgs),
    /// Throw dead letters away for good.
    Discard(moving::DiscardArgs),
}

/// List dead letters, oldest first.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Group them by what went wrong, whatever numbers and IDs are in it.
    #[arg(long)]
    group: bool,
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

/// Show everything about one dead letter.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Whose it is: a subscriber, or `router`.
    subscriber: String,
    /// Its ID, as `dead list` shows it.
    id: EntryId,
    /// Show also what `redact` in routing.yaml hides.
    #[arg(long)]
    unredacted: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Redrive(args) => moving::redrive(args).await,
        Command::Discard(args) => moving::discard(args).await,
    }
}

async fn open(common: &CommonArgs) -> Result<(Session, DeadLetters), CommandError> {
    let session = Session::open(common).await?;
    let letters = DeadLetters::new(session.link.clone(), session.keys.clone());
    Ok((session, letters))
}

/// A letter for programs.
#[derive(Serialize)]
struct Shown<'a> {
    subscriber: &'a str,
    id: String,
    event_id: Option<&'a str>,
    event_type: Option<&'a str>,
    reason: &'a str,
    error: &'a str,
    errors: Option<Box<RawValue>>,
    died: &'a str,
    stream: &'a str,
    entry: &'a str,
    redrives: u64,
    hops: u64,
    attempts: &'a [Attempt],
    /// The event, where it is JSON.
    event: Option<&'a RawValue>,
    /// What was received instead, where it is not.
    event_text: Option<String>,
}

impl<'a> Shown<'a> {
    fn new(owner: &'a str, letter: &'a Letter) -> Self {
        let bytes = letter.event.as_deref();
        let event = bytes.and_then(as_json);
        let text = bytes.filter(|_| event.is_none());
        Self {
            subscriber: owner,
            id: letter.id.to_string(),
            event_id: letter.event_id.as_deref(),
            event_type: letter.event_type.as_deref(),
            reason: &letter.reason,
            error: &letter.error,
            errors: RawValue::from_string(letter.errors.clone()).ok(),
            died: &letter.died,
            stream: &letter.stream,
            entry: &letter.entry,
            redrives: letter.redrives,
            hops: letter.hops,
            attempts: &letter.attempts.0,
            event,
            event_text: text.map(|text| String::from_utf8_lossy(text).into_owned()),
        }
    }
}

fn as_json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

/// A name that nobody has may be a slip; one who is retired may have letters all the same.
async fn hint(session: &Session, letters: &DeadLetters, name: &str) -> Result<(), CommandError> {
    let mut names = session.subscribers(Router::Counts).await?;
    names.extend(letters.owners().await?);
    if !names.contains(name) {
        eprintln!(
            "streamfleet: {}",
            unknown("subscriber", name, &names, "streamfleet status")
        );
    }
    Ok(())
}

async fn list(args: ListArgs) -> Result<Exit, CommandError> {
    let (session, letters) = open(&args.common).await?;
    if let Some(name) = &args.filter.subscriber {
        hint(&session, &letters, name).await?;
    }
    let redact = session.config.routing.redact();
    let mut found = letters.find(args.filter.filter()).await?;
    if args.group {
        let redact = (!args.unredacted).then_some(redact);
        return groups::show(found, redact, args.limit.get(), args.output).await;
    }
    let header = [
        "SUBSCRIBER",
        "ID",
        "AGE",
        "TYPE",
        "REASON",
        ">TRIES",
        "ERROR",
    ];
    let (mut rows, mut shown, mut more) = (table(&header), 0, false);
    let mut out = std::io::BufWriter::new(stdout().lock());
    let mut items = match args.output {
        Output::Table => None,
        output => Some(Items::begin(&mut out, output, "dead-letters")?),
    };
    while let Some((owner, letter)) = found.next().await? {
        if shown == args.limit.get() {
            more = true;
            break;
        }
        shown += 1;
        let letter = match args.unredacted {
            true => letter,
            false => letter.redacted(redact),
        };
        if let Some(items) = &mut items {
            items.push(&Shown::new(&owner, &letter))?;
            continue;
        }
        let died = time::to_ms(jiff::Timestamp::now());
        rows.add_row([
            escape(&owner),
            letter.id.to_string(),
            age(Some(died.saturating_sub(letter.id.ms))),
            letter
                .event_type
                .as_deref()
                .map_or("-".into(), |t| shorten(t, 40)),
            shorten(&letter.reason, 24),
            letter.attempts.0.len().to_string(),
            shorten(&letter.error, 80),
        ]);
    }
    match (items, shown) {
        (Some(items), _) => items.end()?,
        (None, 0) => writeln!(out, "no dead letters")?,
        (None, _) => out.write_all(Paint::stdout().table(&rows, &[]).as_bytes())?,
    }
    out.flush()?;
    if more {
        eprintln!("there are more: use --limit, or a filter");
    }
    Ok(Exit::Clean)
}

async fn show(args: ShowArgs) -> Result<Exit, CommandError> {
    let (session, letters) = open(&args.common).await?;
    let Some(letter) = letters.get(&args.subscriber, args.id).await? else {
        hint(&session, &letters, &args.subscriber).await?;
        return Err(CommandError::Refused(format!(
            "there is no dead letter {} of {}: see streamfleet dead list",
            args.id,
            escape(&args.subscriber)
        )));
    };
    let letter = match args.unredacted {
        true => letter,
        false => letter.redacted(session.config.routing.redact()),
    };
    match args.output {
        Output::Table => {
            let text = describe(&args.subscriber, &letter, Paint::stdout());
            stdout().write_all(text.as_bytes())?;
        }
        output => answer(
            output,
            "dead-letters",
            [Shown::new(&args.subscriber, &letter)],
        )?,
    }
    Ok(Exit::Clean)
}

fn describe(owner: &str, letter: &Letter, paint: Paint) -> String {
    let heading = |text: &str| format!("\n{}\n", paint.tone(text, Tone::Strong));
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), escape);
    let from = format!("{} {}", escape(&letter.stream), escape(&letter.entry));
    let mut text = String::new();
    for (name, value) in [
        ("subscriber", escape(owner)),
        ("id", letter.id.to_string()),
        ("event", or_dash(&letter.event_id)),
        ("type", or_dash(&letter.event_type)),
        ("reason", escape(&letter.reason)),
        ("error", escape(&letter.error)),
        ("died", escape(&letter.died)),
        ("from", from),
        ("redrives", letter.redrives.to_string()),
        ("hops", letter.hops.to_string()),
    ] {
        text += &format!("{name:<11} {value}\n");
    }
    let errors: Vec<crate::schemas::Violation> =
        serde_json::from_str(&letter.errors).unwrap_or_default();
    if !errors.is_empty() {
        text += &heading("WHAT IS WRONG");
        let mut rows = table(&["AT", "MESSAGE"]);
        for error in errors {
            rows.add_row([escape(&error.pointer), escape(&error.message)]);
        }
        text += &paint.table(&rows, &[]);
    }
    if !letter.attempts.0.is_empty() {
        text += &heading("ATTEMPTS");
        let mut rows = table(&[">N", "FAILED AT", "WORKER", "ERROR"]);
        for attempt in &letter.attempts.0 {
            rows.add_row([
                attempt.attempt.to_string(),
                attempt.at.to_string(),
                escape(&attempt.worker),
                escape(&attempt.error),
            ]);
        }
        text += &paint.table(&rows, &[]);
    }
    if !letter.extra.0.is_empty() {
        text += &heading("OTHER FIELDS OF THE INBOX ENTRY");
        for (name, value) in &letter.extra.0 {
            let lossy = |bytes| escape(&String::from_utf8_lossy(bytes));
            text += &format!("{}: {}\n", lossy(name), lossy(value));
        }
    }
    match letter.event.as_deref() {
        None => text += &heading("THE ENTRY HAD NO FIELD event"),
        Some(bytes) => match as_json(bytes) {
            Some(json) => text += &(heading("EVENT") + &pretty(json) + "\n"),
            None => {
                let bytes = escape(&String::from_utf8_lossy(bytes));
                text += &(heading("EVENT (not JSON)") + &bytes + "\n");
            }
        },
    }
    text
}
