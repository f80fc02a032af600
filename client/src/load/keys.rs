//! Which key comes next, and who may write it.
//!
//! Invariant: a worker only writes keys it owns, so that the order of a key's writes is known outside the
//! cluster. The distributions are those of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with
//! YCSB", 2010, and its `ScrambledZipfianGenerator` and `SkewedLatestGenerator`).

use rand::{Rng, RngExt};

use super::config::KeyOrder;

/// The name of a key in the cluster: `load` and its number in hexadecimal.
pub(crate) type KeyName = [u8; 20];

/// Names key number `key`.
pub(crate) fn key_name(key: u64) -> KeyName {
    let mut name = *b"load0000000000000000";
    for (place, digit) in name[4..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(key >> (60 - 4 * place) & 15) as usize];
    }
    name
}

/// The keys of one worker: every `workers`-th of the records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ownership {
    pub(crate) worker: u64,
    pub(crate) workers: u64,
    pub(crate) records: u64,
}

impl Ownership {
    /// How many records the worker owns; at least one, as there are no more workers than records.
    pub(crate) fn count(self) -> u64 {
        (self.records - self.worker).div_ceil(self.workers)
    }

    /// The worker's key number `index` of [`Self::count`].
    pub(crate) fn key(self, index: u64) -> u64 {
        self.worker + index * self.workers
    }

    /// The index of a record that the worker owns.
    pub(crate) fn index(self, key: u64) -> Option<u64> {
        (key < self.records && key % self.workers == self.worker).then(|| key / self.workers)
    }

    /// The index of the worker's record nearest to any record, which keeps a distribution's shape.
    pub(crate) fn nearest(self, key: u64) -> u64 {
        (key / self.workers).min(self.count() - 1)
    }
}

/// The exponent that YCSB uses.
const THETA: f64 = 0.99;
/// YCSB's scrambled zipfian draws from this many items whatever the number of keys.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
/// Terms of the zeta sum that are added one by one; the rest is an integral with corrections.
const ZETA_TERMS: u64 = 1000;

/// Draws ranks with frequencies that fall by a power law, in constant time (Gray et al., "Quickly
/// Generating Billion-Record Synthetic Databases", SIGMOD 1994).
#[derive(Clone, Debug)]
pub(crate) struct Zipfian {
    items: u64,
    head: f64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    pub(crate) fn new(items: u64) -> Zipfian {
        let head = (1..=ZETA_TERMS).map(|i| (i as f64).powf(-THETA)).sum();
        let mut zipfian = Zipfian { items: 0, head, zeta: 0.0, eta: 0.0 };
        zipfian.resize(items);
        zipfian
    }

    /// Draws from `items` ranks from now on.
    pub(crate) fn resize(&mut self, items: u64) {
        if self.items == items {
            return;
        }
        self.items = items;
        self.zeta = self.zeta_of(items);
        let zeta_of_two = 1.0 + 2f64.powf(-THETA);
        self.eta = (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - zeta_of_two / self.zeta);
    }

    /// The sum of `i^-theta` for `i` in `1..=items`, by Euler and Maclaurin beyond the head.
    fn zeta_of(&self, items: u64) -> f64 {
        if items <= ZETA_TERMS {
            return (1..=items).map(|i| (i as f64).powf(-THETA)).sum();
        }
        let (from, to) = (ZETA_TERMS as f64, items as f64);
        let integral = (to.powf(1.0 - THETA) - from.powf(1.0 - THETA)) / (1.0 - THETA);
        let ends = (to.powf(-THETA) - from.powf(-THETA)) / 2.0;
        let slopes = THETA * (from.powf(-THETA - 1.0) - to.powf(-THETA - 1.0)) / 12.0;
        self.head + integral + ends + slopes
    }

    /// A rank below the number of items; 0 is the most frequent.
    pub(crate) fn next(&self, rng: &mut impl Rng) -> u64 {
        let u: f64 = rng.random();
        let uz = u * self.zeta;
        if uz < 1.0 || self.items < 2 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let alpha = 1.0 / (1.0 - THETA);
        let rank = self.items as f64 * (self.eta * u - self.eta + 1.0).powf(alpha);
        (rank as u64).min(self.items - 1)
    }
}

