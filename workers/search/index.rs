//! Under which words a product is found, apart from Redis: pure functions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::latest::Stamp;
use super::product::{Change, Product};

/// A product is found by so many different words: those of its name, then those of its text.
const MAX_TOKENS: usize = 100;
/// A longer run of letters and digits is not a word that anyone types.
const MAX_TOKEN_CHARS: usize = 64;

/// What is known of a product, and the words under which it is in the index now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) product: Product,
    /// Stored, not computed again: another version of this program may take texts apart in
    /// another way, and must still take out what this one put in.
    pub(crate) tokens: BTreeSet<String>,
}

impl Entry {
    /// The entry as it is when this event is known as well, whatever its age.
    pub(crate) fn after(&self, change: Change, stamp: Stamp) -> Self {
        let mut product = self.product.clone();
        product.apply(change, stamp);
        let tokens = match product.shown_as() {
            Some(name) => {
                let text = product.description.as_ref().map(|text| &*text.value);
                tokens([name, text.unwrap_or_default()])
            }
            None => BTreeSet::new(),
        };
        Self { product, tokens }
    }
}

/// The words of texts: runs of letters and digits, in lower case. The first `MAX_TOKENS` different
/// ones.
pub(crate) fn tokens<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let words = texts
        .into_iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    let mut tokens = BTreeSet::new();
    for word in words {
        // Some letters become two, of which the second is a mark on the first: `İ`.
        let mut token = word.to_lowercase();
        token.retain(char::is_alphanumeric);
        if (1..=MAX_TOKEN_CHARS).contains(&token.chars().count()) {
            tokens.insert(token);
        }
        if tokens.len() == MAX_TOKENS {
            break;
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        tokens([text]).into_iter().collect()
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(
            of("WHITE HANGING HEART T-LIGHT"),
            ["hanging", "heart", "light", "t", "white"]
        );
        assert_eq!(of("Crème BRÛLÉE, 2x"), ["2x", "brûlée", "crème"]);
        assert_eq!(of("ΣΊΣΥΦΟΣ straße İzmir"), ["izmir", "straße", "σίσυφος"]);
        assert_eq!(of("緑茶 100%"), ["100", "緑茶"]);
        assert_eq!(of(" -:* \r\n"), [""; 0]);
        assert_eq!(tokens(["Tea", "tea green"]).len(), 2);
    }

    #[test]
    fn there_are_so_many_of_so_many_letters_and_no_more() {
        let many: String = (0..10_000).map(|n| format!("w{n} ")).collect();
        assert_eq!(tokens([&*many]).len(), MAX_TOKENS);
        let with_name = tokens(["name", &*many]);
        assert!(with_name.contains("name"), "the name comes first");
        assert_eq!(of(&"x".repeat(MAX_TOKEN_CHARS + 1)), [""; 0]);
        assert_eq!(of(&"é".repeat(MAX_TOKEN_CHARS)).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn tokens_are_plain_words_and_their_own_tokens(text in "\\PC{0,200}") {
            let found = tokens([&*text]);
            assert!(found.len() <= MAX_TOKENS);
            for token in &found {
                assert!(token.chars().all(char::is_alphanumeric), "{token:?}");
                assert_eq!(of(token), [&**token], "whoever asks for a word finds it");
            }
        }

        /// Whatever order events come in and however often, the entry is the same.
        #[test]
        fn an_entry_is_the_same_for_every_order(
            events in proptest::collection::vec((0..5_i64, 0..4_usize, 0..4_usize), 1..8),
            order in proptest::collection::vec(0..8_usize, 0..16),
        ) {
            use super::super::product::Status;
            let change = |id: usize| {
                let (second, name, status) = events[id];
                let status = [None, Some(Status::Draft), Some(Status::Published), Some(Status::Archived)][status];
                let name = [None, Some("Green Tea"), Some("Black tea"), Some("Mug")][name];
                let change = Change { name: name.map(str::to_owned), status, ..Change::default() };
                let at = jiff::Timestamp::from_second(second).unwrap();
                (change, Stamp { at, by: uuid::Uuid::from_u128(id as u128) })
            };
            let run = |ids: &mut dyn Iterator<Item = usize>| ids.fold(Entry::default(), |entry, id| {
                let (change, stamp) = change(id);
                entry.after(change, stamp)
            });
            let in_order = run(&mut (0..events.len()));
            let again = order.iter().map(|i| i % events.len());
            let any = run(&mut again.chain((0..events.len()).rev()));
            assert_eq!(any, in_order);
            assert_eq!(any.tokens.is_empty(), any.product.shown_as().is_none());
        }
    }
}
