//! The hops of a flow as a tree of events, each below the one that caused it. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use uuid::Uuid;

use super::hop::{Hop, What};
use crate::store::EntryId;

/// Levels that a tree may have: an event further down stands at the top. (Follow-ups stop sooner.)
const MAX_DEPTH: usize = 64;

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// When its first hop was told.
    pub began: EntryId,
    /// When its last hop was told.
    pub ended: EntryId,
    /// The events that no traced event caused, oldest first.
    pub roots: Vec<Node>,
}

/// An event, what happened to it, and the events that it caused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The event.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// The event that caused it, traced or not.
    pub causation_id: Option<Uuid>,
    /// What happened, oldest first.
    pub hops: Vec<Step>,
    /// The events that it caused, oldest first.
    pub caused: Vec<Node>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// How long after the first hop of the flow, milliseconds.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

impl Tree {
    /// Builds it from hops in the order in which they were told; nothing of none.
    pub fn build(hops: Vec<Hop>) -> Option<Self> {
        let (began, ended) = (hops.first()?.at, hops.last()?.at);
        let mut order = Vec::new();
        let mut nodes: HashMap<Uuid, Node> = HashMap::new();
        for hop in hops {
            let node = nodes.entry(hop.event).or_insert_with(|| {
                order.push(hop.event);
                Node {
                    event_id: hop.event,
                    event_type: hop.event_type,
                    causation_id: hop.cause,
                    hops: Vec::new(),
                    caused: Vec::new(),
                }
            });
            node.hops.push(Step {
                at_ms: hop.at.ms.saturating_sub(began.ms),
                what: hop.what,
            });
        }
        nodes
            .values_mut()
            .for_each(|node| routed_first(&mut node.hops));
        let mut caused: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        let mut tops = Vec::new();
        for &event in &order {
            let cause = nodes.get(&event).and_then(|node| node.causation_id);
            match cause.filter(|cause| *cause != event && nodes.contains_key(cause)) {
                Some(cause) => caused.entry(cause).or_default().push(event),
                None => tops.push(event),
            }
        }
        let mut seen = HashSet::new();
        let mut roots = Vec::new();
        // What is left after the tops was said to cause each other in a circle, or lies too deep.
        for event in tops.into_iter().chain(order) {
            roots.extend(grow(event, &mut nodes, &caused, &mut seen, 0));
        }
        Some(Self {
            began,
            ended,
            roots,
        })
    }

    /// How many events there are.
    pub fn events(&self) -> usize {
        fn count(nodes: &[Node]) -> usize {
            nodes.iter().map(|node| 1 + count(&node.caused)).sum()
        }
        count(&self.roots)
    }
}

/// Nothing happens to an event before it is routed; but each process tells its own hops, and the
/// router may be the later one by a moment.
fn routed_first(hops: &mut [Step]) {
    let refused = hops
        .iter()
        .take_while(|step| matches!(step.what, What::Refused { .. }));
    let first = refused.count();
    let routed = hops
        .iter()
        .position(|step| matches!(step.what, What::Routed { .. }));
    let Some(late) = routed.and_then(|at| hops.get_mut(first..=at)) else {
        return;
    };
    late.rotate_right(1);
    if let [routed, next, ..] = late {
        routed.at_ms = routed.at_ms.min(next.at_ms);
    }
}

fn grow(
    event: Uuid,
    nodes: &mut HashMap<Uuid, Node>,
    caused: &BTreeMap<Uuid, Vec<Uuid>>,
    seen: &mut HashSet<Uuid>,
    depth: usize,
) -> Option<Node> {
    if depth == MAX_DEPTH || !seen.insert(event) {
        return None;
    }
    let mut node = nodes.remove(&event)?;
    for &next in caused.get(&event).into_iter().flatten() {
        node.caused
            .extend(grow(next, nodes, caused, seen, depth + 1));
    }
    Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(ms: u64, event: u128, cause: Option<u128>) -> Hop {
        Hop {
            at: EntryId { ms, seq: 0 },
            event: Uuid::from_u128(event),
            event_type: format!("Test.Event{event}"),
            cause: cause.map(Uuid::from_u128),
            what: What::Routed {
                stream: "s".into(),
                to: String::new(),
            },
        }
    }

    /// The shape: events with what they caused in brackets.
    fn shape(nodes: &[Node]) -> String {
        let one = |node: &Node| {
            let caused = match node.caused.as_slice() {
                [] => String::new(),
                caused => format!("({})", shape(caused)),
            };
            format!("{}{caused}", node.event_id.as_u128())
        };
        nodes.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn events_stand_below_what_caused_them_in_the_order_of_time() {
        assert_eq!(Tree::build(Vec::new()), None);
        let tree = Tree::build(vec![
            hop(100, 1, None),
            hop(110, 2, Some(1)),
            hop(120, 3, Some(2)),
            hop(125, 4, Some(1)),
            hop(130, 1, None),
            hop(140, 5, Some(99)),
        ])
        .unwrap();
        assert_eq!(shape(&tree.roots), "1(2(3) 4) 5");
        assert_eq!(tree.events(), 5);
        assert_eq!((tree.began.ms, tree.ended.ms), (100, 140));
        let at: Vec<_> = tree.roots[0].hops.iter().map(|step| step.at_ms).collect();
        assert_eq!(at, [0, 30]);
    }

    #[test]
    fn an_event_is_routed_before_anything_else_happens_to_it() {
        let refused = || What::Refused {
            reason: "r".into(),
            error: "e".into(),
        };
        let handled = || What::Handled {
            subscriber: "a".into(),
            attempt: 1,
            took_us: 1,
        };
        let told = |ms, what| Hop {
            what,
            ..hop(ms, 1, None)
        };
        let routed = || hop(0, 1, None).what;
        let hops = vec![
            told(10, refused()),
            told(20, handled()),
            told(21, routed()),
            told(22, handled()),
            told(30, routed()),
        ];
        let tree = Tree::build(hops).unwrap();
        let hops = &tree.roots[0].hops;
        let what: Vec<_> = hops.iter().map(|step| step.what.clone()).collect();
        assert_eq!(what, [refused(), routed(), handled(), handled(), routed()]);
        assert_eq!(hops[1].at_ms, 10);
    }

    #[test]
    fn none_is_lost_whatever_they_say_of_their_causes() {
        let circle = vec![hop(1, 1, Some(2)), hop(2, 2, Some(1)), hop(3, 3, Some(3))];
        assert_eq!(shape(&Tree::build(circle).unwrap().roots), "3 1(2)");
        let chain: Vec<_> = (1..=200).map(|n| hop(n as u64, n, Some(n - 1))).collect();
        assert_eq!(Tree::build(chain).unwrap().events(), 200);
    }
}
