//! `streamfleet status`: what is going on.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use jiff::Timestamp;

use super::answer::{Output, answer};
use super::configurations;
use super::text::{self, Paint, Tone, age, count, escape, table};
use super::{CommandError, Session};
use crate::fleet::INBOX;
use crate::fleet::control::BreakerState;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::routing::Config;
use crate::status::{Condition, GroupStatus, Snapshot, SubscriberStatus, collect, processes};
use crate::store::Keys;

/// Show the inbox, the streams, what each subscriber owes, and who is alive.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Show it again and again, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// How often, with --watch.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::duration, requires = "watch")]
    interval: Duration,
    /// How to answer; with --watch, JSON is one document each time.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let session = match Session::open(&args.common).await {
        Err(error @ CommandError::Config(_)) => {
            say_what_runs(&args.common).await;
            return Err(error);
        }
        session => session?,
    };
    let stop = interrupted();
    tokio::pin!(stop);
    loop {
        let taken = collect(&session.link, &session.keys, &session.config.routing).await;
        match taken {
            Ok(snapshot) => show(&snapshot, &args, &session.config.fingerprint())?,
            // Redis may come back while somebody watches.
            Err(error) if args.watch => eprintln!("streamfleet: {}", escape(&error.to_string())),
            Err(error) => return Err(error.into()),
        }
        if !args.watch {
            return Ok(Exit::Clean);
        }
        tokio::select! {
            () = &mut stop => return Ok(Exit::Clean),
            () = tokio::time::sleep(args.interval.max(Duration::from_millis(100))) => {}
        }
    }
}

/// The file at hand is bad, and may be so since a moment ago: what the processes made of it is known
/// all the same.
async fn say_what_runs(common: &CommonArgs) {
    let told = async {
        let keys = Keys::new(Config::namespace_of(&common.config.path)?.as_deref());
        let link = common.redis.open()?.link();
        Ok::<_, CommandError>(processes(&link, &keys).await?)
    };
    // What is wrong with the file is told in any case.
    if let Ok(processes) = told.await {
        for line in configurations::differences(&processes, Timestamp::now(), "") {
            eprintln!("{line}");
        }
    }
}

