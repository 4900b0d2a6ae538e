//! `streamfleet publish`: one event from arguments, or many from lines of JSON.

use std::fs::File;
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::names::meant;
use super::ndjson::{Line, complete, read_lines};
use super::text::escape;
use super::{CommandError, Session};
use crate::admission::{Refusal, Rejection, admit};
use crate::event_type::EventType;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::publisher::Publisher;
use crate::store::{StoreError, retry_until};

/// How long a Redis that went away is waited for before the rest is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publish events.
///
/// One event: streamfleet publish User.Created --data '{"user_id": "u1", …}'
///
/// Many: streamfleet publish --file events.ndjson, or lines of JSON on standard input. Where a
/// line has no event_id, timestamp or correlation_id, it gets one. Events are checked as the
/// router would check them; one that is refused is reported and does not stop the others.
/// Exits with 1 if any was refused.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The type of a single event; `-` reads lines from standard input.
    event_type: Option<String>,
    /// What happened, as JSON; @file reads it from a file.
    #[arg(long, value_name = "JSON", requires = "event_type")]
    data: Option<String>,
    /// What the event is about.
    #[arg(long, requires = "event_type")]
    key: Option<String>,
    /// The business flow that it belongs to; a new one if absent.
    #[arg(long, value_name = "UUID", requires = "event_type")]
    correlation_id: Option<Uuid>,
    /// Its identity; a new one if absent. Publishing twice with the same one is harmless.
    #[arg(long, value_name = "UUID", requires = "event_type")]
    event_id: Option<Uuid>,
    /// When it happened, RFC 3339; now if absent.
    #[arg(long, value_name = "TIME", requires = "event_type")]
    timestamp: Option<Timestamp>,
    /// The major version of its schema. [default: 1]
    #[arg(long, value_name = "N", requires = "event_type", value_parser = clap::value_parser!(u32).range(1..))]
    schema_version: Option<u32>,
    /// A file with one event per line; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "event_type")]
    file: Option<PathBuf>,
    /// Send events as they are, unchecked and with nothing filled in: the router decides.
    #[arg(long)]
    no_validate: bool,
}

/// Where events come from.
enum Source {
    /// One, built from arguments.
    One(EventType, String),
    File(PathBuf),
    Stdin,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let source = args.source();
    let session = Session::open(&args.common).await?;
    let mut door = Door {
        publisher: Publisher::new(session.link.clone(), &session.keys),
        validate: !args.no_validate,
        bar: ProgressBar::hidden(),
        published: 0,
        refused: 0,
        session,
    };
    let (name, input, size): (_, Box<dyn Read + Send>, _) = match source {
        Source::One(event_type, data) => return args.one(door, &event_type, &data).await,
        Source::Stdin => ("stdin".to_owned(), Box::new(stdin()), None),
        Source::File(path) => {
            let open = || -> std::io::Result<(File, u64)> {
                let file = File::open(&path)?;
                let size = file.metadata()?.len();
                Ok((file, size))
            };
            let (file, size) = open().map_err(|cause| failed(&path, cause))?;
            (path.display().to_string(), Box::new(file), Some(size))
        }
    };
    door.bar = progress(size);
    let outcome = door.many(&name, input).await;
    door.bar.finish_and_clear();
    writeln!(
        stdout(),
        "published {}, refused {}",
        door.published,
        door.refused
    )?;
    let all = outcome?;
    Ok(if all && door.refused == 0 {
        Exit::Clean
    } else {
        Exit::Failure
    })
}

impl Args {
    fn source(&self) -> Source {
        let usage =
            |kind, message: &str| -> ! { clap::Error::raw(kind, format!("{message}\n")).exit() };
        // The parser does not ask for an event type once there is a --file, which excludes one.
        if self.event_type.as_deref().is_none_or(|name| name == "-") && self.describes_one() {
            usage(
                ErrorKind::ArgumentConflict,
                "lines are whole events: data, key, IDs, time and version of each are in its line",
            );
        }
        match (self.event_type.as_deref(), &self.file) {
            (Some("-"), _) => Source::Stdin,
            (None, Some(path)) if path.as_os_str() == "-" => Source::Stdin,
            (None, Some(path)) => Source::File(path.clone()),
            (None, None) if stdin().is_terminal() => usage(
                ErrorKind::MissingRequiredArgument,
                "nothing to publish: name an event type and --data, a --file, or pipe lines of JSON in",
            ),
            (None, None) => Source::Stdin,
            (Some(name), _) => match (EventType::parse(name), &self.data) {
                (Ok(event_type), Some(data)) => Source::One(event_type, data.clone()),
                (Ok(_), None) => usage(
                    ErrorKind::MissingRequiredArgument,
                    "an event needs --data '{…}', or --data @file",
                ),
                (Err(error), _) => usage(
                    ErrorKind::InvalidValue,
                    &format!("{:?} is not an event type: {error}", escape(name)),
                ),
            },
        }
    }

    /// Whether there is an argument that only a single event has a use for.
    fn describes_one(&self) -> bool {
        self.data.is_some()
            || self.key.is_some()
            || self.correlation_id.is_some()
            || self.event_id.is_some()
            || self.timestamp.is_some()
            || self.schema_version.is_some()
    }

