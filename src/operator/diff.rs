//! `streamfleet diff`: what a new routing.yaml would change, and what would be left behind or cut.

use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::path::PathBuf;

use serde::Serialize;

use super::answer::{Output, answer};
use super::text::{Paint, Tone, age, count, escape, table};
use super::{CommandError, Session};
use crate::fleet;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::routing::{Change, Config, How, Routing, Setting, What, changes};
use crate::status::{Condition, Cut, GroupStatus, Snapshot, collect, cuts};

/// Show what a new routing.yaml would change, before it is taken.
///
/// It is held against the file that is used now (--config) and against the fleet in Redis: which
/// groups would be created, which would be orphaned and what they owe, and how much history would be
/// cut. Exits with 0 if nothing would be lost, with 1 if a subscriber would be left behind with
/// unsettled events or history would be cut, and with 78 if the new file cannot be used.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new file; its schemas are looked for as it names them.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    #[command(flatten)]
    common: CommonArgs,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Everything that it would change.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether nothing that is owed would be left behind, and no history cut.
    harmless: bool,
    /// Between the two files.
    changes: Vec<Change>,
    /// Groups that it asks for and that do not exist.
    created: Vec<Created>,
    /// Groups that exist and that it does not ask for.
    orphaned: Vec<Orphaned>,
    /// History that would go.
    cut: Vec<Cut>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Created {
    stream: String,
    subscriber: String,
    /// `$`: with what arrives from then on; `0`: with the oldest entry; or after an ID.
    start: String,
}

/// What becomes of an orphaned group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Fate {
    /// It owes nothing: it can be dropped.
    Settled,
    /// Workers of its subscriber settle what it owes: it is retired, or still gets other events.
    Settles,
    /// Nobody settles what it owes: the fleet refuses the new file.
    LeftBehind,
}

#[derive(Debug, Serialize)]
struct Orphaned {
    fate: Fate,
    #[serde(flatten)]
    group: GroupStatus,
}

pub(super) async fn run(args: Args) -> Result<Exit, CommandError> {
    let new = Config::load(&args.new)?;
    let session = Session::open(&args.common).await?;
    let (old, link, keys) = (&session.config, &session.link, &session.keys);
    if old.routing.namespace() != new.routing.namespace() {
        return Err(CommandError::Refused(
            "the two files name different namespaces, so that they share no key in Redis: a new namespace is a new \
             fleet, and needs a restart of every process"
                .to_owned(),
        ));
    }
    let snapshot = collect(link, keys, &new.routing).await?;
    let names: BTreeSet<String> = snapshot
        .subscribers
        .iter()
        .map(|s| s.name.clone())
        .collect();
    let cut = cuts(link, keys, (&old.routing, &new.routing), &names).await?;
    let report = Report::new(changes(old, &new), &snapshot, &new.routing, cut);
    match args.output {
        Output::Table => {
            let text = render(&report, Paint::stdout());
            stdout().lock().write_all(text.as_bytes())?;
        }
        output => answer(output, "diff", [&report])?,
    }
    Ok(match report.harmless {
        true => Exit::Clean,
        false => Exit::Failure,
    })
}

impl Report {
    /// Of a snapshot that was taken with the new routing.
    fn new(changes: Vec<Change>, snapshot: &Snapshot, new: &Routing, cut: Vec<Cut>) -> Self {
        let absent = |stream: &str, subscriber: &str| {
            snapshot.groups.iter().any(|g| {
                g.condition == Condition::Absent && g.stream == stream && g.subscriber == subscriber
            })
        };
        let wanted = fleet::wanted_groups(new, None).into_iter();
        let created: Vec<_> = wanted
            .filter(|w| absent(&w.stream, &w.subscriber))
            .map(|w| Created {
                stream: w.stream,
                subscriber: w.subscriber,
                start: w.start,
            })
            .collect();
        let orphaned: Vec<_> = snapshot
            .groups
            .iter()
            .filter(|g| matches!(g.condition, Condition::Unrouted | Condition::Retired))
            .map(|group| Orphaned {
                fate: fate(group, new),
                group: group.clone(),
            })
            .collect();
        let left = orphaned.iter().any(|o| o.fate == Fate::LeftBehind);
        Self {
            harmless: !left && cut.is_empty(),
            changes,
            created,
            orphaned,
            cut,
        }
    }
}

fn fate(group: &GroupStatus, new: &Routing) -> Fate {
    match (group.owes(), new.served(&group.subscriber)) {
        (Some(0), _) => Fate::Settled,
        (_, Some(_)) => Fate::Settles,
        (_, None) => Fate::LeftBehind,
    }
}

