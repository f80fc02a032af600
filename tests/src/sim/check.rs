//! Whether a history keeps the promises; pure.
//!
//! The promises, for natural replicas and R + W > N:
//!
//! - **Nothing established vanishes**: what a quorum acknowledged or showed is in every later quorum read,
//!   unless a write that had seen it may have replaced it. At the end that holds for every acknowledged write.
//!   What was only shown may be on one machine, and go with its power or its disk.
//! - **Nothing replaced returns**: once a write that had seen a value is acknowledged, no later quorum read
//!   shows the value, unless its put was repeated: each attempt may count as a write of its own.
//! - **Nothing is below its floor**: a read that was given a context shows what that had seen, or what replaced it.
//! - **Nothing comes from nowhere**: every value read was put, on that key, by a put that began before the
//!   read ended and was not surely refused.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

const ESTABLISHED: &str = "nothing established vanishes";

use super::history::{Covers, Level, Operation, Outcome, Value, What, Write};

/// A promise broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// On which key, if on one.
    pub key: Option<u8>,
    /// The operation that shows it, and whatever else explains it.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.evidence)
    }
}

/// When machines lost what they held.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The power of one failed or more: what was not synced there is gone.
    pub power: Vec<Duration>,
    /// The disk of one was lost.
    pub disks: Vec<Duration>,
}

/// Judges all operations; those at the end, at [`Level::All`] and after `healed`, see everything.
pub fn check(operations: &[Operation], healed: Duration, losses: &Losses) -> Vec<Violation> {
    let mut keys: BTreeMap<u8, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(operation.key).or_default().push(operation);
    }
    keys.into_iter()
        .flat_map(|(key, operations)| Key::new(key, operations, healed, losses).check())
        .collect()
}

/// All about one key.
struct Key<'a> {
    key: u8,
    operations: Vec<&'a Operation>,
    puts: BTreeMap<Value, (&'a Operation, &'a Write)>,
    healed: Duration,
    losses: &'a Losses,
}

impl Losses {
    fn is_none(&self) -> bool {
        self.power.is_empty() && self.disks.is_empty()
    }
}

impl<'a> Key<'a> {
    fn new(
        key: u8,
        operations: Vec<&'a Operation>,
        healed: Duration,
        losses: &'a Losses,
    ) -> Key<'a> {
        let puts = operations.iter().filter_map(|operation| {
            let write = operation.write()?;
            Some((write.value?, (*operation, write)))
        });
        Key { key, puts: puts.collect(), operations, healed, losses }
    }

    fn check(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for read in &self.operations {
            if let What::Read { values: Some(values), floor } = &read.what {
                let unseen = floor.iter().filter(|value| {
                    !values.contains(value) && (self.is_acked(**value) || self.losses.is_none())
                });
                violations.extend(unseen.filter_map(|value| {
                    self.vanished("a read is not below its floor", read, *value)
                }));
                for value in values {
                    violations.extend(self.came_from_nowhere(read, *value));
                    violations.extend(self.returned(read, *value));
                }
                if read.level >= Level::Quorum {
                    for (value, since) in self.established(read) {
                        if since <= read.begin && !values.contains(&value) {
                            violations.extend(self.vanished(ESTABLISHED, read, value));
                        }
                    }
                }
            }
        }
        violations
    }

    fn is_final(&self, read: &Operation) -> bool {
        read.level == Level::All && read.begin >= self.healed
    }

    fn was_lost(&self, from: Duration, to: Duration) -> bool {
        let mut losses = self.losses.power.iter().chain(&self.losses.disks);
        losses.any(|at| (from..=to).contains(at))
    }

    /// Whether enough replicas acknowledged the write for `read` to know of it: a quorum, or in the end any, unless the disk of the one that
    /// acknowledged it may have been lost.
    fn lasts(&self, write: &Operation, read: &Operation) -> bool {
        let disk_lost = self.losses.disks.iter().any(|at| *at >= write.begin);
        write.level >= Level::Quorum || self.is_final(read) && !disk_lost
    }

    fn is_acked(&self, value: Value) -> bool {
        self.puts.get(&value).is_some_and(|(_, put)| put.outcome == Outcome::Acked)
    }

    /// The values that `read` must know of, and since when.
    fn established(&self, read: &Operation) -> BTreeMap<Value, Duration> {
        let mut established = BTreeMap::new();
        let mut add = |value: Value, since: Duration| {
            let known = established.entry(value).or_insert(since);
            *known = since.min(*known);
        };
        for (value, (operation, write)) in &self.puts {
            if self.lasts(operation, read) && write.outcome == Outcome::Acked {
                add(*value, operation.end);
            }
        }
        for operation in &self.operations {
            if let What::Read { values: Some(values), .. } = &operation.what
                && operation.level >= Level::Quorum
                && !self.was_lost(operation.begin, read.end)
            {
                values.iter().for_each(|value| add(*value, operation.end));
            }
        }
        established
    }

    fn vanished(&self, promise: &'static str, read: &Operation, value: Value) -> Option<Violation> {
        let replaced = self.operations.iter().any(|operation| {
            operation.begin < read.end
                && operation.write().is_some_and(|write| {
                    !matches!(write.outcome, Outcome::NotDone(_))
                        && write.may_cover(value)
                        && self.may_have_seen(operation, value)
                })
        });
        (!replaced).then(|| self.violation(promise, read, value))
    }

    /// A write that had returned before the value's put began saw nothing of it, and none of its attempts does.
    fn may_have_seen(&self, operation: &Operation, value: Value) -> bool {
        self.puts.get(&value).is_none_or(|(put, _)| put.begin < operation.end)
    }

    fn returned(&self, read: &Operation, value: Value) -> Option<Violation> {
        if read.level < Level::Quorum || self.puts.get(&value).is_none_or(|(_, put)| put.repeated) {
            return None;
        }
        let replaced = self.operations.iter().any(|operation| {
            operation.end <= read.begin
                && self.lasts(operation, read)
                && operation.write().is_some_and(|write| {
                    write.outcome == Outcome::Acked && self.surely_covers(operation, write, value)
                })
        });
        replaced.then(|| self.violation("nothing replaced returns", read, value))
    }

    /// What looks first replaces all that was established before it began.
    fn surely_covers(&self, operation: &Operation, write: &Write, value: Value) -> bool {
        let found = || {
            let (put, written) = self.puts[&value];
            let acknowledged = put.level >= Level::Quorum && written.outcome == Outcome::Acked;
            acknowledged && put.end <= operation.begin && write.value != Some(value)
        };
        write.covers(value) || (write.covers == Covers::Whatever && found())
    }

    fn came_from_nowhere(&self, read: &Operation, value: Value) -> Option<Violation> {
        let put = self.puts.get(&value).is_some_and(|(operation, write)| {
            operation.begin < read.end && !matches!(write.outcome, Outcome::NotDone(_))
        });
        (!put).then(|| self.violation("nothing comes from nowhere", read, value))
    }

    fn violation(&self, promise: &'static str, read: &Operation, value: Value) -> Violation {
        let about = self.operations.iter().filter(|operation| match &operation.what {
            What::Read { values, .. } => {
                values.as_ref().is_some_and(|values| values.contains(&value))
            }
            What::Write(write) => write.value == Some(value) || write.covers(value),
        });
        let about: Vec<String> = about.map(|operation| format!("\n    {operation}")).collect();
        let evidence = format!("value {value} in\n    {read}\n  about it:{}", about.concat());
        Violation { promise, key: Some(self.key), evidence }
    }
}
