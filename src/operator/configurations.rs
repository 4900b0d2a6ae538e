//! Who runs another configuration than the file at hand, and whose last reload was refused: what
//! `streamfleet status` says about it. Pure.

use jiff::Timestamp;

use super::text::{age, count, escape, shorten};
use crate::fleet::Outcome;
use crate::status::ProcessStatus;
use crate::store::Keys;

/// Names that are told one by one.
const NAMED: usize = 5;
/// Characters of why a file was refused.
const MAX_WHY: usize = 300;

/// Nothing if everyone runs the configuration with that fingerprint, and nothing was refused.
pub(super) fn differences(
    processes: &[ProcessStatus],
    now: Timestamp,
    at_hand: &str,
) -> Vec<String> {
    // (A rebuild keeps the file it began with, and ends.)
    let live: Vec<_> = processes
        .iter()
        .filter(|p| Keys::shadow_of(&p.subscriber).is_none())
        .filter(|p| !p.configuration.fingerprint.is_empty())
        .collect();
    let mut lines = Vec::new();
    let other = |p: &&&ProcessStatus| p.configuration.fingerprint != at_hand;
    for (generation, processes) in
        grouped(live.iter().filter(other), |p| p.configuration.generation)
    {
        let who = match processes.len() == live.len() {
            true if live.len() > 1 => format!("all {} processes", live.len()),
            _ => names(&processes),
        };
        lines.push(format!(
            "configuration {generation}, another than that of routing.yaml here, is run by {who}"
        ));
    }
    let refused = |p: &&ProcessStatus| match &p.configuration.reload.as_ref()?.outcome {
        Outcome::Refused(why) => Some(why.clone()),
        _ => None,
    };
    let refusers = live.iter().filter(|p| refused(p).is_some());
    for (why, processes) in grouped(refusers, |p| refused(&p)) {
        let last = processes
            .iter()
            .filter_map(|p| p.configuration.reload.as_ref());
        let since = last.map(|reload| reload.at).max();
        let since = since.and_then(|at| u64::try_from(now.duration_since(at).as_millis()).ok());
        lines.push(format!(
            "REFUSED {} ago by {}: {}",
            age(since.or(Some(0))),
            names(&processes),
            shorten(&why.unwrap_or_default(), MAX_WHY)
        ));
    }
    lines
}

/// In the order of their first members.
fn grouped<'a, K: PartialEq>(
    processes: impl Iterator<Item = &'a &'a ProcessStatus>,
    key: impl Fn(&'a ProcessStatus) -> K,
) -> Vec<(K, Vec<&'a ProcessStatus>)> {
    let mut groups: Vec<(K, Vec<&ProcessStatus>)> = Vec::new();
    for process in processes {
        let key = key(process);
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) => members.push(process),
            None => groups.push((key, vec![process])),
        }
    }
    groups
}

fn names(processes: &[&ProcessStatus]) -> String {
    let name = |p: &&ProcessStatus| format!("{} {}", escape(&p.subscriber), escape(&p.name));
    let named: Vec<_> = processes.iter().take(NAMED).map(name).collect();
    match processes.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {}", named.join(", "), count(more as u64, "other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Configuration, Reload};

    fn process(subscriber: &str, fingerprint: &str, refused: Option<&str>) -> ProcessStatus {
        let reload = refused.map(|why| Reload {
            at: Timestamp::UNIX_EPOCH,
            outcome: Outcome::Refused(why.into()),
        });
        let configuration = Configuration {
            generation: 1,
            fingerprint: fingerprint.into(),
            taken: 1,
            reload,
        };
        ProcessStatus {
            subscriber: subscriber.into(),
            name: "n-1".into(),
            configuration,
            ..ProcessStatus::default()
        }
    }

    fn said(processes: Vec<ProcessStatus>) -> Vec<String> {
        differences(&processes, Timestamp::from_second(7).unwrap(), "here")
    }

    #[test]
    fn nothing_is_said_while_all_agree() {
        let rebuild = process("a-service@1", "other", None);
        let older = process("b-service", "", None);
        let fine = process("a-service", "here", None);
        assert!(said(vec![fine, rebuild, older]).is_empty());
    }

    #[test]
    fn who_differs_and_who_refused_stands_out() {
        let why = "routing.yaml:3:1: error: no";
        let lines = said(vec![
            process("a-service", "here", None),
            process("b-service", "other", Some(why)),
            process("router", "other", Some(why)),
        ]);
        let who = "b-service n-1, router n-1";
        assert_eq!(
            lines,
            [
                format!("configuration 1, another than that of routing.yaml here, is run by {who}"),
                format!("REFUSED 7s ago by {who}: {why}"),
            ]
        );
        let all = (0..7).map(|_| process("a-service", "other", None));
        let all = said(all.collect());
        assert!(all[0].ends_with("is run by all 7 processes"), "{all:?}");
    }
}
