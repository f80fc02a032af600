//! Counting answers against a consistency level: pure, one value per request.
//!
//! A replica counts once, for its own datacenter. Hints never reach this place.

use starling_ring::Requirement;

/// Which answers are still needed, and whether they can still come.
#[derive(Debug, Clone)]
pub struct QuorumTracker {
    needs: Vec<Need>,
    replicas: Vec<Replica>,
}

#[derive(Debug, Clone)]
struct Need {
    /// The datacenter whose replicas count, or all of them.
    datacenter: Option<u8>,
    required: u8,
}

#[derive(Debug, Clone)]
struct Replica {
    datacenter: u8,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Pending,
    Success,
    Failure,
}

/// The state of the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More answers are needed and may come.
    Undecided,
    /// The level is met.
    Met,
    /// The level can no longer be met.
    Impossible,
}

/// How far a count came: what errors report. Of the datacenter that falls short, where the level
/// counts per datacenter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Successes needed.
    pub required: u8,
    /// Successes so far.
    pub received: u8,
    /// Failures so far.
    pub failed: u8,
}

impl QuorumTracker {
    /// A count over replicas given by the name of their datacenters.
    #[must_use]
    pub fn new<'a>(
        requirement: &Requirement,
        replica_datacenters: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut names: Vec<&str> = Vec::new();
        let mut number = |name: &'a str| {
            let known = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            u8::try_from(known).expect("replicas number at most 255, so do their datacenters")
        };
        let replicas: Vec<Replica> = replica_datacenters
            .into_iter()
            .map(|name| Replica { datacenter: number(name), answer: Answer::Pending })
            .collect();
        let needs = if requirement.per_datacenter.is_empty() {
            vec![Need { datacenter: None, required: requirement.total }]
        } else {
            let of = |(name, required): (&String, &u8)| {
                // A datacenter without replicas here gets a number that no replica has.
                let place = names.iter().position(|known| known == name).unwrap_or(names.len());
                Need { datacenter: u8::try_from(place).ok(), required: *required }
            };
            requirement.per_datacenter.iter().map(of).collect()
        };
        Self { needs, replicas }
    }

    /// Records the one answer of a replica; a second one changes nothing.
    pub fn record(&mut self, replica: usize, success: bool) -> Verdict {
        let entry = &mut self.replicas[replica];
        if entry.answer == Answer::Pending {
            entry.answer = if success { Answer::Success } else { Answer::Failure };
        }
        self.verdict()
    }

    /// Where the count stands.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::Met;
        for need in &self.needs {
            let successes = self.count(need, |answer| answer == Answer::Success);
            let possible = self.count(need, |answer| answer != Answer::Failure);
            if possible < need.required {
                return Verdict::Impossible;
            }
            if successes < need.required {
                verdict = Verdict::Undecided;
            }
        }
        verdict
    }

    /// The figures of the first need that falls short, or of the first need.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let short = self
            .needs
            .iter()
            .find(|need| self.count(need, |answer| answer == Answer::Success) < need.required)
            .unwrap_or(&self.needs[0]);
        Tally {
            required: short.required,
            received: self.count(short, |answer| answer == Answer::Success),
            failed: self.count(short, |answer| answer == Answer::Failure),
        }
    }

    /// Whether the replicas for which `alive` holds could meet the level.
    ///
    /// # Errors
    /// The need that they cannot meet, with the living in place of the successes.
    pub fn reachable_by(&self, alive: impl Fn(usize) -> bool) -> Result<(), Tally> {
        for need in &self.needs {
            let living = self.count_where(need, |index, _| alive(index));
            if living < need.required {
                return Err(Tally { required: need.required, received: living, failed: 0 });
            }
        }
        Ok(())
    }

    /// The shortest prefix-greedy choice from `preference` that meets the level: each replica is
    /// taken if some need still lacks it. Empty if the preference cannot meet it.
    #[must_use]
    pub fn choose(&self, preference: &[usize]) -> Vec<usize> {
        let mut lacking: Vec<u8> = self.needs.iter().map(|need| need.required).collect();
        let mut chosen = Vec::with_capacity(preference.len());
        for &index in preference {
            let datacenter = self.replicas[index].datacenter;
            let mut useful = false;
            for (need, lacks) in self.needs.iter().zip(&mut lacking) {
                if *lacks > 0 && need.counts(datacenter) {
                    *lacks -= 1;
                    useful = true;
                }
            }
            if useful {
                chosen.push(index);
            }
        }
        if lacking.iter().all(|lacks| *lacks == 0) { chosen } else { Vec::new() }
    }

    fn count(&self, need: &Need, wanted: impl Fn(Answer) -> bool) -> u8 {
        self.count_where(need, |_, replica| wanted(replica.answer))
    }

    fn count_where(&self, need: &Need, wanted: impl Fn(usize, &Replica) -> bool) -> u8 {
        let matching = self
            .replicas
            .iter()
            .enumerate()
            .filter(|(index, replica)| need.counts(replica.datacenter) && wanted(*index, replica))
            .count();
        u8::try_from(matching).expect("a slot has at most 255 replicas")
    }
}

impl Need {
    fn counts(&self, datacenter: u8) -> bool {
        self.datacenter.is_none_or(|only| only == datacenter)
    }
}
