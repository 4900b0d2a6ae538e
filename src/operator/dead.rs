//! `streamfleet dead`: look at dead letters, send them back, throw them away.

use std::io::{Write, stdout};
use std::num::NonZeroU32;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::filter::FilterArgs;
use super::text::{Output, Paint, Tone, age, count, escape, json_line, pretty, shorten, table};
use super::{CommandError, Session};
use crate::dead::{DeadLetters, Filter, RedriveError};
use crate::letter::Letter;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::store::EntryId;
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
    Redrive(MoveArgs),
    /// Throw dead letters away for good.
    Discard(MoveArgs),
}

/// List dead letters, oldest first.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "50")]
    limit: NonZeroU32,
    /// How to answer; JSON is one line per letter.
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
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Which letters, and how fast.
#[derive(Debug, clap::Args)]
struct MoveArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// IDs of letters, as `dead list` shows them.
    ids: Vec<EntryId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All of them: needed when there are neither IDs nor filters.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// How many at most.
    #[arg(long, value_name = "N", conflicts_with = "ids")]
    limit: Option<NonZeroU32>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// How many per second at most.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Redrive(args) => act(args, Action::Redrive).await,
        Command::Discard(args) => act(args, Action::Discard).await,
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
    // A line break inside would end the line of the answer.
    serde_json::from_slice(bytes).ok()
}

async fn list(args: ListArgs) -> Result<Exit, CommandError> {
    let (_, letters) = open(&args.common).await?;
    let mut found = letters.find(args.filter.filter()).await?;
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
    let mut out = stdout().lock();
    while let Some((owner, letter)) = found.next().await? {
        if shown == args.limit.get() {
            more = true;
            break;
        }
        shown += 1;
        if args.output == Output::Json {
            let line = json_line(&Shown::new(&owner, &letter))?;
            let line = line.trim_end().replace(['\n', '\r'], " ");
            writeln!(out, "{line}")?;
            continue;
        }
        let died = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
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
    if args.output == Output::Table {
        match shown {
            0 => writeln!(out, "no dead letters")?,
            _ => out.write_all(Paint::stdout().table(&rows, &[]).as_bytes())?,
        }
    }
    if more {
        eprintln!("there are more: use --limit, or a filter");
    }
    Ok(Exit::Clean)
}

async fn show(args: ShowArgs) -> Result<Exit, CommandError> {
    let (_, letters) = open(&args.common).await?;
    let Some(letter) = letters.get(&args.subscriber, args.id).await? else {
        return Err(CommandError::Refused(format!(
            "there is no dead letter {} of {}: see streamfleet dead list",
            args.id,
            escape(&args.subscriber)
        )));
    };
    let mut out = stdout().lock();
    let text = match args.output {
        Output::Json => json_line(&Shown::new(&args.subscriber, &letter))?,
        Output::Table => describe(&args.subscriber, &letter, Paint::stdout()),
    };
    out.write_all(text.as_bytes())?;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Redrive,
    Discard,
}

impl Action {
    fn done(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Redrive, false) => "redriven",
            (Self::Redrive, true) => "would redrive",
            (Self::Discard, false) => "discarded",
            (Self::Discard, true) => "would discard",
        }
    }
}

async fn act(args: MoveArgs, action: Action) -> Result<Exit, CommandError> {
    let filter = args.filter.filter();
    if args.ids.is_empty() && filter.is_empty() && !args.all {
        let message = "which ones? Give IDs, a filter, or --all\n";
        clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, message).exit();
    }
    let (session, letters) = open(&args.common).await?;
    let mut mover = Mover {
        session,
        letters,
        action,
        dry_run: args.dry_run,
        pace: args.rate.map(pace),
        bar: progress(),
        done: 0,
        failed: 0,
    };
    let work = async {
        if args.ids.is_empty() {
            let limit = args.limit.map_or(u64::MAX, |n| n.get().into());
            mover.matching(filter, limit).await
        } else {
            mover.listed(&args.ids, filter).await
        }
    };
    let outcome = tokio::select! {
        biased;
        () = interrupted() => None,
        outcome = work => Some(outcome),
    };
    mover.bar.finish_and_clear();
    if outcome.is_none() {
        eprintln!("stopped before the last");
        mover.failed += 1;
    }
    let letters = count(mover.done, "letter");
    writeln!(stdout(), "{} {letters}", action.done(args.dry_run))?;
    outcome.transpose()?;
    Ok(if mover.failed == 0 {
        Exit::Clean
    } else {
        Exit::Failure
    })
}

