//! Findings about what is configured: leases, retention, memory.

use std::time::Duration;

use super::super::Finding;
use super::super::facts::Facts;
use super::{Weight, finding, long};

/// Shorter leases are lost to a pause of Redis or of the machine.
const SHORT_LEASE: Duration = Duration::from_secs(5);
/// A handler call that may take so many leases keeps its slot for long if it hangs.
const LEASES_PER_CALL: u32 = 10;
/// How near an end must be to be worth a word.
const NEAR: Duration = Duration::from_secs(72 * 3_600);
/// At least so many entries should be in one node of a stream.
const ENTRIES_PER_NODE: f64 = 16.0;
/// What is advised at most: an entry is found by walking its node.
const LARGEST_NODE: u64 = 65_536;

pub(super) fn settings(facts: &Facts, found: &mut Vec<Finding>) {
    for one in facts.routing.subscribers() {
        let about = format!("subscriber {}", one.name);
        let streams = facts.routing.streams_of(&one.name);
        let Some(stream) = streams.first() else {
            continue;
        };
        let proof = || facts.proof.known_group(stream, &one.name);
        if one.lease < SHORT_LEASE {
            found.push(finding(
                Weight::Note,
                about.clone(),
                format!("its lease of {} is short: a pause of Redis or of a machine hands its deliveries to others", long(one.lease)),
                proof(),
                format!("lease: {}, or longer", long(SHORT_LEASE)),
            ));
        }
        if one.timeout > one.lease * LEASES_PER_CALL {
            found.push(finding(
                Weight::Note,
                about.clone(),
                format!(
                    "a handler that hangs keeps its slot for its timeout of {}, however short the lease ({})",
                    long(one.timeout),
                    long(one.lease)
                ),
                proof(),
                "a timeout that is as long as the slowest call that is sound",
            ));
        }
        let record = facts
            .groups
            .get(&(stream.to_string(), one.name.to_string()));
        let recorded = record.map(|record| Duration::from_millis(record.lease_ms));
        if let Some(recorded) = recorded.filter(|recorded| *recorded > one.lease) {
            found.push(finding(
                Weight::Note,
                about,
                format!(
                    "its group once had a lease of {}, and keeps it: that long, and not {}, until another worker takes over",
                    long(recorded),
                    long(one.lease)
                ),
                proof(),
                "nothing, if that is soon enough; a group that is retired and created again has the new one",
            ));
        }
    }
}

pub(super) fn streams(facts: &Facts, found: &mut Vec<Finding>) {
    for stream in facts.routing.streams() {
        let about = format!("stream {}", stream.name);
        if stream.maxlen.is_none() && stream.retention.is_none() {
            found.push(finding(
                Weight::Warning,
                about.clone(),
                "it has neither maxlen nor retention: it grows until Redis is full",
                facts.proof.length(&stream.name),
                format!(
                    "in routing.yaml, at streams.{}: retention: 30d, or maxlen: 100000",
                    stream.name
                ),
            ));
        }
        let Some(size) = facts.sizes.iter().find(|size| size.name == *stream.name) else {
            continue;
        };
        let Some(max) = stream.maxlen else {
            continue;
        };
        if size.entries > max.saturating_add(max / 10).saturating_add(1_000) {
            let snapshot = facts.snapshot.as_ref();
            let groups = snapshot.map(|s| s.groups.as_slice()).unwrap_or_default();
            let of = groups.iter().filter(|group| group.stream == *stream.name);
            let slowest = of.max_by_key(|group| {
                let pair = (group.stream.clone(), group.subscriber.clone());
                let owed = facts.oldest_ms.get(&pair).copied();
                group.oldest_waiting_ms.max(owed)
            });
            let by = slowest.map_or("a group", |group| &group.subscriber);
            found.push(finding(
                Weight::Warning,
                about,
                format!(
                    "it has {} entries, more than its maxlen of {max}: {by} has not settled what would go",
                    size.entries
                ),
                facts.proof.length(&stream.name),
                format!("see why {by} is slow: streamfleet pending {by}, streamfleet capacity {by}"),
            ));
        } else if size.entries < max
            && let Some(left) = size.until(max).filter(|left| *left < NEAR)
        {
            found.push(finding(
                Weight::Note,
                about,
                format!(
                    "it has {} of {max} entries; in about {} the oldest go",
                    size.entries,
                    long(left)
                ),
                facts.proof.length(&stream.name),
                "nothing, if that is enough history; else a larger maxlen",
            ));
        }
    }
}

pub(super) fn memory(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(memory) = facts.memory else {
        return;
    };
    let grows = facts.routing.streams().filter_map(|stream| {
        let size = facts.sizes.iter().find(|size| size.name == *stream.name)?;
        Some(size.bytes_per_hour(stream.maxlen, stream.retention))
    });
    let per_hour: f64 = grows.sum();
    let proof = facts.proof.info("memory");
    let fix = "a larger maxmemory, or less history (maxlen, retention)";
    match memory.share() {
        None => found.push(finding(
            Weight::Note,
            "memory",
            "maxmemory is not set: nothing pauses the router before the machine has no memory left",
            proof,
            "CONFIG SET maxmemory to what Redis may take (and in redis.conf)",
        )),
        Some(share) if memory.is_full() => found.push(finding(
            Weight::Error,
            "memory",
            format!(
                "{:.0} % of maxmemory is used: the router pauses from 80 % on",
                share * 100.0
            ),
            proof,
            fix,
        )),
        Some(share) => {
            let left = memory.until_full(per_hour).filter(|left| *left < NEAR);
            if let Some(left) = left {
                found.push(finding(
                    Weight::Warning,
                    "memory",
                    format!(
                        "{:.0} % of maxmemory is used; as the streams grow, the router pauses in about {}",
                        share * 100.0,
                        long(left)
                    ),
                    proof,
                    fix,
                ));
            }
        }
    }
    nodes(facts, memory.node_max_bytes, found);
}

/// Large entries in small nodes: each node has an overhead, and repeats the names of the fields.
fn nodes(facts: &Facts, node: Option<u64>, found: &mut Vec<Finding>) {
    let Some(node) = node.filter(|node| *node > 0) else {
        return;
    };
    let busy = facts.sizes.iter().filter(|size| size.per_hour().is_some());
    let Some(largest) = busy.max_by(|a, b| a.bytes.cmp(&b.bytes)) else {
        return;
    };
    let entry = largest.bytes_per_entry();
    let advised = ((entry * ENTRIES_PER_NODE) as u64)
        .next_power_of_two()
        .min(LARGEST_NODE);
    if advised > node {
        found.push(finding(
            Weight::Note,
            "memory",
            format!(
                "about {:.0} entries of {} ({entry:.0} bytes each) fit into a node of {node} bytes",
                (node as f64 / entry).max(1.0),
                largest.name
            ),
            facts.proof.of(&["CONFIG", "GET", "stream-node-max-bytes"]),
            format!("CONFIG SET stream-node-max-bytes {advised} (and in redis.conf): less memory for each entry"),
        ));
    }
}
