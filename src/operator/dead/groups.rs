//! `streamfleet dead list --group`: letters by what went wrong.

use std::collections::BTreeMap;
use std::io::{Write, stdout};

use jiff::Timestamp;
use serde::Serialize;

use super::super::CommandError;
use super::super::answer::{Output, answer};
use super::super::text::{Paint, count, escape, moment, shorten, table};
use crate::dead::Letters;
use crate::letter::Letter;
use crate::process::exit::Exit;
use crate::routing::Redact;
use crate::time;

/// Letters of one subscriber that died of the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Group {
    fingerprint: String,
    count: u64,
    subscriber: String,
    reason: String,
    /// When the first one and the last one died.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// The newest one, and what it says.
    example: String,
    event_type: Option<String>,
    error: String,
}

impl Group {
    /// By the fingerprint that the letter has as it is stored: what is hidden of it must not change which
    /// letters it selects.
    fn of(owner: &str, fingerprint: String, letter: &Letter) -> Self {
        let at = time::from_ms(letter.id.ms);
        Self {
            fingerprint,
            count: 1,
            subscriber: owner.to_owned(),
            reason: letter.reason.clone(),
            first: at,
            last: at,
            example: letter.id.to_string(),
            event_type: letter.event_type.clone(),
            error: letter.error.clone(),
        }
    }

    /// Adds a newer group of the same.
    fn add(&mut self, newer: Self) {
        *self = Self {
            count: self.count + newer.count,
            first: self.first,
            ..newer
        };
    }
}

/// The groups of letters that come oldest first: the largest group first.
#[derive(Default)]
struct Groups(BTreeMap<(String, String), Group>);

impl Groups {
    /// `redact` hides what is shown of it.
    fn take(&mut self, owner: &str, letter: Letter, redact: Option<&Redact>) {
        let fingerprint = letter.fingerprint();
        let letter = match redact {
            Some(redact) => letter.redacted(redact),
            None => letter,
        };
        let group = Group::of(owner, fingerprint, &letter);
        let key = (owner.to_owned(), group.fingerprint.clone());
        match self.0.get_mut(&key) {
            Some(known) => known.add(group),
            None => drop(self.0.insert(key, group)),
        }
    }

    fn sorted(self) -> Vec<Group> {
        let mut groups: Vec<_> = self.0.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.count, group.last)));
        groups
    }
}

pub(super) async fn show(
    mut found: Letters,
    redact: Option<&Redact>,
    limit: u32,
    output: Output,
) -> Result<Exit, CommandError> {
    let mut groups = Groups::default();
    while let Some((owner, letter)) = found.next().await? {
        groups.take(&owner, letter, redact);
    }
    let mut groups = groups.sorted();
    let all = groups.len();
    groups.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let hidden = all - groups.len();
    match output {
        Output::Table if groups.is_empty() => writeln!(stdout(), "no dead letters")?,
        Output::Table => stdout().write_all(render(&groups, Paint::stdout()).as_bytes())?,
        output => answer(output, "dead-letter-groups", &groups)?,
    }
    if hidden > 0 {
        let hidden = count(hidden as u64, "more group");
        eprintln!("there are {hidden}: use --limit, or a filter");
    }
    Ok(Exit::Clean)
}

fn render(groups: &[Group], paint: Paint) -> String {
    let header = [
        "FINGERPRINT",
        ">COUNT",
        "SUBSCRIBER",
        "REASON",
        "FIRST",
        "LAST",
        "EXAMPLE",
        "ERROR",
    ];
    let mut rows = table(&header);
    for group in groups {
        rows.add_row([
            group.fingerprint.clone(),
            group.count.to_string(),
            escape(&group.subscriber),
            shorten(&group.reason, 24),
            moment(group.first),
            moment(group.last),
            group.example.clone(),
            shorten(&group.error, 80),
        ]);
    }
    paint.table(&rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Entry, EntryId, Fields};

    fn letter(ms: u64, reason: &str, error: &str) -> Letter {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        Letter::from_entry(Entry {
            id: EntryId { ms, seq: 0 },
            fields: Fields(vec![pair("reason", reason), pair("error", error)]),
        })
    }

    #[test]
    fn a_group_has_the_first_the_last_and_the_newest_as_its_example() {
        let mut groups = Groups::default();
        groups.take(
            "a-service",
            letter(1_000, "rejected", "order 1 is unknown"),
            None,
        );
        groups.take(
            "a-service",
            letter(2_000, "rejected", "something else"),
            None,
        );
        groups.take(
            "a-service",
            letter(3_000, "rejected", "order 22 is unknown"),
            None,
        );
        groups.take(
            "b-service",
            letter(4_000, "rejected", "order 3 is unknown"),
            None,
        );
        let groups = groups.sorted();
        let told: Vec<_> = groups
            .iter()
            .map(|g| (g.subscriber.as_str(), g.count))
            .collect();
        assert_eq!(told, [("a-service", 2), ("b-service", 1), ("a-service", 1)]);
        let first = &groups[0];
        assert_eq!(first.example, "3000-0");
        assert_eq!(first.error, "order 22 is unknown");
        let at = time::from_ms;
        assert_eq!((first.first, first.last), (at(1_000), at(3_000)));
        assert_eq!(
            groups[1].fingerprint, first.fingerprint,
            "the same failure of another"
        );
    }
}
