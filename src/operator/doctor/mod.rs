//! `streamfleet doctor`: what is wrong or will be, how one sees it, and what to do.

mod facts;
mod memory;
mod model;
mod proof;

use std::io::{Write, stdout};
use std::time::Duration;

use serde::Serialize;

use self::model::{Weight, examine};
use super::answer::{Output, answer};
use super::text::{Paint, Tone, count, escape};
use super::{CommandError, Session};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;

/// Examine the fleet: the server and its settings, groups, workers, streams, and what is owed.
///
/// Each finding comes with its proof, a redis-cli line that shows it and changes nothing, and with
/// its fix. Exits with 1 if there is anything graver than a note.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// How long something may be owed, or wait to be read, before it is a finding.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = super::duration)]
    patience: Duration,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Something that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Weight,
    /// What it is about: `server`, `stream order-events`, …
    about: String,
    /// What is the case.
    what: String,
    /// What to type to see it.
    proof: String,
    /// What to do about it.
    fix: String,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let facts = facts::gather(&session, args.patience).await?;
    let mut found = examine(&facts);
    // What matters most first; within that as it was looked at.
    found.sort_by_key(|finding| finding.severity);
    match args.output {
        Output::Table => stdout().write_all(render(&found, Paint::stdout()).as_bytes())?,
        output => answer(output, "findings", &found)?,
    }
    let grave = found.iter().any(|finding| finding.severity < Weight::Note);
    Ok(match grave {
        true => Exit::Failure,
        false => Exit::Clean,
    })
}

fn render(found: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in found {
        let tone = match finding.severity {
            Weight::Error => Tone::Alarm,
            Weight::Warning => Tone::Notice,
            Weight::Note => Tone::Quiet,
        };
        let first = format!(
            "{}: {}: {}",
            finding.severity,
            escape(&finding.about),
            escape(&finding.what)
        );
        text += &format!(
            "{}\n  proof: {}\n  fix:   {}\n",
            paint.tone(&first, tone),
            escape(&finding.proof),
            escape(&finding.fix)
        );
    }
    let of = |weight| found.iter().filter(|f| f.severity == weight).count() as u64;
    let counts = [
        (of(Weight::Error), "error"),
        (of(Weight::Warning), "warning"),
        (of(Weight::Note), "note"),
    ];
    let counts: Vec<_> = counts.into_iter().filter(|(n, _)| *n > 0).collect();
    let counts: Vec<_> = counts.iter().map(|(n, what)| count(*n, what)).collect();
    let last = match counts.is_empty() {
        true => "nothing found".to_owned(),
        false => counts.join(", "),
    };
    text + &last + "\n"
}