fn pace(rate: NonZeroU32) -> Interval {
    // Of more than a thousand million per second, the share of each is nothing at all.
    let period = (Duration::from_secs(1) / rate.get()).max(Duration::from_nanos(1));
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Redrives or discards.
struct Mover {
    session: Session,
    letters: DeadLetters,
    action: Action,
    dry_run: bool,
    pace: Option<Interval>,
    bar: ProgressBar,
    done: u64,
    /// Letters that were asked for by ID and are not there, or cannot be redriven.
    failed: u64,
}

impl Mover {
    async fn matching(&mut self, filter: Filter, limit: u64) -> Result<(), CommandError> {
        let mut found = self.letters.find(filter).await?;
        while self.done < limit
            && let Some((owner, letter)) = found.next().await?
        {
            self.act(&owner, &letter).await?;
        }
        Ok(())
    }

    async fn listed(&mut self, ids: &[EntryId], filter: Filter) -> Result<(), CommandError> {
        let owners = match &filter.subscriber {
            Some(subscriber) => vec![subscriber.clone()],
            None => self.letters.owners().await?,
        };
        for id in ids {
            let mut found = Vec::new();
            for owner in &owners {
                let letter = self.letters.get(owner, *id).await?;
                found.extend(letter.filter(|l| filter.fits(l)).map(|l| (owner, l)));
            }
            match found.as_slice() {
                [(owner, letter)] => self.act(owner, letter).await?,
                [] => self.fail(&format!("{id}: there is no such dead letter")),
                several => {
                    let owners: Vec<_> = several.iter().map(|(o, _)| escape(o)).collect();
                    let owners = owners.join(", ");
                    self.fail(&format!(
                        "{id}: {owners} have letters of this ID: add --subscriber"
                    ));
                }
            }
        }
        Ok(())
    }

    async fn act(&mut self, owner: &str, letter: &Letter) -> Result<(), CommandError> {
        let id = letter.id;
        if self.action == Action::Redrive && !self.has_reader(owner) {
            let owner = escape(owner);
            self.fail(&format!(
                "{owner} {id}: routing.yaml has no {owner}: nobody would read it"
            ));
            return Ok(());
        }
        if let Some(pace) = &mut self.pace {
            pace.tick().await;
        }
        let moved = match self.action {
            _ if self.dry_run => {
                let event_type = letter.event_type.as_deref().unwrap_or("-");
                let (owner, event_type) = (escape(owner), escape(event_type));
                let reason = escape(&letter.reason);
                writeln!(stdout(), "{owner} {id} {event_type} {reason}")?;
                true
            }
            Action::Discard => self.letters.discard(owner, id).await?,
            Action::Redrive => match self.letters.redrive(owner, letter).await {
                Err(foreign @ RedriveError::Foreign { .. }) => {
                    self.fail(&escape(&foreign.to_string()));
                    return Ok(());
                }
                moved => moved?,
            },
        };
        if moved {
            self.done += 1;
        } else {
            self.fail(&format!(
                "{} {id}: somebody else has taken it just now",
                escape(owner)
            ));
        }
        let done = self.action.done(self.dry_run);
        self.bar.set_message(format!("{done} {}", self.done));
        self.bar.tick();
        Ok(())
    }

    fn has_reader(&self, owner: &str) -> bool {
        owner == crate::fleet::ROUTER || self.session.config.routing.subscriber(owner).is_some()
    }

    fn fail(&mut self, line: &str) {
        self.failed += 1;
        self.bar.suspend(|| eprintln!("{line}"));
    }
}
