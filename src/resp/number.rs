//! Decimal numbers in frame headers.

/// A length that is wholly there: digits without a leading zero, then CRLF.
///
/// `at` is where the digits begin; the answer holds the number and the position
/// behind the line. `None` says only that this is not the common case: the line
/// may be incomplete, negative or wrong, and the caller's careful path decides.
#[inline(always)]
pub(super) fn whole_length(input: &[u8], at: usize) -> Option<(u64, usize)> {
    /// Keeps the accumulator far from overflow; longer numbers are not common.
    const DIGITS_MAX: usize = 18;

    let mut value = u64::from(digit(*input.get(at)?)?);
    let mut next = at + 1;
    loop {
        let byte = *input.get(next)?;
        match digit(byte) {
            Some(_) if value == 0 || next - at >= DIGITS_MAX => return None,
            Some(digit) => value = value * 10 + u64::from(digit),
            None if byte == b'\r' && input.get(next + 1) == Some(&b'\n') => {
                return Some((value, next + 2));
            }
            None => return None,
        }
        next += 1;
    }
}

/// The number that an argument is to Redis, which reads them as strictly as the
/// numbers in headers; `None` if it is none.
pub fn integer(argument: &[u8]) -> Option<i64> {
    let mut number = Decimal::default();
    argument.iter().for_each(|&byte| number.push(byte));
    number.value()
}

#[inline(always)]
fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(digit)
}

/// A number that arrives byte by byte, read by the strict rule of Redis's
/// `string2ll`: no plus sign, no leading zero, no `-0`, nothing beyond 64 bits.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Decimal {
    magnitude: u64,
    state: DecimalState,
    negative: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum DecimalState {
    #[default]
    Empty,
    /// A lone `0`, which nothing may follow.
    Zero,
    Digits,
    Bad,
}

impl Decimal {
    /// Takes the next byte of the number. A wrong byte is remembered, not reported.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        use DecimalState::*;
        self.state = match (self.state, byte) {
            (Empty, b'-') if !self.negative => {
                self.negative = true;
                Empty
            }
            (Empty, b'0') if !self.negative => Zero,
            (Empty, b'1'..=b'9') | (Digits, b'0'..=b'9') => self.append(byte - b'0'),
            _ => Bad,
        };
    }

    fn append(&mut self, digit: u8) -> DecimalState {
        let grown = self
            .magnitude
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)));
        match grown {
            Some(magnitude) => {
                self.magnitude = magnitude;
                DecimalState::Digits
            }
            None => DecimalState::Bad,
        }
    }

    /// True as soon as no further byte can make this a number.
    #[inline]
    pub(super) fn is_bad(&self) -> bool {
        self.state == DecimalState::Bad
    }

    /// True while nothing but perhaps a minus sign has come.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.state == DecimalState::Empty && !self.negative
    }

    /// The number, if what came is one.
    pub(super) fn value(&self) -> Option<i64> {
        match self.state {
            DecimalState::Zero => Some(0),
            DecimalState::Digits if self.negative => 0i64.checked_sub_unsigned(self.magnitude),
            DecimalState::Digits => i64::try_from(self.magnitude).ok(),
            DecimalState::Empty | DecimalState::Bad => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Option<i64> {
        let mut number = Decimal::default();
        text.bytes().for_each(|byte| number.push(byte));
        number.value()
    }

    #[test]
    fn a_number_is_read_as_strictly_as_redis_does() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("17"), Some(17));
        assert_eq!(decimal("-3"), Some(-3));
        assert_eq!(decimal("9223372036854775807"), Some(i64::MAX));
        assert_eq!(decimal("-9223372036854775808"), Some(i64::MIN));
        for wrong in [
            "",
            "-",
            "--1",
            "-0",
            "01",
            "00",
            "-01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "x",
            "1-",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999999",
        ] {
            assert_eq!(decimal(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_whole_length_needs_its_line_end() {
        assert_eq!(whole_length(b"$12\r\nx", 1), Some((12, 5)));
        assert_eq!(whole_length(b"$0\r\n", 1), Some((0, 4)));
        assert_eq!(
            whole_length(b"999999999999999999\r\n", 0),
            Some((999_999_999_999_999_999, 20))
        );
        for other in [
            "",
            "1",
            "12\r",
            "12\n",
            "-1\r\n",
            "01\r\n",
            "\r\n",
            "1\rx",
            "1000000000000000000\r\n",
        ] {
            assert_eq!(whole_length(other.as_bytes(), 0), None, "{other:?}");
        }
    }
}
