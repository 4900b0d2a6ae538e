//! `streamfleet config`: what routing.yaml means.

use std::io::{Write, stdout};
use std::time::Duration;

use serde::Serialize;

use super::CommandError;
use super::answer::{Output, answer};
use super::text::{Paint, Tone, escape, human, table};
use crate::event_type::EventType;
use crate::process::args::ConfigArgs;
use crate::process::exit::Exit;
use crate::routing::{self, At, Because, Config, Explanation, Receiver};

/// Questions about routing.yaml.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Explain(ExplainArgs),
}

/// Say what becomes of an event type: which stream keeps it, who receives it and why, and which
/// line says so.
///
/// Asks no Redis. Exits with 1 if the type goes to nobody; then it says what is missing.
#[derive(Debug, clap::Args)]
struct ExplainArgs {
    #[command(flatten)]
    file: ConfigArgs,
    /// The event type, such as Order.Created.
    #[arg(value_parser = EventType::parse)]
    event_type: EventType,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// For programs: what holds, beside where it is said.
#[derive(Serialize)]
struct Shown<'a> {
    file: String,
    #[serde(flatten)]
    explanation: &'a Explanation,
    values: Vec<Values<'a>>,
}

#[derive(Serialize)]
struct Values<'a> {
    subscriber: &'a str,
    max_attempts: u32,
    backoff_initial_ms: u64,
    backoff_multiplier: f64,
    backoff_max_ms: u64,
    timeout_ms: u64,
    lease_ms: u64,
    concurrency: usize,
}

impl<'a> Values<'a> {
    fn of(receiver: &'a Receiver, config: &Config) -> Option<Self> {
        let settings = config.routing.subscriber(&receiver.name)?;
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Some(Self {
            subscriber: &receiver.name,
            max_attempts: settings.max_attempts,
            backoff_initial_ms: ms(settings.backoff.initial),
            backoff_multiplier: settings.backoff.multiplier,
            backoff_max_ms: ms(settings.backoff.max),
            timeout_ms: ms(settings.timeout),
            lease_ms: ms(settings.lease),
            concurrency: settings.concurrency,
        })
    }

    fn text(&self, setting: &str) -> String {
        let span = |ms| human(Duration::from_millis(ms));
        match setting {
            "max_attempts" => self.max_attempts.to_string(),
            "backoff.initial" => span(self.backoff_initial_ms),
            "backoff.multiplier" => self.backoff_multiplier.to_string(),
            "backoff.max" => span(self.backoff_max_ms),
            "timeout" => span(self.timeout_ms),
            "lease" => span(self.lease_ms),
            _ => self.concurrency.to_string(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<Exit, CommandError> {
    let Command::Explain(args) = &args.command;
    let config = args.file.load()?;
    let explanation = routing::explain(&config, &args.event_type)?;
    match args.output {
        Output::Table => {
            let text = render(&explanation, &config, Paint::stdout());
            stdout().write_all(text.as_bytes())?;
        }
        output => {
            let values = explanation.receivers.iter();
            let shown = Shown {
                file: config.path.display().to_string(),
                values: values.filter_map(|r| Values::of(r, &config)).collect(),
                explanation: &explanation,
            };
            answer(output, "explanation", [shown])?;
        }
    }
    Ok(match explanation.missing {
        None => Exit::Clean,
        Some(_) => Exit::Failure,
    })
}

fn render(explanation: &Explanation, config: &Config, paint: Paint) -> String {
    let file = escape(&config.path.display().to_string());
    let place = |at: &At| format!("{file}:{}:{}", at.line, at.column);
    let because = |b: &Because| format!("{}  \"{}\"", place(&b.at), escape(&b.pattern));
    let mut text = format!("type        {}\n", explanation.event_type);
    for (_, schema) in &explanation.schemas {
        text += &format!("schema      {}\n", escape(&schema.display().to_string()));
    }
    if let Some((stream, why)) = &explanation.stream {
        text += &format!("stream      {stream}  {}\n", because(why));
    }
    for receiver in &explanation.receivers {
        for (n, why) in receiver.because.iter().enumerate() {
            let name = if n == 0 {
                receiver.name.as_str()
            } else {
                "  and"
            };
            text += &format!("subscriber  {}  {}\n", escape(name), because(why));
        }
    }
    if let Some(missing) = &explanation.missing {
        text += &(paint.tone(&escape(missing), Tone::Alarm) + "\n");
    }
    for receiver in &explanation.receivers {
        let Some(values) = Values::of(receiver, config) else {
            continue;
        };
        text += &format!("\n{}\n", paint.tone(&escape(&receiver.name), Tone::Strong));
        let mut rows = table(&["SETTING", "VALUE", "FROM"]);
        for held in &receiver.settings {
            let from = match (&held.by, &held.at) {
                (Some(by), Some(at)) => format!("{}  {}", escape(by), place(at)),
                _ => "our default".to_owned(),
            };
            rows.add_row([held.setting.to_owned(), values.text(held.setting), from]);
        }
        text += &paint.table(&rows, &[]);
    }
    text
}
