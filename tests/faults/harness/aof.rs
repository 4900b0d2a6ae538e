//! What stands in an append-only file: the commands, where each begins and ends, and what they
//! say about events. No Redis needed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A command and the bytes that it takes.
pub struct Entry {
    pub at: Range<usize>,
    pub words: Vec<String>,
}

impl Entry {
    /// Whether it is this command on that key.
    pub fn is(&self, command: &str, key: impl Fn(&str) -> bool) -> bool {
        self.words[0].eq_ignore_ascii_case(command) && self.words.get(1).is_some_and(|k| key(k))
    }
}

/// What one script wrote: MULTI to EXEC.
pub struct Transaction<'a> {
    pub at: Range<usize>,
    pub entries: &'a [Entry],
}

impl Transaction<'_> {
    pub fn has(&self, command: &str, key: impl Fn(&str) -> bool) -> bool {
        self.entries.iter().any(|entry| entry.is(command, &key))
    }
}

/// The files that commands are appended to, in the order in which they were begun.
pub fn appended(dir: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        let stem = name.strip_suffix(".incr.aof")?;
        stem.rsplit('.').next()?.parse().ok()
    };
    let folder = std::fs::read_dir(dir.join("appendonlydir"));
    let mut files: Vec<PathBuf> = folder
        .into_iter()
        .flatten()
        .map(|file| file.unwrap().path())
        .filter(|path| number(path).is_some())
        .collect();
    files.sort_by_key(number);
    files
}

/// Everything that was appended.
pub fn bytes(dir: &Path) -> Vec<u8> {
    let files = appended(dir).into_iter();
    files
        .flat_map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// The commands, up to the first that is not whole.
pub fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut position = 0;
    while let Some(entry) = entry_at(bytes, position) {
        position = entry.at.end;
        entries.push(entry);
    }
    entries
}

fn entry_at(bytes: &[u8], start: usize) -> Option<Entry> {
    let (count, mut position) = number_at(bytes, start, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, from) = number_at(bytes, position, b'$')?;
        words.push(String::from_utf8_lossy(bytes.get(from..from + length)?).into_owned());
        position = from + length + 2;
    }
    (position <= bytes.len()).then_some(Entry {
        at: start..position,
        words,
    })
}

/// `<mark><number>\r\n`: the number, and where it ends.
fn number_at(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?.strip_prefix(&[mark])?;
    let length = rest.windows(2).position(|two| two == b"\r\n")?;
    let number = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    Some((number, at + 1 + length + 2))
}

/// What scripts wrote in more than one command.
pub fn transactions(entries: &[Entry]) -> Vec<Transaction<'_>> {
    let mut found = Vec::new();
    let mut begin = None;
    for (n, entry) in entries.iter().enumerate() {
        match entry.words[0].as_str() {
            "MULTI" => begin = Some(n),
            "EXEC" => {
                let entries = &entries[begin.take().unwrap()..=n];
                found.push(Transaction {
                    at: entries[0].at.start..entry.at.end,
                    entries,
                });
            }
            _ => {}
        }
    }
    found
}

/// IDs of the events that were added to the inbox.
pub fn accepted(entries: &[Entry]) -> BTreeSet<String> {
    let added = entries.iter().filter(|e| e.is("XADD", |k| k == "inbox"));
    added
        .filter_map(|entry| {
            let event: Value = serde_json::from_str(entry.words.get(4)?).ok()?;
            Some(event["event_id"].as_str()?.to_owned())
        })
        .collect()
}

/// When each commit was made, by the server's clock: what a handler appends to its log.
pub fn commit_times(entries: &[Entry]) -> Vec<u64> {
    let logged = entries
        .iter()
        .filter(|e| e.is("XADD", |key| key.ends_with(":log")));
    let time = |entry: &Entry| entry.words[2].split('-').next()?.parse().ok();
    logged.filter_map(time).collect()
}

/// How often each (subscriber's effects, event) was committed.
pub fn committed(entries: &[Entry]) -> BTreeMap<(String, String), usize> {
    let mut times = BTreeMap::new();
    for entry in entries {
        if entry.is("HINCRBY", |key| key.ends_with(":handled")) {
            let commit = (entry.words[1].clone(), entry.words[2].clone());
            *times.entry(commit).or_default() += 1;
        }
    }
    times
}
