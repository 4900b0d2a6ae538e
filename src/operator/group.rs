//! `streamfleet group`: consumer groups, and the two things only the operator may do to them.

use std::io::{Write, stdout};

use super::answer::{Output, answer};
use super::names::advice;
use super::text::{Paint, Tone, count, escape, table};
use super::{CommandError, Session};
use crate::fleet::{self, INBOX, ROUTER, WantedGroup};
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::status::{Condition, GroupStatus, Snapshot, collect};
use crate::store::{Ensure, EntryId, GroupState, Keys, Retired, retire_group};

/// Consumer groups: list them, recreate a lost one, retire one that nobody needs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
    Recreate(RecreateArgs),
    Retire(RetireArgs),
}

/// List every group: its condition, and what it owes.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Recreate a group that existed and was lost. streamfleet does not do it by itself, because
/// from the beginning it would repeat everything, and from now on it would lose something.
#[derive(Debug, clap::Args)]
struct RecreateArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The subscriber, or `router`.
    subscriber: String,
    /// The stream, without namespace; `inbox` for the router.
    stream: String,
    /// Where it goes on: with the beginning of the stream, with what is new, or after an entry.
    #[arg(long, value_name = "beginning|new|ID", value_parser = from)]
    from: String,
}

/// Retire a group for good: its stream is no longer held back by it, and what it owes is given up.
#[derive(Debug, clap::Args)]
struct RetireArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The subscriber.
    subscriber: String,
    /// The stream, without namespace; all streams of the subscriber if absent.
    stream: Option<String>,
    /// Give up what it still owes.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Recreate(args) => recreate(args).await,
        Command::Retire(args) => retire(args).await,
    }
}

fn from(text: &str) -> Result<String, String> {
    match text {
        "beginning" => Ok("0".to_owned()),
        "new" => Ok("$".to_owned()),
        id => id
            .parse::<EntryId>()
            .map(|id| id.to_string())
            .map_err(|e| format!("write beginning, new or an entry ID: {e}")),
    }
}

async fn list(args: ListArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let snapshot = collect(&session.link, &session.keys, &session.config.routing).await?;
    if args.output != Output::Table {
        answer(args.output, "groups", &snapshot.groups)?;
        return Ok(Exit::Clean);
    }
    let (mut rows, mut tones) = (
        table(&["STREAM", "SUBSCRIBER", "CONDITION", ">OWES"]),
        Vec::new(),
    );
    for group in &snapshot.groups {
        let condition = format!("{:?}", group.condition).to_lowercase();
        let owes = match group.condition {
            Condition::Lost | Condition::Absent => "-".to_owned(),
            _ => group.owes().map_or("?".to_owned(), |n| n.to_string()),
        };
        rows.add_row([
            escape(&group.stream),
            escape(&group.subscriber),
            condition,
            owes,
        ]);
        tones.push(match group.condition {
            Condition::Ok => None,
            Condition::Lost => Some(Tone::Alarm),
            _ => Some(Tone::Notice),
        });
    }
    stdout().write_all(Paint::stdout().table(&rows, &tones).as_bytes())?;
    Ok(Exit::Clean)
}

async fn recreate(args: RecreateArgs) -> Result<Exit, CommandError> {
    let session = Session::open(&args.common).await?;
    let pair = (args.stream.clone(), args.subscriber.clone());
    let records = fleet::group_records(&session.link, &session.keys).await?;
    let all = fleet::wanted_groups(&session.config.routing, None);
    let wanted = all
        .iter()
        .find(|w| w.stream == args.stream && w.subscriber == args.subscriber);
    let lease_ms = match (wanted, records.get(&pair)) {
        (Some(wanted), _) => wanted.lease_ms,
        (None, Some(record)) => record.lease_ms,
        (None, None) => {
            let known = records.keys().cloned();
            let known = known.chain(all.into_iter().map(|w| (w.stream, w.subscriber)));
            let known: Vec<_> = known.map(|(s, sub)| format!("{sub} {s}")).collect();
            let typed = format!("{} {}", args.subscriber, args.stream);
            return Err(CommandError::Refused(format!(
                "neither routing.yaml nor the fleet knows a group {} on {}: {}",
                escape(&args.subscriber),
                escape(&args.stream),
                advice(&typed, &known, "streamfleet group list")
            )));
        }
    };
    let snapshot = collect(&session.link, &session.keys, &session.config.routing).await?;
    let exists = snapshot.groups.iter().any(|g| {
        let gone = matches!(g.condition, Condition::Lost | Condition::Absent);
        (&g.stream, &g.subscriber) == (&args.stream, &args.subscriber) && !gone
    });
    let group = WantedGroup {
        stream: args.stream,
        subscriber: args.subscriber,
        start: args.from,
        lease_ms,
    };
    // Asking for a group that is there would still move the mark of when it joined.
    let state = match exists {
        true => GroupState::Exists,
        false => {
            fleet::ensure_group(&session.link, &session.keys, &group, Ensure::Recreate).await?
        }
    };
    match state {
        GroupState::Created => {
            let WantedGroup {
                stream,
                subscriber,
                start,
                ..
            } = group;
            writeln!(
                stdout(),
                "recreated the group {subscriber} on {stream}: it reads what comes after {start}"
            )?;
            Ok(Exit::Clean)
        }
        GroupState::Exists | GroupState::Lost | GroupState::Retired => {
            Err(CommandError::Refused(format!(
                "the group {} on {} exists: there is nothing to recreate",
                group.subscriber, group.stream
            )))
        }
    }
}