    async fn one(
        &self,
        door: Door,
        event_type: &EventType,
        data: &str,
    ) -> Result<Exit, CommandError> {
        let text = match data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).map_err(|e| failed(Path::new(path), e))?,
            None => data.to_owned(),
        };
        // Text that is no single JSON value could smuggle members into the envelope.
        let data: Box<RawValue> = serde_json::from_str(&text)
            .map_err(|e| CommandError::Refused(format!("--data is not JSON: {e}")))?;
        let id = self.event_id.unwrap_or_else(Uuid::now_v7);
        let flow = self.correlation_id.unwrap_or_else(Uuid::new_v4);
        let time = self.timestamp.unwrap_or_else(Timestamp::now);
        let key = match &self.key {
            Some(key) => format!("\"key\":{},", serde_json::to_string(key)?),
            None => String::new(),
        };
        let event = format!(
            r#"{{"event_id":"{id}","event_type":"{event_type}","version":"{}","timestamp":"{time}","correlation_id":"{flow}",{key}"data":{}}}"#,
            self.schema_version.unwrap_or(1),
            data.get(),
        );
        if let Err(rejection) = door.admit(event.as_bytes()) {
            door.report("refused", &rejection);
            return Ok(Exit::Failure);
        }
        door.send(vec![event.into_bytes()]).await?;
        writeln!(stdout(), "published {event_type} {id}")?;
        Ok(Exit::Clean)
    }
}

fn failed(path: &Path, cause: std::io::Error) -> CommandError {
    CommandError::File {
        path: path.to_owned(),
        cause,
    }
}

fn progress(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:32} {percent:>3}%  {msg}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Checks and sends.
struct Door {
    session: Session,
    publisher: Publisher,
    validate: bool,
    bar: ProgressBar,
    published: u64,
    refused: u64,
}

impl Door {
    /// Publishes all lines; false if it was told to stop before the last.
    async fn many(
        &mut self,
        name: &str,
        input: Box<dyn Read + Send>,
    ) -> Result<bool, CommandError> {
        let mut batches = read_lines(input, self.session.config.routing.limits().event_bytes);
        let stop = interrupted();
        tokio::pin!(stop);
        loop {
            let batch = tokio::select! {
                biased;
                () = &mut stop => {
                    self.say("stopped: what was published so far stays published");
                    return Ok(false);
                }
                batch = batches.recv() => batch,
            };
            let Some(lines) = batch else { return Ok(true) };
            let lines = lines.map_err(|cause| failed(Path::new(name), cause))?;
            let (first, last) = (
                lines.first().map(|l| l.number),
                lines.last().map(|l| l.number),
            );
            let end = lines.last().map_or(0, |line| line.end);
            let events = self.accepted(name, lines);
            let count = events.len() as u64;
            if let Err(error) = self.send(events).await {
                let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
                self.say(&format!(
                    "{name}: lines {first} to {last} were not answered and may or may not be published; \
                     nothing after them is. If the lines have event_ids, publishing them again is harmless"
                ));
                return Err(error.into());
            }
            self.published += count;
            self.bar.set_position(end);
            self.bar.set_message(format!(
                "{} published, {} refused",
                self.published, self.refused
            ));
        }
    }

    /// The events that may pass; the others are reported.
    fn accepted(&mut self, name: &str, lines: Vec<Line>) -> Vec<Vec<u8>> {
        let mut events = Vec::with_capacity(lines.len());
        for line in lines {
            let decided = match line.text {
                None => Err(self.too_long()),
                Some(text) if self.validate => {
                    let event = complete(&text).into_owned();
                    self.admit(&event).map(|()| event)
                }
                Some(text) => Ok(text),
            };
            match decided {
                Ok(event) => events.push(event),
                Err(rejection) => {
                    self.refused += 1;
                    self.report(&format!("{name}:{}", line.number), &rejection);
                }
            }
        }
        events
    }

    fn too_long(&self) -> Rejection {
        let max = self.session.config.routing.limits().event_bytes;
        Rejection {
            code: Refusal::TooLarge,
            error: format!("longer than limits.event_bytes allows: {max}"),
            details: Vec::new(),
            event_id: None,
            event_type: None,
            published_by: None,
        }
    }

    fn admit(&self, event: &[u8]) -> Result<(), Rejection> {
        if !self.validate {
            return Ok(());
        }
        admit(event, 0, &self.session.config).map(drop)
    }

    /// Sends, again if need be: the events keep their IDs, so that a repetition is dropped.
    async fn send(&self, events: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let give_up = |error: &StoreError| Exit::from(error) != Exit::Unreachable;
        let deadline = Some(Instant::now() + PATIENCE);
        retry_until(deadline, give_up, |_| self.publisher.publish(&events)).await?;
        Ok(())
    }

    fn report(&self, place: &str, rejection: &Rejection) {
        let code = rejection.code;
        if rejection.details.is_empty() {
            let meant = self.meant(rejection);
            self.say(&format!(
                "{place}: {code}: {}{meant}",
                escape(&rejection.error)
            ));
        }
        for detail in &rejection.details {
            let pointer = if detail.pointer.is_empty() {
                "(the event)"
            } else {
                &detail.pointer
            };
            self.say(&format!(
                "{place}: {code}: {} {}",
                escape(pointer),
                escape(&detail.message)
            ));
        }
    }

    /// The event type that was probably meant, where it is one that nobody knows.
    fn meant(&self, rejection: &Rejection) -> String {
        let name = rejection.event_type.as_deref();
        let Some(name) = name.filter(|_| rejection.code == Refusal::UnknownType) else {
            return String::new();
        };
        let known = self.session.config.schemas.event_types();
        let known: Vec<_> = known.map(EventType::as_str).collect();
        meant(name, &known).map_or_else(String::new, |guess| format!("; did you mean {guess}?"))
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}
