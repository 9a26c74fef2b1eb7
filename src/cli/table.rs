//! Tables: columns without borders, two blanks apart.
//!
//! Owns: how every listing looks, and that nothing in a cell steers the terminal. May use: comfy-table. Never:
//! decides what is listed.

use std::time::{Duration, SystemTime};

use comfy_table::{ContentArrangement, Table};

use crate::admin::rfc3339;
use crate::escape::escaped;

/// What stands for nothing.
pub const NONE: &str = "-";

/// The text, or what stands for nothing.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// The lines of a table; every cell escaped, no blanks at the end of a line.
pub fn render<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| escaped(&cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How long ago an instant of the API was: `3s`, `21h`; the text itself if it is none.
pub fn age(instant: &str, now: SystemTime) -> String {
    let Some(then) = rfc3339::parse(instant) else { return instant.to_owned() };
    span(now.duration_since(then).unwrap_or_default())
}

/// A time in its largest unit: `3s`, `21h`.
pub fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A share as per cent, never rounded up to all or down to none.
pub fn per_cent(share: Option<f64>) -> String {
    let Some(share) = share else { return NONE.to_owned() };
    let tenths = (share * 1000.0).round();
    let tenths = if share < 1.0 { tenths.min(999.0) } else { tenths };
    let tenths = if share > 0.0 { tenths.max(1.0) } else { tenths };
    if tenths % 10.0 == 0.0 { format!("{:.0}%", tenths / 10.0) } else { format!("{:.1}%", tenths / 10.0) }
}

/// The text, or its beginning and `...`, unless everything is wanted.
pub fn cut(text: &str, width: usize, wide: bool) -> String {
    if wide || text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    kept.trim_end().to_owned() + "..."
}

#[cfg(test)]
mod tests;
