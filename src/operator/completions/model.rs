//! What could come next on a command line. Pure: walks the commands that clap knows.

use clap::{Arg, Command, ValueHint};

/// What a shell should offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing that we would know.
    Nothing,
    /// Names of files and folders.
    Files,
    /// These.
    These(Vec<Candidate>),
    /// Names that only the configuration and Redis know.
    Names {
        /// Of what.
        of: Live,
        /// How they begin.
        typed: String,
        /// What is put before each: `--subscriber=`.
        before: String,
    },
}

/// One word, and what it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) word: String,
    pub(super) about: String,
}

/// What has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Live {
    Subscribers,
    /// The same, and the router.
    Owners,
    Streams,
    Types,
}

/// What could stand where the last of these words stands; `root` is built.
pub(super) fn want(root: &Command, words: &[String]) -> Want {
    let (typed, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let (mut command, mut position, mut value_of) = (root, 0, None::<&Arg>);
    let words = before.iter().map(String::as_str);
    let mut bare = false;
    for word in words {
        if value_of.is_some() {
            // bash makes three words of `--output=json`.
            if word != "=" {
                value_of = None;
            }
        } else if word == "--" {
            bare = true;
        } else if let Some(option) = word.strip_prefix("--").filter(|_| !bare) {
            let split = option.contains('=');
            value_of = long(command, option).filter(|arg| takes_value(arg) && !split);
        } else if word.starts_with('-') && !bare {
            // (There are no short options with values.)
        } else if let Some(sub) = command.find_subcommand(word).filter(|_| !bare) {
            (command, position) = (sub, 0);
        } else {
            position += 1;
        }
    }
    if let Some(arg) = value_of {
        let typed = if typed == "=" { "" } else { typed };
        return values(command, arg, typed, "");
    }
    if typed.starts_with('-') && !bare {
        let split = typed.split_once('=');
        return match split
            .and_then(|(name, value)| Some((name, value, long(command, name.get(2..)?)?)))
        {
            Some((name, value, arg)) => values(command, arg, value, &format!("{name}=")),
            None => these(typed, options(command)),
        };
    }
    if command.has_subcommands() && !bare {
        let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let found = visible.map(|sub| (sub.get_name().to_owned(), about(sub.get_about())));
        return these(typed, found);
    }
    let positions: Vec<_> = command.get_positionals().collect();
    // The last one may be given again and again.
    let arg = positions.get(position).or_else(|| {
        let last = positions.last()?;
        last.get_num_args()
            .is_some_and(|n| n.max_values() > 1)
            .then_some(last)
    });
    arg.map_or(Want::Nothing, |arg| values(command, arg, typed, ""))
}

/// The words as they were typed: bash also breaks them at each colon, as in `redis://host:port`.
pub(super) fn rejoined(words: &[String]) -> Vec<String> {
    let is_colon = |word: &str| !word.is_empty() && word.chars().all(|c| c == ':');
    let mut whole: Vec<String> = Vec::new();
    let mut after_colon = false;
    for word in words {
        let colon = is_colon(word);
        match whole.last_mut().filter(|_| colon || after_colon) {
            Some(last) => last.push_str(word),
            None => whole.push(word.clone()),
        }
        after_colon = colon;
    }
    whole
}

/// The value of an option among these words.
pub(super) fn option(words: &[String], name: &str) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(name) {
            Some("") => return words.find(|word| *word != "=").cloned(),
            Some(rest) if rest.starts_with('=') => return rest.get(1..).map(str::to_owned),
            _ => {}
        }
    }
    None
}

fn long<'a>(command: &'a Command, option: &str) -> Option<&'a Arg> {
    let name = option.split('=').next()?;
    let mut all = command.get_arguments();
    all.find(|arg| arg.get_long() == Some(name))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn options(command: &Command) -> impl Iterator<Item = (String, String)> {
    let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
    visible.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))))
}

