//! `streamfleet audit`: what came to the door, and what became of it.

use std::io::{Write, stdout};
use std::num::NonZeroU32;

use serde::Serialize;
use uuid::Uuid;

use super::answer::{Output, answer};
use super::text::{Paint, Tone, escape, shorten, table};
use super::{CommandError, Session};
use crate::audit::{AuditFilter, Record, newest};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;

/// Show what came to the door and what became of it, the newest first. routing.yaml switches the
/// audit on: `audit: { maxlen: 100000 }`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Only of this event.
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,
    /// Only of events that this published.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "50", value_parser = super::at_least_one::<NonZeroU32>)]
    limit: NonZeroU32,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A record for programs.
#[derive(Serialize)]
struct Shown<'a> {
    entry: String,
    id: Option<&'a str>,
    #[serde(rename = "type")]
    event_type: Option<&'a str>,
    source: Option<&'a str>,
    at: &'a str,
    outcome: &'a str,
    stream: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(record: &'a Record) -> Self {
        Self {
            entry: record.entry.to_string(),
            id: record.event_id.as_deref(),
            event_type: record.event_type.as_deref(),
            source: record.source.as_deref(),
            at: &record.at,
            outcome: &record.outcome,
            stream: record.stream.as_deref(),
        }
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let filter = AuditFilter {
        event_id: args.event.map(|id| id.to_string()),
        source: args.source,
    };
    let limit = usize::try_from(args.limit.get()).unwrap_or(usize::MAX);
    let (records, more) = newest(&session.link, &session.keys, &filter, limit).await?;
    if session.config.routing.audit().is_none() {
        eprintln!(
            "the audit is off: nothing is recorded. Switch it on in routing.yaml: `audit: {{ maxlen: 100000 }}`"
        );
    }
    let header = ["AT", "OUTCOME", "TYPE", "SOURCE", "STREAM", "EVENT"];
    let (mut rows, mut tones) = (table(&header), Vec::new());
    for record in &records {
        let or_dash = |text: &Option<String>, max| match text {
            Some(text) => shorten(text, max),
            None => "-".to_owned(),
        };
        rows.add_row([
            escape(&record.at),
            shorten(&record.outcome, 40),
            or_dash(&record.event_type, 40),
            or_dash(&record.source, 40),
            or_dash(&record.stream, 64),
            or_dash(&record.event_id, 40),
        ]);
        let refused = record.outcome.starts_with("refused");
        tones.push(refused.then_some(Tone::Notice));
    }
    match (args.output, records.len()) {
        (Output::Table, 0) => writeln!(stdout(), "no records")?,
        (Output::Table, _) => {
            stdout().write_all(Paint::stdout().table(&rows, &tones).as_bytes())?;
        }
        (output, _) => answer(output, "audit-records", records.iter().map(Shown::new))?,
    }
    if more {
        eprintln!("there are more: use --limit, or a filter");
    }
    Ok(Exit::Clean)
}
