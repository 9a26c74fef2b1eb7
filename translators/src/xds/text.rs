//! Texts as RE2 expressions.
//!
//! Owns: escaping, and the one wildcard of the rule language. May use: nothing. Never: lets a character of a
//! rule become an operator.

/// `text`, matched literally.
pub(super) fn literal(text: &str) -> String {
    text.chars().map(literal_char).collect()
}

/// `pattern`, in which `*` is any characters and everything else is literal.
pub(super) fn pattern(pattern: &str) -> String {
    // `\C` is any byte: `.` would leave out a line feed and what is not UTF-8, and a rule that refuses would
    // then be evaded by either.
    pattern.split('*').map(literal).collect::<Vec<_>>().join(r"\C*")
}

/// One of `texts`, literally.
pub(super) fn one_of<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    texts.into_iter().map(|text| literal(text)).collect::<Vec<_>>().join("|")
}

fn literal_char(c: char) -> String {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => c.to_string(),
        c if c.is_ascii_control() => format!(r"\x{{{:02x}}}", u32::from(c)),
        c if c.is_ascii() => format!(r"\{c}"),
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operators_are_escaped() {
        assert_eq!(literal("/a.b+c_(d)"), r"\/a\.b\+c_\(d\)");
        assert_eq!(literal("a\nb"), r"a\x{0a}b");
        assert_eq!(pattern("/cart/*/x"), r"\/cart\/\C*\/x");
        assert_eq!(one_of(&["GET".to_owned(), "M-SEARCH".to_owned()]), r"GET|M\-SEARCH");
    }

    /// Reads an expression that holds nothing but literals: what it matches, or `None`.
    fn only_text(expression: &str) -> Option<String> {
        let mut chars = expression.chars().peekable();
        let mut text = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next()? {
                    'x' => {
                        let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                        text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    c if c.is_ascii_punctuation() || c == ' ' => text.push(c),
                    _ => return None,
                },
                c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => text.push(c),
                _ => return None,
            }
        }
        Some(text)
    }

    proptest! {
        #[test]
        fn hostile_text_stays_literal(text in any::<String>()) {
            prop_assert_eq!(only_text(&literal(&text)), Some(text));
        }

        #[test]
        fn only_the_wildcard_of_a_pattern_is_an_operator(parts in prop::collection::vec("[^*]*", 1..5)) {
            let expression = pattern(&parts.join("*"));
            let read: Option<Vec<_>> = expression.split(r"\C*").map(only_text).collect();
            prop_assert_eq!(read, Some(parts));
        }
    }
}
