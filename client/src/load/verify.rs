//! Reads every key back that a run wrote, and counts what is not as it should be.
//!
//! Invariant: a key is `checked` only if it was read; one that could not be is `unread`, and a
//! verification with unread keys is no proof. What is right and wrong is decided in [`super::history`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::clock;
use super::history::{Effect, Found, KeyHistory, Verdict};
use super::keys::key_name;
use super::progress::{Phase, Progress};
use super::target::{Reading, Target};

/// How many violations are described; all are counted.
const DESCRIBED_MAX: usize = 10;
/// When a worker judges what it reads.
pub(crate) const DURING: &str = "during the run";
/// When the verification judges.
const AT_THE_END: &str = "at the end";
/// Between two attempts to read a key.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two calls of the observer.
const TICK: Duration = Duration::from_secs(1);

/// Everything a run wrote, as known outside the cluster.
#[derive(Clone, Debug)]
pub struct History {
    pub(crate) run: u32,
    /// Every key that a write was issued for.
    pub(crate) keys: Vec<(u64, KeyHistory)>,
}

impl History {
    /// How many keys were written, or may have been.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.keys.iter().map(|(_, history)| u64::from(history.acknowledged())).sum()
    }
}

/// A key that does not show what it should.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The key's name in the cluster.
    pub key: String,
    /// What is wrong.
    pub verdict: Verdict,
    found: Vec<Found>,
    history: KeyHistory,
    when: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { key, verdict, found, history, when } = self;
        write!(formatter, "{key}  {}: ", verdict.as_str())?;
        match history.last() {
            Some((number, Effect::Put)) => write!(formatter, "write {number}")?,
            Some((number, Effect::Delete)) => write!(formatter, "delete {number}")?,
            None => write!(formatter, "no write")?,
        }
        write!(formatter, " was acknowledged, a read {when} found ")?;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        if found.is_empty() {
            formatter.write_str("nothing")
        } else {
            formatter.write_str(&found.join(" and "))
        }
    }
}

/// What a verification found. The numbers are keys, each of which counts once, except `checked`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verification {
    /// Keys that were read back, or should have been.
    pub keys: u64,
    /// Acknowledged writes that the keys read account for: each key's last one, and those it replaced.
    pub checked: u64,
    /// Keys whose last acknowledged write is gone, with nothing in its place.
    pub lost: u64,
    /// Keys that show an earlier write instead of the last acknowledged one.
    pub stale: u64,
    /// Keys that show a write again which an acknowledged one had replaced or deleted.
    pub resurrected: u64,
    /// Keys whose last acknowledged write another run replaced; where there are any, the verdict is void.
    pub overwritten: u64,
    /// Keys with bytes that were never sent.
    pub damaged: u64,
    /// Keys that could not be read.
    pub unread: u64,
    /// Keys, all in order, that show an earlier write of uncertain outcome beside the last one.
    pub beside_earlier: u64,
    /// The first violations, of different keys.
    #[serde(skip)]
    pub violations: Vec<Violation>,
    /// Every key that was counted as wrong, and as what.
    #[serde(skip)]
    wrong: BTreeMap<u64, Verdict>,
}

impl Verification {
    /// Whether every key was read and shows what it should.
    pub fn is_clean(&self) -> bool {
        self.wrong_keys() + self.unread == 0
    }

    /// Whether another program writes the bucket: what was replaced by it cannot be told from what was lost.
    pub fn is_void(&self) -> bool {
        self.overwritten > 0
    }

    /// Keys that were read and do not show what they should.
    pub(crate) fn wrong_keys(&self) -> u64 {
        self.lost + self.stale + self.resurrected + self.overwritten + self.damaged
    }

    pub(crate) fn violate(
        &mut self,
        key: u64,
        history: &KeyHistory,
        found: &[Found],
        verdict: Verdict,
        when: &'static str,
    ) {
        if self.count(key, verdict) && self.violations.len() < DESCRIBED_MAX {
            self.violations.push(Violation {
                key: String::from_utf8_lossy(&key_name(key)).into_owned(),
                verdict,
                found: found.to_vec(),
                history: history.clone(),
                when,
            });
        }
    }

