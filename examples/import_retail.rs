//! Turns a file of retail invoices (the format of the UCI Online Retail set) into the events of the
//! shop and publishes them: `cargo run --release --example import_retail -- online-retail.csv`.
//!
//! The whole file is read and checked before the first event is published. Importing it again is
//! safe: the events have the same IDs, and the router drops them while it remembers those.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use streamfleet::process::args::{RedisArgs, parse};
use streamfleet::process::core_dump;
use streamfleet::publisher::Publisher;

#[path = "import_retail/data.rs"]
mod data;
#[path = "import_retail/events.rs"]
mod events;
#[path = "import_retail/rows.rs"]
mod rows;
use events::Published;

/// How many events are handed to Redis at a time.
const BATCH: usize = 500;

/// Publish a file of retail invoices as events of the shop.
#[derive(Parser)]
struct Args {
    /// The file: semicolon-separated, decimal commas, day/month/year times of London.
    file: PathBuf,
    #[command(flatten)]
    redis: RedisArgs,
    /// Prefix of every key, if the fleet runs under one.
    #[arg(long, env = "STREAMFLEET_NAMESPACE")]
    namespace: Option<String>,
    /// Units received of each article when it is first seen; few provoke shortages, 0 receives none.
    #[arg(long, default_value_t = 1_000_000)]
    stock: u32,
    /// Print the events, one JSON document per line, instead of publishing them.
    #[arg(long)]
    ndjson: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = parse();
    core_dump::forbid();
    let file = args.file.display().to_string();
    match run(&args).await {
        Ok(summary) => {
            eprintln!("{file}: {summary}");
            ExitCode::SUCCESS
        }
        // Whoever reads the events has seen enough.
        Err(ImportError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("cannot be read: {0}")]
    File(#[source] io::Error),
    #[error(transparent)]
    Rows(#[from] rows::ReadError),
    #[error(transparent)]
    Events(#[from] events::EventError),
    #[error("the events cannot be printed: {0}")]
    Print(#[source] io::Error),
    #[error(
        "{done} of {all} events are published, then: {cause}; run the import again, \
         what was published is recognised"
    )]
    Publish {
        done: usize,
        all: usize,
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

async fn run(args: &Args) -> Result<String, ImportError> {
    let bytes = std::fs::read(&args.file).map_err(ImportError::File)?;
    let events = events::events(&rows::read(&bytes)?, args.stock)?;
    let summary = summary(&events);
    if args.ndjson {
        print(&events).map_err(ImportError::Print)?;
    } else {
        publish(args, events).await?;
    }
    Ok(summary)
}

fn print(events: &[Published]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for event in events {
        out.write_all(&event.json)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

async fn publish(args: &Args, events: Vec<Published>) -> Result<(), ImportError> {
    let all = events.len();
    let failed = |done, cause| ImportError::Publish { done, all, cause };
    let publisher = Publisher::connect(args.redis.access(), args.namespace.as_deref())
        .await
        .map_err(|error| failed(0, error.into()))?;
    let documents: Vec<Vec<u8>> = events.into_iter().map(|event| event.json).collect();
    let mut done = 0;
    for batch in documents.chunks(BATCH) {
        publisher
            .publish(batch)
            .await
            .map_err(|error| failed(done, error.into()))?;
        done += batch.len();
    }
    Ok(())
}

/// How many events of each type there are.
fn summary(events: &[Published]) -> String {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event.event_type).or_insert(0_usize) += 1;
    }
    let mut summary = format!("{} events", events.len());
    for (event_type, count) in counts {
        // Writing to a string cannot fail.
        let _ = write!(summary, ", {count} {event_type}");
    }
    summary
}
