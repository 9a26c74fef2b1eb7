//! Patterns: whether a regular expression is one that RE2 takes.
//!
//! Owns: what RE2 lacks beside what the parser takes. May use: regex-syntax. Never: matches anything.

use regex_syntax::ast::{self, Ast, ClassSetBinaryOp, Flag, FlagsItem, FlagsItemKind, Visitor};

/// RE2 repeats at most this often.
const MOST_REPETITIONS: u32 = 1000;

/// Whether RE2 takes `pattern`; otherwise why not.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    groups(pattern).map(drop)
}

/// How many groups `pattern` has; why RE2 does not take it.
pub(super) fn groups(pattern: &str) -> Result<usize, String> {
    if pattern.is_empty() {
        return Err("it is empty".to_owned());
    }
    let ast = ast::parse::Parser::new().parse(pattern).map_err(|error| error.kind().to_string())?;
    ast::visit(&ast, Re2)?;
    regex_syntax::hir::translate::Translator::new()
        .translate(pattern, &ast)
        .map(|pattern| pattern.properties().explicit_captures_len())
        .map_err(|error| error.kind().to_string())
}

/// Refuses what the parser takes and RE2 does not.
struct Re2;

impl Visitor for Re2 {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        let flags = |items: &[FlagsItem]| match items.iter().find_map(|item| match item.kind {
            FlagsItemKind::Flag(Flag::CRLF) => Some('R'),
            FlagsItemKind::Flag(Flag::Unicode) => Some('u'),
            FlagsItemKind::Flag(Flag::IgnoreWhitespace) => Some('x'),
            FlagsItemKind::Flag(
                Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed,
            )
            | FlagsItemKind::Negation => None,
        }) {
            Some(flag) => Err(format!("the flag {flag} is not supported")),
            None => Ok(()),
        };
        match ast {
            Ast::Flags(set) => flags(&set.flags.items),
            Ast::Group(group) => group.flags().map_or(Ok(()), |set| flags(&set.items)),
            Ast::Repetition(repetition) => {
                let most = match &repetition.op.kind {
                    ast::RepetitionKind::Range(
                        ast::RepetitionRange::Exactly(n)
                        | ast::RepetitionRange::AtLeast(n)
                        | ast::RepetitionRange::Bounded(_, n),
                    ) => *n,
                    _ => 0,
                };
                let allowed = most <= MOST_REPETITIONS;
                allowed.then_some(()).ok_or_else(|| format!("it repeats more than {MOST_REPETITIONS} times"))
            }
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText
                | ast::AssertionKind::WordBoundary
                | ast::AssertionKind::NotWordBoundary => Ok(()),
                _ => Err("word boundaries are written \\b and \\B only".to_owned()),
            },
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), String> {
        Err("operations on character classes are not supported".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_re2() {
        for valid in ["/a/[0-9]+", "(?i)abc", "^/x$", r"\d{1,1000}", r"\bword\b", "(?P<n>a)"] {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for (invalid, reason) in [
            ("", "it is empty"),
            ("(a", "unclosed group"),
            ("a(?=b)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", "backreferences are not supported"),
            ("a{1001}", "it repeats more than 1000 times"),
            ("(?x)a b", "the flag x is not supported"),
            ("[a-z&&[^b]]", "operations on character classes are not supported"),
        ] {
            assert_eq!(check(invalid), Err(reason.to_owned()), "{invalid}");
        }
    }
}
