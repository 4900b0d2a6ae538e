//! Places, duplicates and bounds of the tree.

use super::*;

fn parse(text: &str) -> Result<Node, String> {
    Node::parse(Path::new("r.yaml"), text).map_err(|problem| problem.to_string())
}

#[test]
fn places_of_keys_and_values() {
    let tree = parse("a: 1\nb:\n  c: [x, \"y\"]\n  d: {e: true}\n").unwrap();
    let at = |path: &[&str]| {
        let Place { line, column } = tree.place_of(path);
        (line, column)
    };
    assert_eq!(at(&["a"]), (1, 4));
    assert_eq!(at(&["b"]), (2, 1));
    assert_eq!(at(&["b", "c"]), (3, 3));
    assert_eq!(at(&["b", "c", "1"]), (3, 10));
    assert_eq!(at(&["b", "d", "e"]), (4, 10));
    assert_eq!(at(&["b", "d", "absent"]), (4, 3));
    assert_eq!(
        tree.key_place_of(&["b", "d", "e"]),
        Place { line: 4, column: 7 }
    );
    assert_eq!(
        tree.to_json(),
        serde_json::json!({"a": 1, "b": {"c": ["x", "y"], "d": {"e": true}}})
    );
}

#[test]
fn all_duplicates_are_found() {
    let mut tree = parse("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n").unwrap();
    let mut found = tree.take_duplicates();
    found.sort_by_key(|(_, _, again)| *again);
    let keys: Vec<_> = found
        .iter()
        .map(|(k, _, p)| (k.as_str(), p.line, p.column))
        .collect();
    assert_eq!(keys, [("c", 2, 11), ("a", 3, 1), ("a", 4, 1)]);
    assert_eq!(tree.to_json()["a"], 1);
}

#[test]
fn what_was_refused_is_swept_without_moving_the_rest() {
    let mut tree = parse("a: [x, y, z]\nb: 1\n").unwrap();
    tree.refuse(&["a", "0"]);
    tree.refuse(&["a", "1"]);
    tree.refuse(&["b"]);
    tree.sweep();
    assert_eq!(tree.to_json(), serde_json::json!({"a": ["z"]}));
    assert_eq!(
        tree.place_of(&["a", "0"]),
        Place {
            line: 1,
            column: 11
        }
    );
}

#[test]
fn anchors_and_merges_are_plain_values() {
    let mut tree = parse("a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\n").unwrap();
    assert!(tree.take_duplicates().is_empty());
    assert_eq!(tree.to_json()["b"], serde_json::json!({"p": 1, "q": 2}));
    assert_eq!(tree.to_json()["c"], serde_json::json!({"p": 1, "q": 3}));
    assert_eq!(tree.place_of(&["b", "p"]).line, 2);
}

#[test]
fn syntax_errors_have_places() {
    assert!(
        parse("a: [1, 2\nb: 3\n")
            .unwrap_err()
            .starts_with("r.yaml:")
    );
    for (text, start) in [
        ("a: [*.Created]\n", "r.yaml:1:5: error: a bare `*`"),
        ("x: 1\n*.Created: [a]\n", "r.yaml:2:1: error: a bare `*`"),
        ("a:\n  - **\n", "r.yaml:2:5: error: a bare `*`"),
        ("a: \"*\"\nb: *\n", "r.yaml:2:4: error: a bare `*`"),
        ("a: *nothing\n", "r.yaml:1:4: error: not valid YAML"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(start), "{text:?}: {error}");
    }
}

#[test]
fn alias_bombs_and_towers_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert!(
        parse(&bomb).unwrap_err().contains("unfolds to more"),
        "{:?}",
        parse(&bomb)
    );
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&"- ".repeat(50_000)).is_err());
    assert!(parse("a: &a [*a]\n").is_err());
    assert!(parse("a: 1\n---\nb: 2\n").is_err());
}
