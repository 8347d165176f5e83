//! How many clients there were before.

/// Numbers of clients, sampled every ten seconds, of which some are kept: those of the last
/// minute, one for each of the last ten minutes, one for each ten minutes of the last hour.
/// Before it began there were none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth {
    samples: u32,
    tens_of_seconds: [u32; 6],
    minutes: [u32; 10],
    tens_of_minutes: [u32; 6],
}

/// How many clients there are more than so long ago, or fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grown {
    /// Than a minute ago.
    pub one_minute: i64,
    /// Than ten minutes ago.
    pub ten_minutes: i64,
    /// Than an hour ago.
    pub one_hour: i64,
}

impl Growth {
    /// Takes a sample. To be called every ten seconds.
    pub fn sample(&mut self, clients: usize) {
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        let at = self.samples as usize;
        self.tens_of_seconds[at % 6] = clients;
        if at.is_multiple_of(6) {
            self.minutes[at / 6 % 10] = clients;
        }
        if at.is_multiple_of(60) {
            self.tens_of_minutes[at / 60 % 6] = clients;
        }
        self.samples = self.samples.wrapping_add(1);
    }

    /// What became of it until now.
    pub fn until(&self, clients: usize) -> Grown {
        let at = self.samples as usize;
        let since = |before: u32| clients as i64 - i64::from(before);
        // The next to be written over is the oldest.
        Grown {
            one_minute: since(self.tens_of_seconds[at % 6]),
            ten_minutes: since(self.minutes[at.div_ceil(6) % 10]),
            one_hour: since(self.tens_of_minutes[at.div_ceil(60) % 6]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_since_a_minute_ten_minutes_and_an_hour_ago() {
        let mut growth = Growth::default();
        assert_eq!(growth.until(7).one_hour, 7);
        // One more every ten seconds, for two hours.
        for clients in 0..720 {
            growth.sample(clients);
        }
        let grown = growth.until(720);
        assert_eq!(grown.one_minute, 6);
        assert!((54..=66).contains(&grown.ten_minutes), "{grown:?}");
        assert!((300..=366).contains(&grown.one_hour), "{grown:?}");
        for _ in 0..7 {
            growth.sample(720);
        }
        assert_eq!(growth.until(720).one_minute, 0);
        assert_eq!(growth.until(700).one_minute, -20);
    }
}
