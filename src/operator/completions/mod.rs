//! `streamfleet completions`: what a shell asks when somebody presses Tab.
//!
//! The scripts are small and the same for every release: they hand the words over to the hidden
//! `streamfleet complete`, which knows the commands, and asks routing.yaml and Redis for names.
//!
//! Redis: reads `fleet`, for at most [`PATIENCE`]; a shell must not hang because Redis is away.

mod model;

use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::time::Duration;

use clap::CommandFactory;

use self::model::{Live, Want};
use super::text::escape;
use super::{Cli, CommandError};
use crate::fleet::{self, ROUTER};
use crate::process::args::{CommonArgs, DEFAULT_CONFIG, DEFAULT_REDIS_URL, RedisArgs};
use crate::process::exit::Exit;
use crate::routing::Config;
use crate::store::Keys;

/// How long Redis may take to tell names.
const PATIENCE: Duration = Duration::from_millis(500);
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
    let mut lines = Vec::new();
    match model::want(&root, &args.words) {
        Want::Nothing => {}
        Want::Files => lines.push(FILES.to_owned()),
        Want::These(found) => lines.extend(found.iter().map(|one| match one.about.is_empty() {
            true => one.word.clone(),
            false => format!("{}\t{}", one.word, one.about),
        })),
        Want::Names { of, typed, before } => {
            let names = names(&args.words, of).await;
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
    let url = model::option(words, "--redis-url")
        .or_else(|| std::env::var("STREAMFLEET_REDIS_URL").ok())
        .unwrap_or_else(|| DEFAULT_REDIS_URL.to_owned());
    let common = CommonArgs {
        config: model::option(words, "--config")
            .or_else(|| std::env::var("STREAMFLEET_CONFIG").ok())
            .unwrap_or_else(|| DEFAULT_CONFIG.to_owned())
            .into(),
        redis: RedisArgs::by_environment(&url),
    };
    let config = common.load().ok();
    let mut names = BTreeSet::new();
    if let Some(Config {
        routing, schemas, ..
    }) = &config
    {
        match of {
            Live::Subscribers | Live::Owners => {
                names.extend(routing.subscribers().map(|s| s.name.to_string()));
            }
            Live::Streams => names.extend(routing.streams().map(|s| s.name.to_string())),
            Live::Types => names.extend(schemas.event_types().map(|t| t.as_str().to_owned())),
        }
    }
    if of == Live::Owners {
        names.insert(ROUTER.to_owned());
    }
    let namespace = config.as_ref().and_then(|c| c.routing.namespace());
    let keys = Keys::new(namespace);
    if of != Live::Types
        && let Ok(redis) = common.redis.open()
        && let Ok(Ok(groups)) =
            tokio::time::timeout(PATIENCE, fleet::group_records(&redis.link(), &keys)).await
    {
        let ours = groups
            .into_keys()
            .filter(|(_, subscriber)| Keys::shadow_of(subscriber).is_none());
        names.extend(ours.filter_map(|(stream, subscriber)| match of {
            Live::Streams => Some(stream),
            _ => (subscriber != ROUTER).then_some(subscriber),
        }));
    }
    // A shell takes in what it is told as it stands, and whoever may write to Redis may make a group.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    names.retain(|name| name.chars().all(plain));
    names
}
