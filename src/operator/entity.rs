//! `streamfleet entity` and `streamfleet saga`: the event store, and the flows that are under way.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{Output, answer};
use super::text::{Paint, Tone, count, escape, escape_json, human, table};
use super::{CommandError, Session};
use crate::entities::{EntitySize, OpenSaga, entities, history, open_sagas, store_use};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::worker::StoredEvent;

/// The event store: which entities there are, and what happened to them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Use(UseArgs),
}

/// Show how often live workers read and append to histories, and how long that takes.
#[derive(Debug, clap::Args)]
struct UseArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// List what there is: without ENTITY each kind, with it each entity of that kind.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// A kind of entity, such as Order.
    entity: Option<String>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Show the history of one entity.
#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The kind of entity, such as Order.
    entity: String,
    /// Which one.
    id: String,
    /// Show also what `redact` in routing.yaml hides.
    #[arg(long)]
    unredacted: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Business flows of several services: which are under way, and what happened in one.
#[derive(Debug, clap::Args)]
pub(super) struct SagaArgs {
    #[command(subcommand)]
    command: SagaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SagaCommand {
    List(SagaListArgs),
    Show(ShowArgs),
}

/// List the sagas that are not over: where they stand, since when, and when they get impatient.
#[derive(Debug, clap::Args)]
struct SagaListArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// A kind of saga, such as Order.
    saga: Option<String>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args, false).await,
        Command::Use(args) => show_use(args).await,
    }
}

pub(super) async fn run_saga(args: SagaArgs) -> Result<Exit, CommandError> {
    match args.command {
        SagaCommand::List(args) => list_sagas(args).await,
        SagaCommand::Show(args) => show(args, true).await,
    }
}

/// What the entities of one kind take together.
#[derive(Debug, Default, Serialize)]
struct Kind {
    entity: String,
    entities: u64,
    events: u64,
    bytes: u64,
}

async fn list(args: ListArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let found = entities(&session.link, &session.keys, args.entity.as_deref()).await?;
    let text = match (args.output, &args.entity) {
        (Output::Table, Some(kind)) if found.is_empty() => {
            format!("no entities of the kind {}\n", escape(kind))
        }
        (Output::Table, None) if found.is_empty() => "no entities\n".to_owned(),
        (Output::Table, Some(_)) => {
            let mut rows = table(&["ENTITY", "ID", ">EVENTS", ">BYTES"]);
            for one in &found {
                let (entity, id) = (escape(&one.entity), escape(&one.id));
                rows.add_row([entity, id, one.events.to_string(), one.bytes.to_string()]);
            }
            Paint::stdout().table(&rows, &[])
        }
        (Output::Table, None) => {
            let mut rows = table(&["ENTITY", ">ENTITIES", ">EVENTS", ">BYTES"]);
            for kind in kinds(&found) {
                let numbers = [kind.entities, kind.events, kind.bytes].map(|n| n.to_string());
                rows.add_row([escape(&kind.entity)].into_iter().chain(numbers));
            }
            Paint::stdout().table(&rows, &[])
        }
        (output, Some(_)) => {
            answer(output, "entities", &found)?;
            return Ok(Exit::Clean);
        }
        (output, None) => {
            answer(output, "entity-kinds", kinds(&found))?;
            return Ok(Exit::Clean);
        }
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Clean)
}

async fn show_use(args: UseArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let found = store_use(&session.link, &session.keys).await?;
    if args.output != Output::Table {
        answer(args.output, "event-store-use", &found)?;
        return Ok(Exit::Clean);
    }
    if found.is_empty() {
        writeln!(
            stdout(),
            "no live worker has asked the event store for anything"
        )?;
        return Ok(Exit::Clean);
    }
    let header = [
        "SUBSCRIBER",
        "WORKER",
        ">LOADS",
        ">MEAN",
        ">MAX",
        ">APPENDS",
        ">MEAN",
        ">MAX",
    ];
    let mut rows = table(&header);
    for one in &found {
        let figures = [one.loads, one.appends].into_iter().flat_map(|took| {
            let ms = |us: u64| format!("{}.{:03} ms", us / 1_000, us % 1_000);
            [took.count.to_string(), ms(took.mean_us), ms(took.max_us)]
        });
        rows.add_row(
            [escape(&one.subscriber), escape(&one.worker)]
                .into_iter()
                .chain(figures),
        );
    }
    stdout().write_all(Paint::stdout().table(&rows, &[]).as_bytes())?;
    Ok(Exit::Clean)
}

