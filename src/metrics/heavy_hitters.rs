//! Which of very many things come most often, told with a bounded number of counters.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k
//! Elements in Data Streams", 2005), of what fades: every weight halves with
//! [`HALF_LIFE_MICROS`], so that what is told is about the last minute. Fading is the same
//! for all, so weights are kept as they were at one moment and new ones are made larger instead
//! (Cormode et al.: "Forward Decay", 2009).
//!
//! Always true, for the weights as they have faded: whatever has more than the whole weight
//! divided by the number of counters has one; a counter is never below the true weight of its
//! thing, and above it by no more than its error, which is no more than that share either.
//!
//! Pure: the caller says what time it is. There are crates for Space-Saving, but none whose
//! counters fade and carry something of their own.

/// Weights fall to a half in this time: seven eighths of what is told is of the last minute.
pub const HALF_LIFE_MICROS: u64 = 20_000_000;

/// New weights are at most so many doublings larger than the oldest, before all are made
/// smaller: far from where an `f64` ends.
const DOUBLINGS_MAX: f64 = 100.0;

/// How much is left of a weight after so long.
fn faded(micros: u64) -> f64 {
    (-(micros as f64) / HALF_LIFE_MICROS as f64).exp2()
}

/// A weight that has been faded for all of this time stands for so many seconds: what came
/// each second, added up as it fades.
pub fn seconds_counted(micros: u64) -> f64 {
    let mean_life = HALF_LIFE_MICROS as f64 / 1e6 / std::f64::consts::LN_2;
    mean_life * (1.0 - faded(micros))
}

/// One number that fades.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fading {
    weight: f64,
    /// As of when, in microseconds.
    at: u64,
}

impl Fading {
    /// More of it.
    pub fn add(&mut self, weight: f64, now: u64) {
        self.weight = self.at(now) + weight;
        self.at = now;
    }

    /// What is left.
    pub fn at(&self, now: u64) -> f64 {
        if self.weight == 0.0 || now <= self.at {
            return self.weight;
        }
        self.weight * faded(now.saturating_sub(self.at))
    }
}

/// The things with the most weight, each with something that is kept of it.
#[derive(Debug)]
pub struct HeavyHitters<T> {
    counters: usize,
    /// Weights are told as of this moment, in microseconds.
    from: u64,
    // Apart, since each note looks through the first, and many through the second.
    names: Vec<u64>,
    weights: Vec<f64>,
    /// How much of a weight may be that of earlier owners of its counter.
    errors: Vec<f64>,
    kept: Vec<T>,
}

/// One of them.
#[derive(Debug)]
pub struct Hitter<'a, T> {
    /// Its name.
    pub name: u64,
    /// It has at most this weight.
    pub weight_max: f64,
    /// It has at least this weight.
    pub weight_min: f64,
    /// What is kept of it.
    pub kept: &'a T,
}

