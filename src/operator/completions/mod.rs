//! `streamfleet completions`: what a shell asks when somebody presses Tab.
//!
//! The scripts are small and the same for every release: they hand the words over to the hidden
//! `streamfleet complete`, which knows the commands, and asks routing.yaml and Redis for names.
//!
//! Redis: reads `fleet`, for at most [`PATIENCE`]; a shell must not hang because Redis is away.

mod model;

use std::collections::{BTreeSet, HashMap};
use std::io::{Write, stdout};
use std::time::Duration;

use clap::{Args as _, Command, CommandFactory, FromArgMatches};
use tokio::sync::mpsc;

use self::model::{Live, Want};
use super::text::escape;
use super::{Cli, CommandError};
use crate::fleet::{self, ROUTER};
use crate::process::args::{CommonArgs, without_empty_variables};
use crate::process::exit::Exit;
use crate::routing::Config;
use crate::store::Keys;

/// How long Redis may take to tell names.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long that and the reading of files may take together.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(2);
/// What tells a script that the shell knows best: names of files.
const FILES: &str = ":files";

/// Print the completions of a shell: `source <(streamfleet completions bash)`.
///
/// They complete commands, options and values, and the names of subscribers, streams and event
/// types as routing.yaml and Redis have them at that moment.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    /// `source <(streamfleet completions bash)`, or into /usr/share/bash-completion/completions/streamfleet.
    Bash,
    /// Into a file `_streamfleet` in a folder of $fpath.
    Zsh,
    /// Into ~/.config/fish/completions/streamfleet.fish.
    Fish,
}

pub(super) fn run(args: &Args) -> Result<Exit, CommandError> {
    let script = match args.shell {
        Shell::Bash => include_str!("streamfleet.bash"),
        Shell::Zsh => include_str!("streamfleet.zsh"),
        Shell::Fish => include_str!("streamfleet.fish"),
    };
    stdout().write_all(script.as_bytes())?;
    Ok(Exit::Clean)
}

/// What could come next; the scripts of `streamfleet completions` ask this.
#[derive(Debug, clap::Args)]
pub(super) struct WordsArgs {
    /// The words after `streamfleet`, up to the one that is being typed.
    #[arg(last = true)]
    words: Vec<String>,
}

pub(super) async fn complete(args: WordsArgs) -> Result<Exit, CommandError> {
    let mut root = Cli::command();
    root.build();
    let words = model::rejoined(&args.words);
    let mut lines = Vec::new();
    match model::want(&root, &words) {
        Want::Nothing => {}
        Want::Files => lines.push(FILES.to_owned()),
        Want::These(found) => lines.extend(found.iter().map(|one| match one.about.is_empty() {
            true => one.word.clone(),
            false => format!("{}\t{}", one.word, one.about),
        })),
        Want::Names { of, typed, before } => {
            let names = names(&words, of).await;
            let fitting = names.iter().filter(|name| name.starts_with(&typed));
            lines.extend(fitting.map(|name| format!("{before}{}", escape(name))));
        }
    }
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(Exit::Clean)
}

/// The names there are. Whatever cannot be asked now tells none: there is nobody to tell why.
async fn names(words: &[String], of: Live) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Some(common) = typed(words) else {
        return names;
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    // Files may be pipes to which nobody writes. A thread that waits for one does not keep the process.
    std::thread::spawn(move || gather(&common, of, &tell));
    let gathering = async {
        while let Some(name) = told.recv().await {
            names.insert(name);
        }
    };
    drop(tokio::time::timeout(PATIENCE_WITH_ALL, gathering).await);
    // A shell takes in what it is told as it stands, and whoever may write to Redis may make a group.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    names.retain(|name| name.chars().all(plain));
    names
}

/// Where the configuration and Redis are, by the words and the environment, as the command itself will
/// read them. Nothing if it will refuse them.
fn typed(words: &[String]) -> Option<CommonArgs> {
    let access = CommonArgs::augment_args(Command::new("streamfleet"));
    let known = access.get_arguments().filter_map(clap::Arg::get_long);
    let args = known.filter_map(|long| {
        let value = model::option(words, &format!("--{long}"))?;
        // A shell that is still asked has not put the folder there.
        let home = value.strip_prefix("~/").zip(std::env::var("HOME").ok());
        let value = home.map_or(value.clone(), |(rest, home)| format!("{home}/{rest}"));
        Some(format!("--{long}={value}"))
    });
    let line: Vec<_> = std::iter::once(String::new()).chain(args).collect();
    let matches = without_empty_variables(access).try_get_matches_from(line);
    CommonArgs::from_arg_matches(&matches.ok()?).ok()
}

/// Tells the names of the file, and then those of Redis.
fn gather(common: &CommonArgs, of: Live, tell: &mpsc::UnboundedSender<String>) {
    // Nobody listens any more: it took too long.
    let tell = |name: &str| drop(tell.send(name.to_owned()));
    if of == Live::Owners {
        tell(ROUTER);
    }
    let config = common.load().ok();
    if let Some(Config {
        routing, schemas, ..
    }) = &config
    {
        match of {
            Live::Subscribers | Live::Owners => routing.subscribers().for_each(|s| tell(&s.name)),
            Live::Streams => routing.streams().for_each(|s| tell(&s.name)),
            Live::Types => schemas.event_types().for_each(|t| tell(t.as_str())),
        }
    }
    let namespace = config.as_ref().and_then(|c| c.routing.namespace());
    if of != Live::Types
        && let Ok(groups) = groups(common, &Keys::new(namespace))
    {
        for (stream, subscriber) in groups {
            match of {
                _ if Keys::shadow_of(&subscriber).is_some() => {}
                Live::Streams => tell(&stream),
                _ if subscriber == ROUTER => {}
                _ => tell(&subscriber),
            }
        }
    }
}

/// Stream and subscriber of every group that Redis knows of.
fn groups(common: &CommonArgs, keys: &Keys) -> Result<Vec<(String, String)>, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let records = runtime.block_on(async {
        let link = common.redis.open()?.link();
        let asked = tokio::time::timeout(PATIENCE, fleet::group_records(&link, keys)).await;
        asked.unwrap_or_else(|_| Ok(HashMap::new()))
    })?;
    Ok(records.into_keys().collect())
}