fn kinds(found: &[EntitySize]) -> Vec<Kind> {
    let mut kinds = BTreeMap::<&str, Kind>::new();
    for one in found {
        let kind = kinds.entry(&one.entity).or_default();
        kind.entity.clone_from(&one.entity);
        kind.entities += 1;
        kind.events += one.events;
        kind.bytes += one.bytes;
    }
    kinds.into_values().collect()
}

/// An event of a history, as programs get it.
#[derive(Serialize)]
struct Told<'a> {
    version: u64,
    #[serde(rename = "type")]
    event_type: &'a str,
    at: Timestamp,
    data: &'a RawValue,
}

async fn show(args: ShowArgs, saga: bool) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let mut events = history(&session.link, &session.keys, &args.entity, &args.id).await?;
    if events.is_empty() {
        return Err(CommandError::Refused(format!(
            "there is no {} {}: see streamfleet entity list {0}",
            escape(&args.entity),
            escape(&args.id)
        )));
    }
    let redact = session.config.routing.redact();
    for event in events.iter_mut().filter(|_| !args.unredacted) {
        if let Some(shown) = redact.stored(&args.entity, &event.data) {
            event.data = RawValue::from_string(shown)?;
        }
    }
    let open = match saga {
        true => open_sagas(&session.link, &session.keys, Some(&args.entity)).await?,
        false => Vec::new(),
    };
    if args.output != Output::Table {
        let told = events.iter().map(|event| Told {
            version: event.version,
            event_type: &event.event_type,
            at: event.at,
            data: &event.data,
        });
        answer(args.output, "stored-events", told)?;
        return Ok(Exit::Clean);
    }
    let mut out = stdout().lock();
    if saga {
        let found = open.iter().find(|open| open.id == args.id);
        out.write_all(headline(found, &events).as_bytes())?;
    }
    let mut rows = table(&[">VERSION", "AT", "EVENT", "DATA"]);
    for event in &events {
        rows.add_row([
            event.version.to_string(),
            event.at.to_string(),
            escape(&event.event_type),
            escape_json(event.data.get()),
        ]);
    }
    out.write_all(Paint::stdout().table(&rows, &[]).as_bytes())?;
    Ok(Exit::Clean)
}

/// Where a saga stands, in a line.
fn headline(open: Option<&OpenSaga>, events: &[StoredEvent]) -> String {
    match open {
        Some(OpenSaga { standing, .. }) => {
            let status = escape(&standing.status);
            let deadline = standing.deadline.map(due).unwrap_or_default();
            format!("{status}{deadline}\n")
        }
        None => format!("over, after {}\n", count(events.len() as u64, "event")),
    }
}

fn due(at: Timestamp) -> String {
    match Duration::try_from(at.duration_since(Timestamp::now())) {
        Ok(left) => format!(", its deadline in {}", human(left)),
        Err(_) => ", its deadline passed".to_owned(),
    }
}

async fn list_sagas(args: SagaListArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let open = open_sagas(&session.link, &session.keys, args.saga.as_deref()).await?;
    if args.output != Output::Table {
        answer(args.output, "sagas", &open)?;
        return Ok(Exit::Clean);
    }
    if open.is_empty() {
        let of = args
            .saga
            .map(|saga| format!(" of the kind {}", escape(&saga)));
        writeln!(stdout(), "no sagas{} are under way", of.unwrap_or_default())?;
        return Ok(Exit::Clean);
    }
    let now = Timestamp::now();
    let mut rows = table(&["SAGA", "ID", "STATUS", "SINCE", "DEADLINE"]);
    let mut tones = Vec::new();
    for OpenSaga { saga, id, standing } in &open {
        let deadline = standing.deadline;
        rows.add_row([
            escape(saga),
            escape(id),
            escape(&standing.status),
            standing.since.to_string(),
            deadline.map_or("-".to_owned(), |at| at.to_string()),
        ]);
        tones.push(deadline.is_some_and(|at| at < now).then_some(Tone::Notice));
    }
    stdout().write_all(Paint::stdout().table(&rows, &tones).as_bytes())?;
    Ok(Exit::Clean)
}