fn show(snapshot: &Snapshot, args: &Args, at_hand: &str) -> Result<(), CommandError> {
    if args.output != Output::Table {
        return answer(args.output, "status", [snapshot]);
    }
    let text = render(snapshot, at_hand, Paint::stdout());
    let mut out = stdout().lock();
    if args.watch && out.is_terminal() {
        out.write_all(b"\x1b[H\x1b[2J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn render(s: &Snapshot, at_hand: &str, paint: Paint) -> String {
    let (mut streams, mut tones) = (
        table(&["STREAM", ">ENTRIES", ">OLDEST", ">NEWEST"]),
        Vec::new(),
    );
    let router = &s.router;
    streams.add_row([
        "inbox".to_owned(),
        router.inbox.to_string(),
        age(router.oldest_ms),
        "-".into(),
    ]);
    tones.push((router.inbox > 0 && router.workers.is_empty()).then_some(Tone::Alarm));
    for stream in &s.streams {
        let row = [
            escape(&stream.name),
            stream.length.to_string(),
            age(stream.first_ms),
            age(stream.last_ms),
        ];
        streams.add_row(row);
        tones.push(None);
    }
    let mut text = paint.table(&streams, &tones) + "\n";

    let header = [
        "STREAM",
        "SUBSCRIBER",
        ">WAITING",
        ">OLDEST",
        ">IN FLIGHT",
        ">RETRYING",
        ">RELEASED",
        "GROUP",
    ];
    let (mut groups, mut tones) = (table(&header), Vec::new());
    for group in s.groups.iter().filter(|g| matters(g)) {
        let known = group.condition != Condition::Lost && group.condition != Condition::Absent;
        let number = |n: u64| if known { n.to_string() } else { "-".to_owned() };
        groups.add_row([
            escape(&group.stream),
            escape(&group.subscriber),
            if known {
                group.waiting.map_or("?".into(), |n| n.to_string())
            } else {
                "-".into()
            },
            age(group.oldest_waiting_ms),
            number(group.in_flight),
            number(group.retrying),
            number(group.released),
            condition(group).to_owned(),
        ]);
        tones.push(match group.condition {
            Condition::Lost => Some(Tone::Alarm),
            Condition::Absent
            | Condition::Unrouted
            | Condition::Retired
            | Condition::Shadow
            | Condition::Foreign => Some(Tone::Notice),
            Condition::Ok => (group.retrying > 0).then_some(Tone::Notice),
        });
    }
    text += &(paint.table(&groups, &tones) + "\n");

    let (mut names, mut tones) = (
        table(&["SUBSCRIBER", ">DEAD", ">LOST", "WORKERS"]),
        Vec::new(),
    );
    let workers = |workers: &[String]| match workers.is_empty() {
        true => "none".to_owned(),
        false => escape(&workers.join(" ")),
    };
    let tone = |dead: u64, lost: u64, idle: bool| match (lost > 0, dead > 0 || idle) {
        (true, _) => Some(Tone::Alarm),
        (_, true) => Some(Tone::Notice),
        _ => None,
    };
    names.add_row([
        "router".to_owned(),
        router.dead.to_string(),
        "-".into(),
        workers(&router.workers),
    ]);
    tones.push(tone(router.dead, 0, router.workers.is_empty()));
    for subscriber in &s.subscribers {
        names.add_row([
            escape(&subscriber.name),
            subscriber.dead.to_string(),
            subscriber.lost.to_string(),
            workers(&subscriber.workers),
        ]);
        let idle = subscriber.routed && subscriber.workers.is_empty();
        tones.push(tone(subscriber.dead, subscriber.lost, idle));
    }
    text += &(paint.table(&names, &tones) + "\n");
    for subscriber in &s.subscribers {
        for line in held_up(subscriber) {
            text += &(paint.tone(&line, Tone::Alarm) + "\n");
        }
    }
    for line in configurations::differences(&s.processes, s.at, at_hand) {
        text += &(paint.tone(&line, Tone::Alarm) + "\n");
    }
    if text
        .lines()
        .next_back()
        .is_some_and(|line| !line.is_empty())
    {
        text.push('\n');
    }
    let state = if s.drained {
        "drained: nothing is owed to anybody"
    } else {
        "working"
    };
    let mut counts = format!(
        "routed {}, refused {}, duplicates {}",
        router.routed, router.refused, router.duplicates
    );
    if router.scheduled > 0 {
        counts += &format!(", scheduled {}", router.scheduled);
    }
    let configuration = s
        .generation
        .map_or("none yet".to_owned(), |n| n.to_string());
    let last = format!(
        "{state}; {counts}; configuration {configuration}; Redis {}",
        s.server
    );
    text + &paint.tone(&last, Tone::Quiet) + "\n"
}

/// Why the workers of a subscriber do not read, or not everything.
fn held_up(subscriber: &SubscriberStatus) -> Vec<String> {
    let name = escape(&subscriber.name);
    let mut lines = Vec::new();
    if let Some(pause) = &subscriber.control.paused {
        lines.push(format!("{name} {}", text::paused(pause)));
    }
    let breaker = &subscriber.control.breaker;
    let (times, why) = (count(breaker.opened.into(), "time"), escape(&breaker.why));
    match breaker.state {
        BreakerState::Closed => {}
        BreakerState::Open => lines.push(format!(
            "{name} has its circuit breaker open until {}, opened {times} in a row: {why}",
            text::moment(breaker.until)
        )),
        BreakerState::HalfOpen => lines.push(format!(
            "{name} has its circuit breaker half-open, opened {times} in a row: {why}"
        )),
    }
    lines
}

/// The inbox and redrive streams are shown only while there is something to see.
fn matters(group: &GroupStatus) -> bool {
    let quiet = group.owes() == Some(0);
    let fine = matches!(
        group.condition,
        Condition::Ok | Condition::Absent | Condition::Retired
    );
    let ours = group.stream == INBOX || group.stream.starts_with("redrive:");
    !ours || !fine || (!quiet && group.condition != Condition::Absent)
}

fn condition(group: &GroupStatus) -> &'static str {
    match group.condition {
        Condition::Ok => "ok",
        Condition::Absent => "not created yet: start its worker",
        Condition::Lost => "LOST: streamfleet group recreate",
        Condition::Unrouted => "not routed: streamfleet group retire",
        Condition::Retired if group.owes() == Some(0) => "retired: streamfleet group retire",
        Condition::Retired => "retired: its workers settle what it owes",
        Condition::Shadow => "a rebuild; of one that was killed: streamfleet rebuild --abort",
        Condition::Foreign => "not ours: XGROUP DESTROY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_group_shows_and_a_quiet_redrive_stream_does_not() {
        let mut group = GroupStatus {
            stream: "redrive:a-service".into(),
            subscriber: "a-service".into(),
            condition: Condition::Ok,
            waiting: Some(0),
            oldest_waiting_ms: None,
            in_flight: 0,
            retrying: 0,
            released: 0,
        };
        assert!(!matters(&group));
        group.in_flight = 1;
        assert!(matters(&group));
        group.in_flight = 0;
        group.condition = Condition::Lost;
        assert!(matters(&group));
        group.condition = Condition::Ok;
        group.stream = "a-events".into();
        assert!(matters(&group));
    }
}