fn render(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    let mut section = |header: &[&str], rows: Vec<(Vec<String>, Option<Tone>)>| {
        if rows.is_empty() {
            return;
        }
        let (mut shown, mut tones) = (table(header), Vec::new());
        for (row, tone) in rows {
            shown.add_row(row);
            tones.push(tone);
        }
        text += &(paint.table(&shown, &tones) + "\n");
    };
    let changed = report.changes.iter();
    let changed = changed.map(|c| (vec![what(c.what), escape(&c.name), told(c)], None));
    section(&["CHANGED", "NAME", "HOW"], changed.collect());
    let created = report.created.iter().map(|c| {
        let row = [&c.stream, &c.subscriber].map(|name| escape(name));
        let start = match c.start.as_str() {
            "$" => "with what is new".to_owned(),
            "0" => "with the oldest".to_owned(),
            id => format!("after {id}"),
        };
        (row.into_iter().chain([start]).collect(), None)
    });
    section(
        &["GROUP CREATED ON", "SUBSCRIBER", "STARTS"],
        created.collect(),
    );
    let orphaned = report.orphaned.iter().map(|Orphaned { fate, group }| {
        let (then, tone) = match fate {
            Fate::Settled => (
                "owes nothing: streamfleet group retire, once it is taken",
                None,
            ),
            Fate::Settles => ("its workers settle these", Some(Tone::Notice)),
            Fate::LeftBehind => (
                "REFUSED while it owes these: put it back, or list it in `retired`",
                Some(Tone::Alarm),
            ),
        };
        let row = vec![
            escape(&group.stream),
            escape(&group.subscriber),
            group.waiting.map_or("?".to_owned(), |n| n.to_string()),
            group.pending().to_string(),
            group.retrying.to_string(),
            then.to_owned(),
        ];
        (row, tone)
    });
    section(
        &[
            "GROUP ORPHANED ON",
            "SUBSCRIBER",
            ">NOT READ",
            ">BEGUN",
            ">RETRYING",
            "THEN",
        ],
        orphaned.collect(),
    );
    let cut = report.cut.iter().map(|cut| {
        let more = if cut.or_more { "+" } else { "" };
        let row = vec![
            escape(&cut.stream),
            format!("{}{more}", cut.entries),
            age(cut.oldest_ms),
        ];
        (row, Some(Tone::Alarm))
    });
    section(&["HISTORY CUT OF", ">ENTRIES", ">OLDEST"], cut.collect());
    let left = report
        .orphaned
        .iter()
        .filter(|o| o.fate == Fate::LeftBehind);
    let (left, cut) = (left.count() as u64, report.cut.len() as u64);
    let last = match report.harmless {
        true if report.changes.is_empty() => {
            "the files say the same; nothing would be lost".to_owned()
        }
        true => "nothing that is owed or kept would be lost".to_owned(),
        false => format!(
            "{} would be left behind with unsettled events, {} would lose history",
            count(left, "group"),
            count(cut, "stream")
        ),
    };
    let tone = if report.harmless {
        Tone::Quiet
    } else {
        Tone::Alarm
    };
    text + &paint.tone(&last, tone) + "\n"
}

fn what(what: What) -> String {
    let name = match what {
        What::Setting => "setting",
        What::Stream => "stream",
        What::Route => "route",
        What::Subscriber => "subscriber",
        What::Schema => "schema",
    };
    name.to_owned()
}

fn told(change: &Change) -> String {
    let mut parts = Vec::new();
    match change.how {
        How::Added => parts.push("added".to_owned()),
        How::Removed => parts.push("removed".to_owned()),
        How::Retired => parts.push("retired".to_owned()),
        How::Changed if change.what == What::Schema => parts.push("changed".to_owned()),
        How::Changed => {}
    }
    parts.extend(change.gains.iter().map(|name| format!("+{}", escape(name))));
    parts.extend(change.loses.iter().map(|name| format!("-{}", escape(name))));
    parts.extend(change.settings.iter().map(|Setting { name, old, new }| {
        // What a running worker does not take; see `worker::run`.
        let later = match *name {
            "concurrency" | "lease" if change.how == How::Changed => " (after a restart)",
            _ => "",
        };
        match *name == change.name {
            true => format!("{} -> {}", escape(old), escape(new)),
            false => format!("{name} {} -> {}{later}", escape(old), escape(new)),
        }
    }));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_one_cell() {
        let change = Change {
            what: What::Subscriber,
            name: "a-service".into(),
            how: How::Changed,
            gains: vec!["b".into()],
            loses: vec!["c\n".into()],
            settings: vec![
                Setting {
                    name: "lease",
                    old: "30s".into(),
                    new: "1m".into(),
                },
                Setting {
                    name: "timeout",
                    old: "1s".into(),
                    new: "2s".into(),
                },
            ],
        };
        assert_eq!(
            told(&change),
            "+b, -c\\n, lease 30s -> 1m (after a restart), timeout 1s -> 2s"
        );
        let setting = Setting {
            name: "dedupe_window",
            old: "24h".into(),
            new: "1h".into(),
        };
        let change = Change {
            what: What::Setting,
            name: "dedupe_window".into(),
            how: How::Changed,
            gains: Vec::new(),
            loses: Vec::new(),
            settings: vec![setting],
        };
        assert_eq!(told(&change), "24h -> 1h");
    }
}