impl<T> HeavyHitters<T> {
    /// With so many counters; at least one.
    pub fn new(counters: usize) -> HeavyHitters<T> {
        HeavyHitters {
            counters: counters.max(1),
            from: 0,
            names: Vec::new(),
            weights: Vec::new(),
            errors: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Something came. What is kept of it, from before if it has a counter, else made
    /// by `make`; whoever has the least gives way to it.
    pub fn note(&mut self, name: u64, weight: f64, now: u64, make: impl FnOnce() -> T) -> &mut T {
        let weight = weight * self.scale(now);
        if let Some(index) = self.names.iter().position(|known| *known == name) {
            self.weights[index] += weight;
            return &mut self.kept[index];
        }
        if self.names.len() < self.counters {
            self.names.push(name);
            self.weights.push(weight);
            self.errors.push(0.0);
            self.kept.push(make());
            return self.kept.last_mut().expect("one was pushed");
        }
        let least = self.least();
        self.names[least] = name;
        self.errors[least] = self.weights[least];
        self.weights[least] += weight;
        self.kept[least] = make();
        &mut self.kept[least]
    }

    /// All of them, in no order.
    pub fn all(&self, now: u64) -> impl Iterator<Item = Hitter<'_, T>> {
        let scale = faded(now.saturating_sub(self.from));
        (0..self.names.len()).map(move |index| Hitter {
            name: self.names[index],
            weight_max: self.weights[index] * scale,
            weight_min: (self.weights[index] - self.errors[index]) * scale,
            kept: &self.kept[index],
        })
    }

    /// How much larger a weight of now is than one of `from`.
    fn scale(&mut self, now: u64) -> f64 {
        let doublings = now.saturating_sub(self.from) as f64 / HALF_LIFE_MICROS as f64;
        if doublings <= DOUBLINGS_MAX {
            return doublings.exp2();
        }
        let smaller = (-doublings).exp2();
        let all = self.weights.iter_mut().chain(&mut self.errors);
        all.for_each(|weight| *weight *= smaller);
        self.from = now;
        1.0
    }

    fn least(&self) -> usize {
        let mut least = 0;
        for (index, weight) in self.weights.iter().enumerate() {
            if *weight < self.weights[least] {
                least = index;
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn top(hitters: &HeavyHitters<u64>, now: u64) -> Vec<u64> {
        let mut all: Vec<_> = hitters.all(now).collect();
        all.sort_by(|one, other| other.weight_min.total_cmp(&one.weight_min));
        all.iter().map(|hitter| *hitter.kept).collect()
    }

    #[test]
    fn a_hot_one_is_found_among_a_million_others() {
        let mut hitters = HeavyHitters::new(64);
        for number in 0..200_000u64 {
            let name = if number % 20 == 0 { 7 } else { 1_000 + number };
            hitters.note(name, 1.0, number * 100, || name);
        }
        assert_eq!(top(&hitters, 20 * SECOND)[0], 7);
        let others = hitters.all(20 * SECOND).filter(|it| *it.kept != 7);
        let highest = others.map(|it| it.weight_min).fold(0.0, f64::max);
        assert!(
            highest <= 1.0,
            "nobody is told to be hot who is not: {highest}"
        );
    }

    #[test]
    fn what_was_hot_an_hour_ago_is_so_no_more() {
        let mut hitters = HeavyHitters::new(2);
        for number in 0..1_000 {
            hitters.note(1, 1.0, number, || 1);
        }
        let hour = 3_600 * SECOND;
        for number in 0..10 {
            hitters.note(2, 1.0, hour + number, || 2);
            hitters.note(3, 1.0, hour + number, || 3);
        }
        assert!(!top(&hitters, hour).contains(&1));
        assert!(hitters.all(hour).all(|it| it.weight_max <= 20.0));
        assert!(hitters.all(1_000 * hour).all(|it| it.weight_max == 0.0));
    }

    #[test]
    fn a_steady_rate_is_told_as_it_is_from_the_beginning() {
        let mut number = Fading::default();
        for tick in 1..=6_000u64 {
            let now = tick * SECOND / 100;
            number.add(3.0, now);
            if tick >= 100 {
                let rate = number.at(now) / seconds_counted(now);
                assert!((rate - 300.0).abs() < 6.0, "{rate} after {tick}");
            }
        }
        let idle = number.at(180 * SECOND) / seconds_counted(180 * SECOND);
        assert!(idle < 6.0, "{idle}");
    }

    proptest! {
        /// What Space-Saving promises, of weights that fade, over hours.
        #[test]
        fn no_heavy_one_is_missed_and_none_is_told_wrongly(
            notes in prop::collection::vec((0u64..40, 0u64..120 * SECOND, 1u32..1_000), 1..400),
            counters in 1usize..20,
        ) {
            let mut hitters = HeavyHitters::new(counters);
            let mut truth: HashMap<u64, Fading> = HashMap::new();
            let mut now = 0;
            for (name, later, weight) in notes {
                now += later;
                hitters.note(name, f64::from(weight), now, || name);
                truth.entry(name).or_default().add(f64::from(weight), now);
            }
            let whole: f64 = truth.values().map(|weight| weight.at(now)).sum();
            let share = whole / counters as f64;
            let near = 1e-6 * whole;
            let told: HashMap<u64, _> = hitters.all(now).map(|it| (it.name, it)).collect();
            prop_assert!(told.len() <= counters);
            for (name, weight) in &truth {
                let weight = weight.at(now);
                match told.get(name) {
                    Some(told) => {
                        prop_assert_eq!(*told.kept, *name);
                        prop_assert!(told.weight_min <= weight + near);
                        prop_assert!(told.weight_max >= weight - near);
                        prop_assert!(told.weight_max - told.weight_min <= share + near);
                    }
                    None => prop_assert!(weight <= share + near, "{} of {}", weight, share),
                }
            }
        }
    }
}
