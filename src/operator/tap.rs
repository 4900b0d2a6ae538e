//! `streamfleet tap`: events as they go by.

use std::io::{Write, stdout};
use std::num::NonZeroU64;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{Items, Output, one_line};
use super::names::meant;
use super::text::{Paint, Tone, escape, shorten};
use super::{CommandError, Session};
use crate::event_type::{EventType, Pattern};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::routing::Redact;
use crate::status::Tap;
use crate::store::{Entry, StreamField};
use crate::time;

/// Follow events as the router appends them to the domain streams: time, type, ID, source, stream
/// and correlation, one line each, until Ctrl-C.
///
/// It reads without a group: nothing is claimed, and no one waits for it. It asks Redis at most 50
/// times a second for at most 100 events of each stream; where more goes by, it falls behind.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Only events of this type, or of a quoted pattern such as 'Order.**'.
    #[arg(value_parser = Pattern::parse)]
    pattern: Option<Pattern>,
    /// Begin with what was appended since then: an RFC 3339 time, or how long ago, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = super::filter::moment)]
    since: Option<Timestamp>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = super::at_least_one::<NonZeroU64>)]
    count: Option<NonZeroU64>,
    /// Show the data of events as well. They may hold what is nobody's business.
    #[arg(long)]
    data: bool,
    /// Show also what `redact` in routing.yaml hides.
    #[arg(long)]
    unredacted: bool,
    /// How to answer; JSON is one document, complete when it ends.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is read of an event.
#[derive(Default, Deserialize)]
struct Envelope<'a> {
    source: Option<String>,
    correlation_id: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// One event, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    at: Timestamp,
    entry: String,
    event_type: &'a str,
    event_id: &'a str,
    source: Option<&'a str>,
    stream: &'a str,
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let stop = interrupted();
    tokio::pin!(stop);
    let session = Session::open(&args.common).await?;
    let (config, paint) = (&session.config, Paint::stdout());
    if let Some(pattern) = &args.pattern {
        let known: Vec<_> = config
            .schemas
            .event_types()
            .map(EventType::as_str)
            .collect();
        let fits = config
            .schemas
            .event_types()
            .any(|known| pattern.matches(known));
        if !fits {
            let guess = meant(pattern.as_str(), &known);
            let guess = guess.map_or(String::new(), |guess| format!(": did you mean {guess}?"));
            eprintln!("streamfleet: no known event type fits {pattern}{guess}");
        }
    }
    let streams: Vec<_> = config.routing.streams().map(|s| &*s.name).collect();
    let mut tap = Tap::open(&session.link, &session.keys, &streams, args.since).await?;
    let mut items = match args.output {
        Output::Table => None,
        output => Some(Items::begin(stdout(), output, "events")?),
    };
    let mut left = args.count.map_or(u64::MAX, NonZeroU64::get);
    while left > 0 {
        let came = tokio::select! {
            biased;
            () = &mut stop => break,
            came = tap.read() => came?,
        };
        // Nobody would notice before the next event.
        if came.is_empty() && reader_is_gone() {
            return Ok(Exit::Clean);
        }
        for (key, entry) in &came {
            if left > 0 && fits(&args, entry) {
                left -= 1;
                let stream = session.keys.strip(key);
                tell(
                    &args,
                    config.routing.redact(),
                    stream,
                    entry,
                    items.as_mut(),
                    paint,
                )?;
            }
        }
    }
    if let Some(items) = items {
        items.end()?;
    }
    Ok(Exit::Clean)
}

fn fits(args: &Args, entry: &Entry) -> bool {
    let event_type = entry.fields.text(StreamField::TYPE).map(EventType::parse);
    args.pattern.as_ref().is_none_or(
        |pattern| matches!(event_type, Some(Ok(event_type)) if pattern.matches(&event_type)),
    )
}

fn tell<W: Write>(
    args: &Args,
    redact: &Redact,
    stream: &str,
    entry: &Entry,
    items: Option<&mut Items<W>>,
    paint: Paint,
) -> Result<(), CommandError> {
    let event = entry.fields.get(StreamField::EVENT).unwrap_or_default();
    let hidden = match args.unredacted {
        true => None,
        false => redact.look(entry.fields.text(StreamField::TYPE), event),
    };
    let event = hidden.as_ref().map_or(event, |told| told.event.as_bytes());
    let envelope: Envelope<'_> = serde_json::from_slice(event).unwrap_or_default();
    let text = |name| entry.fields.text(name).unwrap_or("?");
    let shown = Shown {
        at: time::from_ms(entry.id.ms).unwrap_or_default(),
        entry: entry.id.to_string(),
        event_type: text(StreamField::TYPE),
        event_id: text(StreamField::ID),
        source: envelope.source.as_deref(),
        stream,
        correlation_id: envelope.correlation_id.as_deref(),
        data: envelope.data.filter(|_| args.data),
    };
    match items {
        Some(items) => items.push(&shown),
        None => Ok(writeln!(stdout(), "{}", line(&shown, paint)?)?),
    }
}

/// Columns of a width that most fit into: a table cannot be made of what is still to come.
fn line(shown: &Shown<'_>, paint: Paint) -> Result<String, CommandError> {
    let or_dash = |text: Option<&str>| text.map_or("-".to_owned(), |text| shorten(text, 40));
    let hue = shown.stream.bytes().map(usize::from).sum();
    let mut line = format!(
        "{}  {}  {}  {:<20}  {}  {}",
        paint.tone(&format!("{:.3}", shown.at), Tone::Quiet),
        paint.tone(&format!("{:<26}", escape(shown.event_type)), Tone::Strong),
        escape(shown.event_id),
        or_dash(shown.source),
        paint.nth(&format!("{:<16}", escape(shown.stream)), hue),
        or_dash(shown.correlation_id),
    );
    if let Some(data) = shown.data {
        line += &format!("  {}", one_line(&data)?);
    }
    Ok(line)
}

/// Whether whoever read our answer has closed the pipe.
fn reader_is_gone() -> bool {
    let out = stdout();
    let mut fds = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = poll(&mut fds, Some(&now));
    polled.is_ok_and(|n| n > 0) && fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_and_whence_and_no_data_unless_asked() {
        let data: &RawValue = serde_json::from_str("{\"a\":\n1}").unwrap();
        let mut shown = Shown {
            at: time::from_ms(1_767_607_200_007).unwrap(),
            entry: "1-0".into(),
            event_type: "Order.Created",
            event_id: "e1",
            source: None,
            stream: "order-events",
            correlation_id: Some("c\u{1b}1"),
            data: None,
        };
        let words = |shown: &Shown<'_>| {
            let line = line(shown, Paint::none()).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let plain = "2026-01-05T10:00:00.007Z Order.Created e1 - order-events c\\u{1b}1";
        assert_eq!(words(&shown), plain);
        shown.data = Some(data);
        assert_eq!(words(&shown), format!("{plain} {{\"a\": 1}}"));
    }
}