async fn retire(args: RetireArgs) -> Result<Exit, CommandError> {
    if args.subscriber == ROUTER {
        let message = "the router's group on the inbox cannot be retired: it is how events get in";
        return Err(CommandError::Refused(message.into()));
    }
    let session = Session::open(&args.common).await?;
    let snapshot = collect(&session.link, &session.keys, &session.config.routing).await?;
    let chosen = |g: &&GroupStatus| {
        g.subscriber == args.subscriber
            && args
                .stream
                .as_ref()
                .is_none_or(|stream| *stream == g.stream)
            && g.stream != INBOX
            && g.condition != Condition::Absent
    };
    let groups: Vec<_> = snapshot.groups.iter().filter(chosen).collect();
    let subscriber = escape(&args.subscriber);
    if groups.is_empty() {
        let known = snapshot.groups.iter();
        let known: Vec<_> = match &args.stream {
            Some(_) => known
                .map(|g| format!("{} {}", g.subscriber, g.stream))
                .collect(),
            None => known.map(|g| g.subscriber.clone()).collect(),
        };
        let stream = args.stream.as_ref().map(|stream| format!(" {stream}"));
        let typed = args.subscriber.clone() + &stream.unwrap_or_default();
        return Err(CommandError::Refused(format!(
            "there is no such group of {subscriber}: {}",
            advice(&typed, &known, "streamfleet group list")
        )));
    }
    let wanted = fleet::wanted_groups(&session.config.routing, Some(&args.subscriber));
    let routed: Vec<_> = groups
        .iter()
        .filter(|g| wanted.iter().any(|w| w.stream == g.stream))
        .map(|g| g.stream.as_str())
        .collect();
    if !routed.is_empty() {
        return Err(CommandError::Refused(format!(
            "routing.yaml still sends {subscriber} what is in {}: take it out of the routes first, and let \
             every process load the new file",
            routed.join(", ")
        )));
    }
    let alive = snapshot
        .subscribers
        .iter()
        .find(|s| s.name == args.subscriber && !s.routed);
    if let Some(alive) = alive.filter(|s| !s.workers.is_empty()) {
        return Err(CommandError::Refused(format!(
            "routing.yaml routes nothing to {subscriber} any more, and it still has live workers ({}): let them \
             settle what it owes, then stop them, then retire it",
            escape(&alive.workers.join(", "))
        )));
    }
    let behind = behind(&session, &snapshot, &args.subscriber).await?;
    if !behind.is_empty() {
        return Err(CommandError::Refused(format!(
            "{} do not run this routing.yaml yet, and would route to the group or create it again: let them load \
             it (SIGHUP, or a restart) first",
            escape(&behind.join(", "))
        )));
    }
    let mut refused = false;
    for group in groups {
        let stream = &group.stream;
        let holder = fleet::holder(&session.keys, stream, &args.subscriber, "");
        let fleet_key = session.keys.fleet();
        let field = Keys::fleet_group(stream, &args.subscriber);
        let (holder, give_up) = (&holder, args.yes);
        let retired = session.link.run(|mut c| async move {
            retire_group(&mut c, &fleet_key, holder, &field, give_up).await
        });
        match retired.await? {
            Retired::Done => writeln!(stdout(), "retired the group {subscriber} on {stream}")?,
            Retired::Absent => writeln!(
                stdout(),
                "the group {subscriber} on {stream} is gone already"
            )?,
            Retired::Owes => {
                refused = true;
                let owes = group
                    .owes()
                    .map_or("an unknown number".to_owned(), |n| n.to_string());
                eprintln!(
                    "{subscriber} has not settled {owes} of its entries on {stream}: let a worker settle them, \
                     or give them up with --yes"
                );
            }
        }
    }
    let dead = snapshot
        .subscribers
        .iter()
        .find(|s| s.name == args.subscriber)
        .map_or(0, |s| s.dead);
    if dead > 0 {
        let letters = count(dead, "dead letter");
        eprintln!(
            "{subscriber} has {letters} left: see streamfleet dead list --subscriber {subscriber}"
        );
    }
    Ok(if refused { Exit::Failure } else { Exit::Clean })
}

/// Live routers, and workers of the subscriber, that run another configuration than ours.
async fn behind(
    session: &Session,
    snapshot: &Snapshot,
    subscriber: &str,
) -> Result<Vec<String>, CommandError> {
    let keys = &session.keys;
    let workers = snapshot.subscribers.iter().find(|s| s.name == subscriber);
    let workers = workers.map(|s| s.workers.as_slice()).unwrap_or_default();
    let live: Vec<_> = std::iter::repeat(ROUTER)
        .zip(&snapshot.router.workers)
        .chain(std::iter::repeat(subscriber).zip(workers))
        .collect();
    let mut ask = redis::pipe();
    ask.cmd("HGET").arg(keys.fleet());
    ask.arg(format!("config:{}", session.config.fingerprint()));
    for (group, name) in &live {
        let key = keys.worker(group, name);
        ask.cmd("HGET").arg(key).arg("generation");
    }
    let generations: Vec<Option<u64>> = session
        .link
        .run(|mut c| async move { ask.query_async(&mut c).await })
        .await?;
    let Some((ours, theirs)) = generations.split_first() else {
        return Ok(Vec::new());
    };
    // Without a generation it has ended since.
    let other = |theirs: &Option<u64>| theirs.is_some() && theirs != ours;
    let behind = live.iter().zip(theirs).filter(|(_, theirs)| other(theirs));
    Ok(behind
        .map(|((group, name), _)| format!("{group} {name}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_starts_at_the_beginning_at_the_end_or_after_an_entry() {
        assert_eq!(from("beginning").as_deref(), Ok("0"));
        assert_eq!(from("new").as_deref(), Ok("$"));
        assert_eq!(from("17-3").as_deref(), Ok("17-3"));
        assert!(from("yesterday").is_err());
    }
}
