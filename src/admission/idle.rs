//! How long a client may idle, by how full it is.

use std::time::Duration;

/// From this share of the places on it is getting full: operators are warned, and clients
/// may idle for less long.
pub const NEARLY_FULL: f64 = 0.8;

/// The idle timeout in force: the whole up to `NEARLY_FULL`, the least when every place is
/// taken, and between these less by the same factor for each client more. A timeout of zero
/// is none, however full it is.
pub fn idle_timeout(whole: Duration, least: Duration, taken: usize, max: usize) -> Duration {
    if whole.is_zero() || least >= whole || max == 0 {
        return whole;
    }
    let used = taken as f64 / max as f64;
    let towards_full = ((used - NEARLY_FULL) / (1.0 - NEARLY_FULL)).clamp(0.0, 1.0);
    let factor = least.as_secs_f64() / whole.as_secs_f64();
    whole.mul_f64(factor.powf(towards_full)).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_fuller_the_shorter() {
        let at = |taken| idle_timeout(seconds(600), seconds(6), taken, 1000).as_secs();
        assert_eq!((at(0), at(799), at(800)), (600, 600, 600));
        assert_eq!((at(900), at(1000), at(2000)), (60, 6, 6));
        assert!((800..1000).all(|taken| at(taken + 1) <= at(taken)));
    }

    #[test]
    fn whoever_wants_no_timeout_gets_none_and_a_short_one_stays() {
        assert_eq!(
            idle_timeout(Duration::ZERO, seconds(6), 10, 10),
            Duration::ZERO
        );
        assert_eq!(idle_timeout(seconds(3), seconds(6), 10, 10), seconds(3));
    }
}
