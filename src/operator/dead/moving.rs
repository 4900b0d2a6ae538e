//! Sending letters back, and throwing them away.

use std::io::{Write, stdout};
use std::num::NonZeroU32;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::confirm::YesArgs;
use super::super::filter::FilterArgs;
use super::super::text::{count, escape};
use super::super::{CommandError, Session};
use crate::dead::{DeadLetters, Filter, RedriveError};
use crate::letter::Letter;
use crate::process::args::CommonArgs;
use crate::process::exit::Exit;
use crate::process::interrupted;
use crate::store::EntryId;

/// Which letters, and how fast.
#[derive(Debug, clap::Args)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// IDs of letters, as `dead list` shows them.
    ids: Vec<EntryId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All of them: needed when there are neither IDs nor filters.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// How many at most.
    #[arg(long, value_name = "N", conflicts_with = "ids", value_parser = super::super::at_least_one::<NonZeroU32>)]
    limit: Option<NonZeroU32>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// How many per second at most.
    #[arg(long, value_name = "N", value_parser = super::super::at_least_one::<NonZeroU32>)]
    rate: Option<NonZeroU32>,
}

/// Which letters go for good.
#[derive(Debug, clap::Args)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    which: MoveArgs,
    #[command(flatten)]
    yes: YesArgs,
}

#[derive(Clone, Copy)]
enum Action {
    Redrive,
    Discard(YesArgs),
}

impl Action {
    fn done(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Redrive, false) => "redriven",
            (Self::Redrive, true) => "would redrive",
            (Self::Discard(_), false) => "discarded",
            (Self::Discard(_), true) => "would discard",
        }
    }
}

pub(super) async fn redrive(args: MoveArgs) -> Result<Exit, CommandError> {
    act(args, Action::Redrive).await
}

pub(super) async fn discard(args: DiscardArgs) -> Result<Exit, CommandError> {
    act(args.which, Action::Discard(args.yes)).await
}

async fn act(args: MoveArgs, action: Action) -> Result<Exit, CommandError> {
    let filter = args.filter.filter();
    if args.ids.is_empty() && filter.is_empty() && !args.all {
        let message = "which ones? Give IDs, a filter, or --all\n";
        clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, message).exit();
    }
    let (session, letters) = super::open(&args.common).await?;
    if let Action::Discard(yes) = action
        && !args.dry_run
    {
        let which = match (args.ids.len(), filter.is_empty()) {
            (0, true) => "all dead letters are".to_owned(),
            (0, false) => "every dead letter that fits is".to_owned(),
            (n, _) => format!("{} to be", count(n as u64, "dead letter")),
        };
        yes.confirm(&format!("{which} thrown away for good"))?;
    }
    let mut mover = Mover {
        session,
        letters,
        action,
        dry_run: args.dry_run,
        pace: args.rate.map(pace),
        bar: progress(),
        done: 0,
        failed: 0,
    };
    let work = async {
        if args.ids.is_empty() {
            let limit = args.limit.map_or(u64::MAX, |n| n.get().into());
            mover.matching(filter, limit).await
        } else {
            mover.listed(&args.ids, filter).await
        }
    };
    let outcome = tokio::select! {
        biased;
        () = interrupted() => None,
        outcome = work => Some(outcome),
    };
    mover.bar.finish_and_clear();
    if outcome.is_none() {
        eprintln!("stopped before the last");
        mover.failed += 1;
    }
    let letters = count(mover.done, "letter");
    writeln!(stdout(), "{} {letters}", action.done(args.dry_run))?;
    outcome.transpose()?;
    Ok(if mover.failed == 0 {
        Exit::Clean
    } else {
        Exit::Failure
    })
}

fn pace(rate: NonZeroU32) -> Interval {
    // Of more than a thousand million per second, the share of each is nothing at all.
    let period = (Duration::from_secs(1) / rate.get()).max(Duration::from_nanos(1));
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Redrives or discards.
struct Mover {
    session: Session,
    letters: DeadLetters,
    action: Action,
    dry_run: bool,
    pace: Option<Interval>,
    bar: ProgressBar,
    done: u64,
    /// Letters that were asked for by ID and are not there, or cannot be redriven.
    failed: u64,
}

impl Mover {
    async fn matching(&mut self, filter: Filter, limit: u64) -> Result<(), CommandError> {
        let mut found = self.letters.find(filter).await?;
        while self.done < limit
            && let Some((owner, letter)) = found.next().await?
        {
            self.act(&owner, &letter).await?;
        }
        Ok(())
    }

    async fn listed(&mut self, ids: &[EntryId], filter: Filter) -> Result<(), CommandError> {
        let owners = match &filter.subscriber {
            Some(subscriber) => vec![subscriber.clone()],
            None => self.letters.owners().await?,
        };
        for id in ids {
            let mut found = Vec::new();
            for owner in &owners {
                let letter = self.letters.get(owner, *id).await?;
                found.extend(letter.filter(|l| filter.fits(l)).map(|l| (owner, l)));
            }
            match found.as_slice() {
                [(owner, letter)] => self.act(owner, letter).await?,
                [] => self.fail(&format!("{id}: there is no such dead letter")),
                several => {
                    let owners: Vec<_> = several.iter().map(|(o, _)| escape(o)).collect();
                    let owners = owners.join(", ");
                    self.fail(&format!(
                        "{id}: {owners} have letters of this ID: add --subscriber"
                    ));
                }
            }
        }
        Ok(())
    }

    async fn act(&mut self, owner: &str, letter: &Letter) -> Result<(), CommandError> {
        let id = letter.id;
        if matches!(self.action, Action::Redrive) && !self.has_reader(owner) {
            let owner = escape(owner);
            self.fail(&format!(
                "{owner} {id}: routing.yaml has no {owner}: nobody would read it"
            ));
            return Ok(());
        }
        if let Some(pace) = &mut self.pace {
            pace.tick().await;
        }
        let moved = match self.action {
            _ if self.dry_run => {
                let event_type = letter.event_type.as_deref().unwrap_or("-");
                let (owner, event_type) = (escape(owner), escape(event_type));
                let reason = escape(&letter.reason);
                writeln!(stdout(), "{owner} {id} {event_type} {reason}")?;
                true
            }
            Action::Discard(_) => self.letters.discard(owner, id).await?,
            Action::Redrive => match self.letters.redrive(owner, letter).await {
                Err(foreign @ RedriveError::Foreign { .. }) => {
                    self.fail(&escape(&foreign.to_string()));
                    return Ok(());
                }
                moved => moved?,
            },
        };
        if moved {
            self.done += 1;
        } else {
            self.fail(&format!(
                "{} {id}: somebody else has taken it just now",
                escape(owner)
            ));
        }
        let done = self.action.done(self.dry_run);
        self.bar.set_message(format!("{done} {}", self.done));
        self.bar.tick();
        Ok(())
    }

    fn has_reader(&self, owner: &str) -> bool {
        owner == crate::fleet::ROUTER || self.session.config.routing.served(owner).is_some()
    }

    fn fail(&mut self, line: &str) {
        self.failed += 1;
        self.bar.suspend(|| eprintln!("{line}"));
    }
}
