//! Names that become part of Redis keys.

/// First words of our own keys. A stream, subscriber or namespace of the same name could not be
/// told from them.
const KEY_FAMILIES: [&str; 17] = [
    "inbox",
    "redrive",
    "dead",
    "attempts",
    "seen",
    "scheduled",
    "fleet",
    "worker",
    "control",
    "es",
    "entities",
    "trace",
    "audit",
    "stats",
    "snapshot",
    "sagas",
    "command",
];
const MAX_BYTES: usize = 64;

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    Namespace,
    Stream,
    Subscriber,
    /// The binary of a subscriber: no part of a key, so nothing is reserved.
    Worker,
}

impl NameKind {
    fn word(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Stream => "stream",
            Self::Subscriber => "subscriber",
            Self::Worker => "worker",
        }
    }
}

/// What is wrong with a name, and what to do about it; nothing if it can be used.
pub(super) fn name_problem(kind: NameKind, name: &str) -> Option<(String, String)> {
    let word = kind.word();
    let shown = super::structure::cut(name);
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let spelled = name.len() <= MAX_BYTES
        && name.starts_with(|c| letters(c) || (kind == NameKind::Worker && c == '-'))
        && name.chars().all(|c| letters(c) || c == '-');
    if !spelled {
        return Some((
            format!("`{shown}` cannot be the name of a {word}"),
            format!(
                "use lower-case letters, digits and hyphens, at most {MAX_BYTES}, starting with a \
                 letter or digit"
            ),
        ));
    }
    let reserved = match kind {
        NameKind::Worker => false,
        NameKind::Subscriber if name == "router" => true,
        _ => KEY_FAMILIES.contains(&name),
    };
    reserved.then(|| {
        (
            format!("`{name}` is reserved and cannot be the name of a {word}"),
            format!("choose another name, like `{name}-{word}`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let ok = |kind, name: &str| name_problem(kind, name).is_none();
        assert!(ok(NameKind::Stream, "order-events"));
        assert!(ok(NameKind::Subscriber, "2nd-service"));
        assert!(ok(NameKind::Worker, "dead"));
        for bad in ["", "-a", "Order", "a_b", "a:b", "a b", "é", "a\nb"] {
            assert!(!ok(NameKind::Stream, bad), "{bad}");
        }
        assert!(ok(NameKind::Stream, &"a".repeat(64)));
        assert!(!ok(NameKind::Stream, &"a".repeat(65)));
        for reserved in ["inbox", "scheduled", "fleet", "audit", "dead"] {
            assert!(!ok(NameKind::Stream, reserved), "{reserved}");
            assert!(!ok(NameKind::Subscriber, reserved), "{reserved}");
        }
        assert!(!ok(NameKind::Subscriber, "router"));
        assert!(ok(NameKind::Stream, "router"));
    }
}
