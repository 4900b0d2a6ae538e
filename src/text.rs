//! Text from outside on its way to somebody's eyes: of bounded length, and unable to move a
//! cursor, hide what follows or turn its direction. Pure.

use std::fmt::Write;

/// Whether a character could move the cursor, hide text or turn its direction.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Text fit for one line of a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            c if is_unsafe(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// JSON text whose strings are as safe as [`escape`] makes text, and mean the same.
pub(crate) fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of strings, JSON has no unsafe characters but these.
        if is_unsafe(c) && !matches!(c, '\n' | '\t' | '\r') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Several lines of text, each fit for a terminal.
pub(crate) fn escape_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape).collect();
    lines.join("\n")
}

/// At most `max` bytes of a text, cut at a character, with `…` to say so.
pub(crate) fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(bounded("äöü".into(), 6), "äöü");
        assert_eq!(bounded("äöüx".into(), 6), "ä…");
        assert_eq!(bounded("ä".repeat(100), 50).len(), 49);
    }

    #[test]
    fn nothing_unsafe_gets_through() {
        let nasty = "a\u{1b}[31m\u{202e}b\n\u{7f}\u{85}é\u{e0041}";
        assert_eq!(
            escape(nasty),
            "a\\u{1b}[31m\\u{202e}b\\n\\u{7f}\\u{85}é\\u{e0041}"
        );
    }
}
