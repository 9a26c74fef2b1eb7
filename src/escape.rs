//! Escape: words of others, made safe to show.
//!
//! Owns: which characters may steer a terminal or break a line, and how they are shown instead. May use: std.
//! Never: escapes for a format; JSON and Prometheus have writers of their own.

use std::borrow::Cow;

/// The text with every control character, and every character that reorders or hides text, as `\u{1b}` or `\n`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        Cow::Owned(rewritten(text, is_unsafe, |c| c.escape_default().to_string()))
    } else {
        Cow::Borrowed(text)
    }
}

/// Lines of a format, with the same characters as `escape` writes them; line ends are the format's own.
pub fn escaped_as(text: &str, escape: impl Fn(char) -> String) -> String {
    rewritten(text, |c| c != '\n' && is_unsafe(c), escape)
}

fn rewritten(text: &str, which: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> String {
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if which(c) {
            shown.push_str(&escape(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters, line and paragraph separators, bidirectional controls, zero-width characters.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_steers_a_terminal_is_shown_instead() {
        assert_eq!(escaped("a\x1b[31mb\r\nc\u{9b}d\u{202e}e"), "a\\u{1b}[31mb\\r\\nc\\u{9b}d\\u{202e}e");
        assert_eq!(escaped("grüße \\n \"quoted\""), "grüße \\n \"quoted\"");
    }
}
