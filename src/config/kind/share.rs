//! A part of a whole.

use toml::de::DeValue;

use super::{Found, Kind};

/// A share from 0 to 1.
pub(in crate::config) struct Share;

impl Kind for Share {
    type Value = f64;

    fn accepts(&self) -> String {
        "a share from 0 to 1 such as 0.8".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<f64, String> {
        let number = match found.value {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        number
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| found.not(&self.accepts()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    fn read(text: &str) -> Result<f64, String> {
        let value = DeValue::parse(text).expect("TOML");
        Share.read(&Found::new(value.get_ref(), "", Sources::none()))
    }

    #[test]
    fn a_share_lies_between_nothing_and_all() {
        for (text, share) in [("0.8", 0.8), ("0", 0.0), ("1", 1.0), ("1.0", 1.0)] {
            assert_eq!(read(text), Ok(share), "{text}");
        }
        for text in ["1.01", "-0.1", "80", "\"80%\"", "nan", "inf", "true"] {
            let message = read(text).expect_err(text);
            assert!(
                message.starts_with("expected a share from 0 to 1"),
                "{message}"
            );
        }
    }
}
