//! Counts, sizes and durations, each within its bounds.

use std::marker::PhantomData;
use std::time::Duration;

use toml::de::DeValue;

use super::{Found, Kind};
use crate::config::units::{format_duration, format_size, parse_duration, parse_size};

/// 1 KiB in bytes.
pub(in crate::config) const KIB: u64 = 1 << 10;
/// 1 MiB in bytes.
pub(in crate::config) const MIB: u64 = 1 << 20;
/// 1 GiB in bytes.
pub(in crate::config) const GIB: u64 = 1 << 30;

/// A millisecond: the finest that Weir's timers tell apart.
pub(in crate::config) const MILLISECOND: Duration = Duration::from_millis(1);
/// An hour.
pub(in crate::config) const HOUR: Duration = Duration::from_secs(3600);
/// A day.
pub(in crate::config) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A whole number.
pub(in crate::config) struct Count<T> {
    min: u64,
    max: u64,
    number: PhantomData<T>,
}

impl<T: TryFrom<u64>> Count<T> {
    /// Numbers from `min` to `max`, both included.
    pub(in crate::config) const fn from_to(min: u64, max: u64) -> Count<T> {
        Count {
            min,
            max,
            number: PhantomData,
        }
    }
}

impl<T: TryFrom<u64> + std::fmt::Debug> Kind for Count<T> {
    type Value = T;

    fn accepts(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn read(&self, found: &Found<'_>) -> Result<T, String> {
        integer(found.value)
            .filter(|number| (self.min..=self.max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| found.not(&self.accepts()))
    }
}

/// A number of bytes.
pub(in crate::config) struct Size {
    min: u64,
    max: u64,
}

impl Size {
    /// Sizes from `min` to `max` bytes, both included.
    pub(in crate::config) const fn from_to(min: u64, max: u64) -> Size {
        Size { min, max }
    }
}

impl Kind for Size {
    type Value = u64;

    fn accepts(&self) -> String {
        format!(
            "a size from {} to {} such as \"64MiB\"",
            format_size(self.min),
            format_size(self.max)
        )
    }

    fn read(&self, found: &Found<'_>) -> Result<u64, String> {
        match found.value {
            DeValue::String(text) => parse_size(text),
            value => integer(value),
        }
        .filter(|bytes| (self.min..=self.max).contains(bytes))
        .ok_or_else(|| found.not(&self.accepts()))
    }

    fn show(&self, value: &u64) -> String {
        format_size(*value)
    }
}

/// A length of time.
pub(in crate::config) struct Time {
    min: Duration,
    max: Duration,
    zero: Option<&'static str>,
}

impl Time {
    /// Durations from `min` to `max`, both included.
    pub(in crate::config) const fn from_to(min: Duration, max: Duration) -> Time {
        Time {
            min,
            max,
            zero: None,
        }
    }

    /// Also 0, with what it means.
    pub(in crate::config) const fn or_zero(self, meaning: &'static str) -> Time {
        Time {
            min: self.min,
            max: self.max,
            zero: Some(meaning),
        }
    }
}

impl Kind for Time {
    type Value = Duration;

    fn accepts(&self) -> String {
        let zero = self
            .zero
            .map(|meaning| format!(", or 0 ({meaning})"))
            .unwrap_or_default();
        format!(
            "a duration from {} to {} such as \"1m30s\"{zero}",
            format_duration(self.min),
            format_duration(self.max)
        )
    }

    fn read(&self, found: &Found<'_>) -> Result<Duration, String> {
        match found.value {
            DeValue::String(text) => parse_duration(text),
            value => integer(value).filter(|n| *n == 0).map(|_| Duration::ZERO),
        }
        .filter(|time| {
            (self.min..=self.max).contains(time) || (time.is_zero() && self.zero.is_some())
        })
        .ok_or_else(|| found.not(&self.accepts()))
    }

    fn show(&self, value: &Duration) -> String {
        format_duration(*value)
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}
