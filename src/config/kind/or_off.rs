//! What can be switched off.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use super::{Found, Kind};

/// What a text stands for, or nothing where it says `off`.
pub(in crate::config) struct OrOff<T> {
    accepts: &'static str,
    value: PhantomData<T>,
}

impl<T> OrOff<T> {
    /// With what it accepts, as in "expected …".
    pub(super) const fn new(accepts: &'static str) -> OrOff<T> {
        OrOff {
            accepts,
            value: PhantomData,
        }
    }
}

impl<T: FromStr + Display + Debug> Kind for OrOff<T> {
    type Value = Option<T>;

    fn accepts(&self) -> String {
        self.accepts.to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<T>, String> {
        match found.value.as_str() {
            Some("" | "off") => Ok(None),
            Some(text) => {
                let value = text.parse().map_err(|_| found.not(self.accepts))?;
                Ok(Some(value))
            }
            None => Err(found.not(self.accepts)),
        }
    }

    fn show(&self, value: &Option<T>) -> String {
        value
            .as_ref()
            .map_or_else(|| "off".to_owned(), T::to_string)
    }
}
