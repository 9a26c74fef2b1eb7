//! Instants as RFC 3339 writes them, in UTC, to the millisecond.
//!
//! Owns: the one format of an instant in the API. May use: the time crate. Never: reads a clock.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The text of an instant. One that no date can express is the Unix epoch.
pub fn format(instant: SystemTime) -> String {
    let millis = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let nanos = i128::try_from(millis).unwrap_or_default().saturating_mul(1_000_000);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

/// The instant of a text, if it is one.
pub fn parse(text: &str) -> Option<SystemTime> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_and_read() {
        let instant = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(format(instant), "2023-11-14T22:13:20.25Z");
        assert_eq!(parse("2023-11-14T22:13:20.25Z"), Some(instant));
        assert_eq!(parse("2023-11-14T23:13:20.25+01:00"), Some(instant));
        assert_eq!(parse("yesterday"), None);
        let beyond_all_dates = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000);
        assert_eq!(format(beyond_all_dates), "1970-01-01T00:00:00Z");
    }
}
