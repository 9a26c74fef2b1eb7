//! Layout, and that no cell steers the terminal.

use super::*;

#[test]
fn columns_are_aligned_two_blanks_apart_and_control_characters_are_shown() {
    let rows = [["a", "grüße", "1"], ["longer\x1b[2J\r\n", "", "2"]].map(|row| row.map(str::to_owned));
    assert_eq!(
        render(["NAME", "WORD", "N"], rows),
        "\
NAME                 WORD   N
a                    grüße  1
longer\\u{1b}[2J\\r\\n         2
"
    );
}

#[test]
fn ages_shares_and_cuts() {
    let now = rfc3339::parse("2026-01-02T00:00:00Z").expect("valid");
    let ages = ["2026-01-01T23:59:57Z", "2026-01-01T23:00:01Z", "2026-01-01T03:00:00Z", "2025-12-30T00:00:00Z"];
    assert_eq!(ages.map(|then| age(then, now)), ["3s", "59m", "21h", "3d"]);
    assert_eq!(["2026-01-02T00:00:09Z", "soon"].map(|then| age(then, now)), ["0s", "soon"]);
    let shares = [None, Some(0.0), Some(0.00001), Some(0.5), Some(0.973), Some(0.99999), Some(1.0)];
    assert_eq!(shares.map(per_cent), ["-", "0%", "0.1%", "50%", "97.3%", "99.9%", "100%"]);
    assert_eq!(
        [(6, false), (20, false), (6, true)].map(|(n, wide)| cut("one two three", n, wide)),
        ["one...", "one two three", "one two three"]
    );
}
