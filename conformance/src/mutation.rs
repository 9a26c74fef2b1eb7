//! Mutation: rules that nobody wrote, made of those that somebody did.
//!
//! Owns: which word of a case takes the place of which. May use: rand, from a seed. Never: knows a kind: what
//! becomes of a document is for others to say.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// One of `cases` with some of its words replaced by words of any, by the number `seed`.
pub fn mutated(cases: &[String], seed: u64) -> String {
    let mut numbers = StdRng::seed_from_u64(seed);
    let Some(case) = cases.choose(&mut numbers) else { return String::new() };
    let mut text = case.clone();
    mutate(&mut text, cases, &mut numbers);
    text
}

/// Replaces some words of `text` by words of `cases`.
pub fn mutate(text: &mut String, cases: &[String], numbers: &mut StdRng) {
    for _ in 0..numbers.random_range(1..=4) {
        let Some(from) = cases.choose(numbers) else { continue };
        let (places, words) = (values(text), values(from));
        if let (Some(place), Some(word)) = (places.choose(numbers), words.choose(numbers)) {
            text.replace_range(place.clone(), &from[word.clone()]);
        }
    }
}

/// Where the values stand: whatever is no key, no bracket and no comment.
fn values(text: &str) -> Vec<Range<usize>> {
    let mut values = Vec::new();
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let start = line_start;
        line_start += line.len();
        let header = ["#", "apiVersion:", "kind:", "---"].iter().any(|header| line.starts_with(header));
        if header {
            continue;
        }
        let mut word: Option<usize> = None;
        let mut quoted = false;
        for (at, c) in line.char_indices() {
            let ends = !quoted && matches!(c, ' ' | ',' | '[' | ']' | '{' | '}' | '\n');
            quoted ^= c == '"';
            match (ends, word) {
                (false, None) => word = Some(at),
                (true, Some(from)) => {
                    word = None;
                    let is_key = line[from..at].ends_with(':') || matches!(&line[from..at], "-" | "|");
                    if !is_key {
                        values.push(start + from..start + at);
                    }
                }
                (false, Some(_)) | (true, None) => {}
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_places_and_keys_stay() {
        let text = "# a comment\nkind: Mesh\nspec:\n  - {a: \"b, c\", d: [e, 7]}\n";
        let found: Vec<&str> = values(text).into_iter().map(|place| &text[place]).collect();
        assert_eq!(found, ["\"b, c\"", "e", "7"]);
        let cases = [text.to_owned()];
        assert_eq!(mutated(&cases, 3), mutated(&cases, 3));
        assert!((0..20).any(|seed| mutated(&cases, seed) != text));
        assert_eq!(mutated(&[], 3), "");
    }
}
