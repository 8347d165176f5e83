//! Numbers and texts as they are shown.

use super::look::IdentityLook;
use super::screen::Column;

/// A number in at most six characters.
pub fn count(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        small if small < 9.95 => format!("{number:.1}"),
        small if small < 99_999.5 => format!("{number:.0}"),
        large if large < 1e6 => format!("{:.0}k", number / 1e3),
        large if large < 1e9 => format!("{:.1}M", number / 1e6),
        _ => format!("{:.1}G", number / 1e9),
    }
}

/// A time from microseconds.
pub fn micros(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 1_000 => format!("{micros} us"),
        Some(micros) if micros < 1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        Some(micros) => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// A time from seconds, in at most five characters.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A cell of the table of identities.
pub fn cell(row: &IdentityLook, column: Column) -> String {
    let grown = |index: usize| match row.grown[index] {
        0 => "0".to_owned(),
        grown => format!("{grown:+}"),
    };
    let rate = |index: usize| {
        let rate = row.rates[index];
        rate.map_or("-".to_owned(), count)
    };
    match column {
        Column::Identity => row.identity.clone(),
        Column::Route => row.route.clone(),
        Column::Clients => row.clients.to_string(),
        Column::Max if row.clients_max == 0 => "-".to_owned(),
        Column::Max => row.clients_max.to_string(),
        Column::Grown1m => grown(0),
        Column::Grown10m => grown(1),
        Column::Grown1h => grown(2),
        Column::Idle => row.idle.map_or("-".to_owned(), seconds),
        Column::New => rate(0),
        Column::Refused => rate(1),
        Column::Shed => rate(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_times_have_units() {
        let numbers = [0.0, 0.51, 9.96, 99_999.0, 123_456.0, 1.26e6, 12e9];
        assert_eq!(
            numbers.map(count),
            ["0", "0.5", "10", "99999", "123k", "1.3M", "12.0G"]
        );
        let times = [None, Some(999), Some(2_400), Some(3_000_000)];
        assert_eq!(times.map(micros), ["-", "999 us", "2.4 ms", "3.0 s"]);
        assert_eq!(
            [7, 125, 7_265, 200_000].map(seconds),
            ["7s", "2m", "2h", "2d"]
        );
    }
}
