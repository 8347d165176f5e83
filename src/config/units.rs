//! Durations and sizes as people write them.
//!
//! A duration is whole numbers with units, biggest first: `1m30s`, `250ms`,
//! `1h`. A size is one whole number with one unit: `64MiB`, `512KB`; without a
//! unit it is bytes. Nothing is rounded: what can not be said exactly is refused.

use std::time::Duration;

/// Nanoseconds in each unit of a duration, biggest first.
const DURATION_UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Bytes in each unit of a size: powers of 1024 for `KiB`, of 1000 for `KB`.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a duration such as `1m30s`, `250ms` or `0`.
///
/// Units are `d h m s ms us ns`, each at most once, biggest first. Only zero
/// may go without a unit. `None` for anything else, and for what `Duration`
/// can not hold.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: u128 = 0;
    let mut units = DURATION_UNITS.iter();
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        // Searching on from where the last unit was found refuses "1s1s" and "1s1m".
        let (_, nanos) = units.by_ref().find(|(name, _)| *name == unit)?;
        total = total.checked_add(u128::from(number).checked_mul(*nanos)?)?;
        rest = after;
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (total % 1_000_000_000) as u32))
}

/// Writes a duration as [`parse_duration`] reads it: exact, biggest unit first.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in DURATION_UNITS {
        if rest >= nanos {
            text.push_str(&format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if text.is_empty() {
        text.push('0');
    }
    text
}

/// Reads a size in bytes such as `64MiB`, `512KB`, `100B` or `4096`.
///
/// `None` for anything else, and for what does not fit 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, after) = number_and_unit(text)?;
    if !after.is_empty() {
        return None;
    }
    if unit.is_empty() {
        return Some(number);
    }
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Writes a size as [`parse_size`] reads it: the biggest power of 1024 that is exact.
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .filter(|(name, _)| name.ends_with("iB"))
        .find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit))
        .map_or_else(
            || bytes.to_string(),
            |(name, unit)| format!("{}{name}", bytes / unit),
        )
}

/// The digits and the letters that `text` begins with, and what follows them.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let (number, rest) = split_while(text, |c| c.is_ascii_digit());
    let (unit, rest) = split_while(rest, |c| c.is_ascii_alphabetic());
    Some((number.parse().ok()?, unit, rest))
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_people_write_them() {
        let cases = [
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            ("5s", Duration::from_secs(5)),
            ("250ms", Duration::from_millis(250)),
            ("1m30s", Duration::from_secs(90)),
            ("1h", Duration::from_secs(3600)),
            ("1d2h3m4s5ms6us7ns", Duration::new(93_784, 5_006_007)),
        ];
        for (text, duration) in cases {
            assert_eq!(parse_duration(text), Some(duration), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        let cases = [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            " 5s",
            "1.5s",
            "5S",
            "1s1s",
            "1s1m",
            "5sec",
            "1e3s",
            "99999999999999999999s",
            "18446744073709551615d",
        ];
        for text in cases {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("100B", 100),
            ("512KB", 512_000),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size() {
        let cases = [
            "",
            "MiB",
            "1 MiB",
            "1.5GiB",
            "-1",
            "64mib",
            "64M",
            "1GiB1MiB",
            "1KiB5",
            "18446744073709551616",
            "16777216TiB",
        ];
        for text in cases {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_survives_writing_and_reading(seconds: u64, nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn a_size_survives_writing_and_reading(bytes: u64, shift in 0u32..64) {
            let bytes = bytes << shift;
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_them_panic(text: String) {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
