//! What goes together, apart from Redis: pure functions.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Of a larger order, only so many products count as bought together: what a wholesaler orders in
/// one go says little about what goes with what, and there are pairs as its square.
pub(crate) const MAX_BASKET: usize = 32;
/// So many views of one user are remembered.
pub(crate) const MAX_HISTORY: usize = 50;
/// Views of one user that are no farther apart than this were one visit.
const VISIT: SignedDuration = SignedDuration::from_mins(30);

/// The different products of an order, in its order, `MAX_BASKET` at most.
pub(crate) fn basket(products: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut basket = Vec::new();
    for product in products {
        if basket.len() == MAX_BASKET {
            break;
        }
        if !basket.contains(&product) {
            basket.push(product);
        }
    }
    basket
}

/// Each product of a basket with each other one, both ways round.
pub(crate) fn pairs(basket: &[i64]) -> impl Iterator<Item = (i64, i64)> {
    basket
        .iter()
        .flat_map(move |a| basket.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a != b)
}

/// One view of a product page. Ordered by event time; at the same time by event ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) at: Timestamp,
    pub(crate) by: Uuid,
    pub(crate) product_id: i64,
}

/// The newest views of one user, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct History {
    views: Vec<View>,
}

impl History {
    /// Remembers a view, wherever in time it belongs; answers the other products of that visit,
    /// once per view of them. Of two views the one that arrives second finds the first, so each
    /// pair is found once, whatever the order; that ends where `MAX_HISTORY` newer views of the
    /// same user arrived before the second. A view that is there already finds nothing.
    pub(crate) fn remember(&mut self, view: View) -> Vec<i64> {
        if self.views.contains(&view) {
            return Vec::new();
        }
        let same_visit = |other: &&View| view.at.duration_since(other.at).abs() <= VISIT;
        let others = self.views.iter().filter(same_visit);
        let others = others
            .map(|other| other.product_id)
            .filter(|product| *product != view.product_id)
            .collect();
        let older = self.views.partition_point(|other| *other > view);
        self.views.insert(older, view);
        self.views.truncate(MAX_HISTORY);
        others
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn view(minute: i64, id: usize, product_id: i64) -> View {
        View {
            at: Timestamp::from_second(minute * 60).unwrap(),
            by: Uuid::from_u128(id as u128),
            product_id,
        }
    }

    #[test]
    fn a_basket_has_each_product_once_and_is_bounded() {
        assert_eq!(basket([3, 1, 3, 2, 1]), [3, 1, 2]);
        let pairs: Vec<_> = pairs(&[1, 2]).collect();
        assert_eq!(pairs, [(1, 2), (2, 1)]);
        let large = basket(0..1_000);
        assert_eq!(large, (0..MAX_BASKET as i64).collect::<Vec<_>>());
        // With what else an order asks for, well below what one commit may carry.
        assert!(super::pairs(&large).count() < 1_000);
    }

    #[test]
    fn views_of_one_visit_go_together() {
        let mut history = History::default();
        assert_eq!(history.remember(view(0, 1, 10)), [0; 0]);
        assert_eq!(history.remember(view(30, 2, 20)), [10]);
        assert_eq!(
            history.remember(view(60, 3, 30)),
            [20],
            "an hour is two visits"
        );
        assert_eq!(
            history.remember(view(15, 4, 40)),
            [20, 10],
            "a late one finds both sides"
        );
        assert_eq!(history.remember(view(16, 5, 40)), [20, 10], "not itself");
        assert_eq!(
            history.remember(view(16, 5, 40)),
            [0; 0],
            "the same event again"
        );
    }

    #[test]
    fn the_newest_views_are_remembered_whatever_order_they_come_in() {
        let views: Vec<_> = (0..MAX_HISTORY + 20)
            .map(|n| view(n as i64, n, n as i64))
            .collect();
        let run = |views: &mut dyn Iterator<Item = &View>| {
            let mut history = History::default();
            for view in views {
                history.remember(view.clone());
            }
            history
        };
        let history = run(&mut views.iter());
        assert_eq!(run(&mut views.iter().rev()), history);
        let newest_first: Vec<_> = views.iter().rev().take(MAX_HISTORY).cloned().collect();
        assert_eq!(history.views, newest_first);
    }

    proptest::proptest! {
        /// As long as the history holds them all, every order finds the same pairs equally often.
        #[test]
        fn pairs_are_counted_alike_for_every_order(
            events in proptest::collection::vec((0..120_i64, 0..5_i64), 1..MAX_HISTORY),
            order in proptest::collection::vec(0..MAX_HISTORY, 0..2 * MAX_HISTORY),
        ) {
            let run = |ids: &mut dyn Iterator<Item = usize>| {
                let (mut history, mut counts) = (History::default(), BTreeMap::new());
                for id in ids {
                    let (minute, product) = events[id];
                    for other in history.remember(view(minute, id, product)) {
                        *counts.entry((product.min(other), product.max(other))).or_insert(0) += 1;
                    }
                }
                (history, counts)
            };
            let in_order = run(&mut (0..events.len()));
            let again = order.iter().map(|i| i % events.len());
            assert_eq!(run(&mut again.chain((0..events.len()).rev())), in_order);
        }
    }
}
