//! A worker's operations, one after the other, drawn from its seed. Pure: it neither sends nor waits.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::config::{LoadConfig, Mix};
use super::keys::{KeyChooser, Ownership};

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read the key, whoever owns it.
    Read { key: u64 },
    /// Write the worker's record with this index.
    Update { index: u64 },
    /// Delete the worker's record with this index.
    Delete { index: u64 },
    /// Read the worker's record with this index and write it with what was read.
    ReadModifyWrite { index: u64 },
    /// Write a key that never was.
    Insert,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Plan {
    rng: StdRng,
    mix: Mix,
    delete_ratio: f64,
    /// Read only the worker's own records, which it can judge.
    reads_own: bool,
    own: Ownership,
    chooser: KeyChooser,
}

impl Plan {
    pub(crate) fn new(config: &LoadConfig, own: Ownership) -> Plan {
        let order = config.key_order.unwrap_or_else(|| config.workload.key_order());
        Plan {
            rng: StdRng::seed_from_u64(
                config.seed.wrapping_add((own.worker + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ),
            mix: config.workload.mix(),
            delete_ratio: config.delete_ratio,
            reads_own: config.verify && config.reads_see_writes(),
            own,
            chooser: KeyChooser::new(order, own.records),
        }
    }

    /// The next operation, when `horizon` keys exist.
    pub(crate) fn next(&mut self, horizon: u64) -> Step {
        let draw: f64 = self.rng.random();
        let mix = self.mix;
        if draw < mix.read {
            let key = self.chooser.next(&mut self.rng, self.own, horizon);
            if self.reads_own && key < self.own.records {
                return Step::Read { key: self.own.key(self.own.nearest(key)) };
            }
            return Step::Read { key };
        }
        if draw < mix.read + mix.insert {
            return Step::Insert;
        }
        let key = self.chooser.next(&mut self.rng, self.own, self.own.records);
        let index = self.own.nearest(key);
        if draw < mix.read + mix.insert + mix.read_modify_write {
            return Step::ReadModifyWrite { index };
        }
        if self.delete_ratio > 0.0 && self.rng.random::<f64>() < self.delete_ratio {
            return Step::Delete { index };
        }
        Step::Update { index }
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Step};
    use crate::load::config::{KeyOrder, LoadConfig, Workload};
    use crate::load::keys::Ownership;

    const OWN: Ownership = Ownership { worker: 2, workers: 4, records: 1000 };

    fn steps(config: &LoadConfig, count: usize) -> Vec<Step> {
        let mut plan = Plan::new(config, OWN);
        (0..count).map(|_| plan.next(1000)).collect()
    }

    fn share(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> f64 {
        steps.iter().filter(|step| wanted(step)).count() as f64 / steps.len() as f64
    }

    #[test]
    fn a_seed_gives_the_same_steps_again() {
        let mut config = LoadConfig { seed: 5, ..LoadConfig::new() };
        let first = steps(&config, 500);
        assert_eq!(first, steps(&config, 500));
        config.seed = 6;
        assert_ne!(first, steps(&config, 500));
    }

    #[test]
    fn shares_are_as_asked() {
        let mut config = LoadConfig { seed: 5, delete_ratio: 0.25, ..LoadConfig::new() };
        config.workload = Workload::Mixed { read_ratio: 0.8 };
        let drawn = steps(&config, 20_000);
        assert!((share(&drawn, |s| matches!(s, Step::Read { .. })) - 0.8).abs() < 0.02);
        assert!((share(&drawn, |s| matches!(s, Step::Delete { .. })) - 0.05).abs() < 0.01);
        config.workload = Workload::YcsbD;
        let drawn = steps(&config, 20_000);
        assert!((share(&drawn, |s| matches!(s, Step::Insert)) - 0.05).abs() < 0.01);
        config.workload = Workload::YcsbF;
        let drawn = steps(&config, 20_000);
        assert!((share(&drawn, |s| matches!(s, Step::ReadModifyWrite { .. })) - 0.5).abs() < 0.02);
    }

    #[test]
    fn a_verified_run_reads_what_it_can_judge() {
        let config = LoadConfig { seed: 5, verify: true, ..LoadConfig::new() };
        for step in steps(&config, 1000) {
            if let Step::Read { key } = step {
                assert!(OWN.index(key).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn sequential_visits_every_own_record_in_order() {
        let config = LoadConfig {
            workload: Workload::Write,
            key_order: Some(KeyOrder::Sequential),
            ..LoadConfig::new()
        };
        let expected: Vec<_> = (0..250).map(|index| Step::Update { index }).collect();
        assert_eq!(steps(&config, 250), expected);
        assert_eq!(steps(&config, 251)[250], Step::Update { index: 0 });
    }
}