/// The values of an argument.
fn values(command: &Command, arg: &Arg, typed: &str, before: &str) -> Want {
    let possible = arg.get_possible_values();
    if !possible.is_empty() && takes_value(arg) {
        let found = possible.iter().filter(|value| !value.is_hide_set());
        let found = found.map(|v| (format!("{before}{}", v.get_name()), about(v.get_help())));
        return these(&format!("{before}{typed}"), found);
    }
    let is_file = |arg: &Arg| {
        let names = arg.get_value_names().unwrap_or_default();
        let name = names.first().map(|name| name.as_str());
        arg.get_value_hint() != ValueHint::Unknown
            || matches!(name, Some("FILE" | "DIR" | "PROGRAM"))
    };
    let of = match arg.get_id().as_str() {
        // Who cannot be the router.
        "subscriber"
            if matches!(
                command.get_name(),
                "pause" | "resume" | "rebuild" | "retire" | "capacity"
            ) =>
        {
            Live::Subscribers
        }
        "subscriber" => Live::Owners,
        "stream" => Live::Streams,
        "event_type" | "pattern" => Live::Types,
        _ if is_file(arg) => return Want::Files,
        _ => return Want::Nothing,
    };
    Want::Names {
        of,
        typed: typed.to_owned(),
        before: before.to_owned(),
    }
}

fn these(typed: &str, found: impl Iterator<Item = (String, String)>) -> Want {
    let found = found.filter(|(word, _)| word.starts_with(typed));
    let found = found.map(|(word, about)| Candidate { word, about });
    Want::These(found.collect())
}

/// The first sentence of a help, without what a shell could take for its own.
fn about(help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let sentence = line.split_once(". ").map_or(line, |(first, _)| first);
    sentence.replace('\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn asked(line: &str) -> Want {
        let mut root = crate::operator::Cli::command();
        root.build();
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        want(&root, &words)
    }

    fn words(line: &str) -> Vec<String> {
        match asked(line) {
            Want::These(found) => found.into_iter().map(|one| one.word).collect(),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn names(of: Live, typed: &str, before: &str) -> Want {
        Want::Names {
            of,
            typed: typed.to_owned(),
            before: before.to_owned(),
        }
    }

    #[test]
    fn commands_and_their_options() {
        assert_eq!(words("pau"), ["pause"]);
        assert_eq!(words("dead li"), ["list"]);
        assert!(words("").contains(&"status".to_owned()));
        assert!(!words("").contains(&"complete".to_owned()), "it is hidden");
        assert_eq!(words("dead list --subs"), ["--subscriber"]);
        assert!(words("dead --subs").is_empty(), "an option of list only");
        assert_eq!(words("completions "), ["bash", "zsh", "fish"]);
    }

    #[test]
    fn values_of_options_in_all_spellings() {
        for line in [
            "status --output t",
            "status --watch --output = t",
            "--x status --output t",
        ] {
            assert_eq!(words(line), ["table"], "{line}");
        }
        assert_eq!(words("status --output=t"), ["--output=table"]);
        assert_eq!(asked("check --config "), Want::Files);
        assert_eq!(asked("status --interval "), Want::Nothing);
    }

    #[test]
    fn names_are_those_that_fit() {
        assert_eq!(asked("pause a"), names(Live::Subscribers, "a", ""));
        assert_eq!(asked("dead show "), names(Live::Owners, "", ""));
        assert_eq!(
            asked("dead list --subscriber x"),
            names(Live::Owners, "x", "")
        );
        assert_eq!(
            asked("dead list --subscriber=x"),
            names(Live::Owners, "x", "--subscriber=")
        );
        assert_eq!(
            asked("group retire a-service "),
            names(Live::Streams, "", "")
        );
        assert_eq!(asked("publish Or"), names(Live::Types, "Or", ""));
        assert_eq!(
            asked("pause a-service "),
            Want::Nothing,
            "there is no second one"
        );
    }

    #[test]
    fn what_bash_breaks_at_colons_is_whole_again() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (broken, whole) in [
            (
                "pause --redis-url redis : //h : 6380 ",
                "pause --redis-url redis://h:6380 ",
            ),
            (
                "pause --redis-url = unix : ///s x",
                "pause --redis-url = unix:///s x",
            ),
            ("pause a", "pause a"),
            (": a", ":a"),
        ] {
            assert_eq!(rejoined(&words(broken)), words(whole), "{broken}");
        }
        assert!(rejoined(&[]).is_empty());
    }

    #[test]
    fn an_option_is_found_among_words() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            option(&words("status --config f"), "--config"),
            Some("f".into())
        );
        assert_eq!(option(&words("--config=f"), "--config"), Some("f".into()));
        assert_eq!(option(&words("--config = f"), "--config"), Some("f".into()));
        assert_eq!(option(&words("--configs f"), "--config"), None);
        assert_eq!(option(&words("x --config"), "--config"), None);
    }
}
