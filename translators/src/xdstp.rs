//! Names of the form `xdstp://authority/type/id?parameter=value#directive`.
//!
//! Owns: what makes two of them equal, and which resources a glob (`.../*`) stands for. May use: nothing. Never: looks
//! at names of another form.

use std::borrow::Cow;

const SCHEME: &str = "xdstp:";

/// The name with its context parameters in order, so that equal names are the same text; a name of another form as it
/// is.
pub fn normalised(name: &str) -> Cow<'_, str> {
    if !name.starts_with(SCHEME) {
        return name.into();
    }
    let (path, tail) = split(name);
    let Some(query) = tail.strip_prefix('?') else { return name.into() };
    let (query, directive) = query.split_at(query.find('#').unwrap_or(query.len()));
    if query.split('&').is_sorted() {
        return name.into();
    }
    let mut parameters: Vec<&str> = query.split('&').collect();
    parameters.sort_unstable();
    format!("{path}?{}{directive}", parameters.join("&")).into()
}

/// Whether the name stands for all that is below it.
pub fn is_glob(name: &str) -> bool {
    name.starts_with(SCHEME) && split(name).0.ends_with("/*")
}

/// Every glob that stands for the resource `name` among others, the narrowest first.
pub fn globs_over(name: &str) -> impl Iterator<Item = String> {
    let (path, tail) = split(name);
    let ids = if name.starts_with(SCHEME) { path } else { "" };
    // Neither the authority nor the slashes before it are a part of the path.
    let slashes = ids.rmatch_indices('/').filter(|(at, _)| *at > SCHEME.len() + 1);
    slashes.map(move |(at, _)| format!("{}/*{tail}", &ids[..at]))
}

/// How the names begin that a glob stands for, and how they end.
pub fn around(glob: &str) -> (&str, &str) {
    let (path, tail) = split(glob);
    (path.strip_suffix('*').unwrap_or(path), tail)
}

/// Whether `name` is one that the glob stands for.
pub fn stands_for(glob: &str, name: &str) -> bool {
    let (start, end) = around(glob);
    let (path, tail) = split(name);
    tail == end && path.len() > start.len() && path.starts_with(start)
}

/// What leads to the resource, and its context parameters with its directive.
fn split(name: &str) -> (&str, &str) {
    name.split_at(name.find(['?', '#']).unwrap_or(name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_context_parameters_does_not_matter() {
        for (name, expected) in [
            ("plain?b=1&a=2", "plain?b=1&a=2"),
            ("xdstp://a/T/x", "xdstp://a/T/x"),
            ("xdstp://a/T/x?b=1&a=2", "xdstp://a/T/x?a=2&b=1"),
            ("xdstp://a/T/x?b=1&a=2#alt=y", "xdstp://a/T/x?a=2&b=1#alt=y"),
            ("xdstp://a/T/x#alt=y?b=1&a=2", "xdstp://a/T/x#alt=y?b=1&a=2"),
            ("xdstp://a/T/*?b=1&a=2", "xdstp://a/T/*?a=2&b=1"),
        ] {
            assert_eq!(normalised(name), expected);
        }
        assert!(matches!(normalised("xdstp://a/T/x?a=2&b=1"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_glob_stands_for_all_below_it_with_the_same_parameters() {
        for (glob, name, expected) in [
            ("xdstp://a/T/x/*", "xdstp://a/T/x/y", true),
            ("xdstp://a/T/x/*", "xdstp://a/T/x/y/z", true),
            ("xdstp://a/T/*", "xdstp://a/T/x/y", true),
            ("xdstp://a/T/x/*", "xdstp://a/T/xy", false),
            ("xdstp://a/T/x/*", "xdstp://a/T/x/", false),
            ("xdstp://a/T/x/*", "xdstp://a/T/x/y?k=1", false),
            ("xdstp://a/T/x/*?k=1", "xdstp://a/T/x/y?k=1", true),
            ("xdstp://a/T/x/*?k=1", "xdstp://a/T/x/y?k=2", false),
        ] {
            assert!(is_glob(glob));
            assert_eq!(stands_for(glob, name), expected, "{glob} {name}");
            assert_eq!(globs_over(name).any(|over| over == glob), expected || name.ends_with("x/"), "{glob} {name}");
        }
        assert!(!is_glob("a/*") && !is_glob("xdstp://a/T/x") && !is_glob("xdstp://a/T/x*"));
        assert_eq!(globs_over("a/b").count() + globs_over("").count(), 0);
    }
}