    /// Whether the key is wrong and was not counted before.
    fn count(&mut self, key: u64, verdict: Verdict) -> bool {
        let counter = match verdict {
            Verdict::Kept => return false,
            Verdict::KeptBesideEarlier => {
                self.beside_earlier += 1;
                return false;
            }
            Verdict::Lost => &mut self.lost,
            Verdict::Stale => &mut self.stale,
            Verdict::Resurrected => &mut self.resurrected,
            Verdict::Overwritten => &mut self.overwritten,
            Verdict::Damaged => &mut self.damaged,
        };
        if self.wrong.contains_key(&key) {
            return false;
        }
        self.wrong.insert(key, verdict);
        *counter += 1;
        true
    }

    /// Adds what another verification of the same run found.
    pub fn absorb(&mut self, other: Verification) {
        self.keys += other.keys;
        self.checked += other.checked;
        self.unread += other.unread;
        self.beside_earlier += other.beside_earlier;
        for (key, verdict) in other.wrong {
            self.count(key, verdict);
        }
        for violation in other.violations {
            let known = self.violations.iter().any(|known| known.key == violation.key);
            if !known && self.violations.len() < DESCRIBED_MAX {
                self.violations.push(violation);
            }
        }
    }
}

/// How to read back.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Reads under way at a time.
    pub concurrency: usize,
    /// How long to go on trying with a key that cannot be read.
    pub patience: Duration,
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions { concurrency: 64, patience: Duration::from_secs(30) }
    }
}

/// Reads every key of `history` through `target`, at the level the target was opened with, and judges it.
/// No write may be under way.
pub async fn verify<T: Target>(
    target: &T,
    history: History,
    options: VerifyOptions,
    mut observe: impl FnMut(&Progress),
) -> Verification {
    let begin = clock::now();
    let total = history.keys.len() as u64;
    let history = Arc::new(history);
    let cursor = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..options.concurrency.max(1) {
        let (target, history, cursor) = (target.clone(), history.clone(), cursor.clone());
        readers.spawn(async move {
            let mut found = Verification::default();
            while let Some((key, writes)) =
                history.keys.get(cursor.fetch_add(1, Ordering::Relaxed) as usize)
            {
                check(&target, history.run, *key, writes, options.patience, &mut found).await;
            }
            found
        });
    }
    let mut verification = Verification::default();
    let mut tick = tokio::time::interval(TICK);
    let mut before = 0;
    loop {
        tokio::select! {
            joined = readers.join_next() => match joined {
                Some(found) => verification.absorb(found.expect("a reader does not panic")),
                None => return verification,
            },
            _ = tick.tick() => {
                let done = cursor.load(Ordering::Relaxed).min(total);
                let mut progress = Progress::of_phase(Phase::Verifying, begin, done, Some(total));
                progress.ops_per_s = (done - before) as f64 / TICK.as_secs_f64();
                before = done;
                observe(&progress);
            }
        }
    }
}

async fn check<T: Target>(
    target: &T,
    run: u32,
    key: u64,
    history: &KeyHistory,
    patience: Duration,
    verification: &mut Verification,
) {
    verification.keys += 1;
    let begin = clock::now();
    let reading = loop {
        match target.read(&key_name(key), None).await {
            Ok(reading) => break reading,
            Err(_) if clock::now().saturating_duration_since(begin) < patience => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(failure) => {
                tracing::warn!(key, error = failure.message, "could not be read back");
                verification.unread += 1;
                return;
            }
        }
    };
    let Reading { siblings, .. } = reading;
    let found: Vec<_> = siblings.iter().map(|value| Found::place(run, key, value)).collect();
    verification.checked += u64::from(history.acknowledged());
    let verdict = history.judge(&found);
    verification.violate(key, history, &found, verdict, AT_THE_END);
}