/// Draws key numbers in one of the orders.
#[derive(Clone, Debug)]
pub(crate) enum KeyChooser {
    Uniform,
    Zipfian(Zipfian),
    Latest(Zipfian),
    /// Counts up; the caller's records divide it.
    Sequential(u64),
}

impl KeyChooser {
    pub(crate) fn new(order: KeyOrder, records: u64) -> KeyChooser {
        match order {
            KeyOrder::Uniform => KeyChooser::Uniform,
            KeyOrder::Zipfian => KeyChooser::Zipfian(Zipfian::new(SCRAMBLED_ITEMS)),
            KeyOrder::Latest => KeyChooser::Latest(Zipfian::new(records)),
            KeyOrder::Sequential => KeyChooser::Sequential(0),
        }
    }

    /// A key below `horizon`, the number of keys there are by now.
    pub(crate) fn next(&mut self, rng: &mut impl Rng, own: Ownership, horizon: u64) -> u64 {
        match self {
            KeyChooser::Uniform => rng.random_range(0..horizon),
            KeyChooser::Zipfian(zipfian) => fnv1a(zipfian.next(rng)) % horizon,
            KeyChooser::Latest(zipfian) => {
                zipfian.resize(horizon);
                horizon - 1 - zipfian.next(rng)
            }
            KeyChooser::Sequential(position) => {
                let key = own.key(*position % own.count());
                *position += 1;
                key
            }
        }
    }
}

/// FNV-1a of the eight bytes, as YCSB spreads popular keys.
fn fnv1a(value: u64) -> u64 {
    value.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::{KeyChooser, Ownership, SCRAMBLED_ITEMS, Zipfian, key_name};
    use crate::load::config::KeyOrder;

    #[test]
    fn names_are_distinct_and_ordered() {
        assert_eq!(&key_name(0x1f), b"load000000000000001f");
        assert!(key_name(255) < key_name(256));
    }

    #[test]
    fn zeta_is_the_constant_that_ycsb_carries() {
        let zipfian = Zipfian::new(SCRAMBLED_ITEMS);
        assert!((zipfian.zeta - 26.469_028_201_783_02).abs() < 1e-6, "{}", zipfian.zeta);
    }

    #[test]
    fn zipfian_frequencies_follow_the_power_law() {
        let zipfian = Zipfian::new(1000);
        let mut rng = StdRng::seed_from_u64(1);
        let mut hits = [0u32; 1000];
        for _ in 0..200_000 {
            hits[zipfian.next(&mut rng) as usize] += 1;
        }
        let share = f64::from(hits[0]) / 200_000.0;
        assert!((share - 1.0 / zipfian.zeta).abs() < 0.01, "{share}");
        assert!(hits[0] > hits[1] && hits[1] > hits[10] && hits[10] > hits[500]);
    }

    #[test]
    fn every_order_stays_below_the_horizon() {
        let own = Ownership { worker: 3, workers: 7, records: 100 };
        let mut rng = StdRng::seed_from_u64(2);
        for order in [KeyOrder::Uniform, KeyOrder::Zipfian, KeyOrder::Latest, KeyOrder::Sequential]
        {
            let mut chooser = KeyChooser::new(order, 100);
            for horizon in [100, 101, 5000] {
                for _ in 0..1000 {
                    assert!(chooser.next(&mut rng, own, horizon) < horizon, "{order:?}");
                }
            }
        }
    }

    #[test]
    fn latest_prefers_the_end_as_it_moves() {
        let own = Ownership { worker: 0, workers: 1, records: 100 };
        let mut rng = StdRng::seed_from_u64(3);
        let mut chooser = KeyChooser::new(KeyOrder::Latest, 100);
        let newest = (0..1000).filter(|_| chooser.next(&mut rng, own, 5000) >= 4900).count();
        assert!(newest > 400, "{newest}");
    }

    #[test]
    fn workers_share_the_records_without_overlap() {
        for (workers, records) in [(1, 1), (3, 3), (3, 10), (7, 100)] {
            let mut owners = vec![0; records as usize];
            for worker in 0..workers {
                let own = Ownership { worker, workers, records };
                for index in 0..own.count() {
                    owners[own.key(index) as usize] += 1;
                    assert_eq!(own.index(own.key(index)), Some(index));
                }
                assert!((0..records).all(|key| own.nearest(key) < own.count()));
            }
            assert!(owners.iter().all(|count| *count == 1), "{workers} of {records}");
        }
    }
}
