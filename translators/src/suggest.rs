//! Which of the right words somebody may have meant.
//!
//! Owns: the distance between two words. May use: nothing of this crate. Never: decides anything.

/// `did you mean "x"?`, when one of the choices is close to what was given.
pub(crate) fn did_you_mean<S: AsRef<str>>(given: &str, choices: &[S]) -> Option<String> {
    // Of `shop/cart`, the namespace is no reason to be alike.
    let limit = given.rsplit('/').next().unwrap_or_default().chars().count().div_ceil(3);
    choices
        .iter()
        .map(|choice| (distance(given, choice.as_ref()), choice.as_ref()))
        .filter(|&(distance, choice)| distance <= limit && distance < choice.chars().count())
        .min()
        .map(|(_, choice)| format!("did you mean {choice:?}?"))
}

/// Edits (insert, remove, replace) that turn one word into the other, ignoring case.
fn distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 256;
    let right: Vec<char> = right.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().take(LONGEST).flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_meant() {
        for (given, meant) in [
            ("prots", Some("ports")),
            ("Ports", Some("ports")),
            ("endpoint", Some("endpoints")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(
                did_you_mean(given, &["ports", "endpoints"]),
                meant.map(|word| format!("did you mean {word:?}?")),
                "{given}"
            );
        }
    }
}
