//! What a run was and what it found: a table for people, JSON for programs.
//!
//! Invariant: a means that was skipped is named with what the machine lacks; it never looks like passed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use starling_client::load::Verification;

/// See the module. Keys that are not as they should be are counted by each look at them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// What repeats the plan of the run.
    pub seed: u64,
    /// How long it was troubled.
    pub seconds: f64,
    /// How many times each means was used.
    pub used: BTreeMap<&'static str, u64>,
    /// What the machine lacks, by means.
    pub skipped: BTreeMap<&'static str, String>,
    /// Ordeals that left no quorum of some keys.
    pub without_quorum: u64,
    /// How many times a node ended because its disk failed.
    pub ended_by_faults: u64,
    /// Syncs that were made to fail.
    pub syncs_failed: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Requests that failed, by the code of what they were told.
    pub failed: BTreeMap<String, u64>,
    /// Acknowledged writes that reading back accounts for.
    pub checked: u64,
    /// Keys that lost their last acknowledged write.
    pub lost: u64,
    /// Keys that showed an earlier write instead of it.
    pub stale: u64,
    /// Keys that showed what had been replaced or deleted.
    pub resurrected: u64,
    /// Keys with bytes that were never sent.
    pub damaged: u64,
    /// Keys that could not be read back.
    pub unread: u64,
    /// The longest that writes of one worker failed while a quorum was up.
    pub longest_unavailable_ms: u64,
    /// The longest that one worker waited for an acknowledgement while a quorum was up.
    pub longest_wait_ms: u64,
    /// Why the run could not go on, and the first keys that are not as they should be.
    pub broken: Vec<String>,
    /// Where the logs are, if anything is wrong.
    pub kept: Option<PathBuf>,
}

impl Figures {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        let wrong = self.lost + self.stale + self.resurrected + self.damaged + self.unread;
        wrong == 0 && self.broken.is_empty()
    }

    /// Adds what one look at the keys found.
    pub(super) fn found(&mut self, found: &Verification) {
        self.lost += found.lost;
        self.stale += found.stale;
        self.resurrected += found.resurrected;
        self.damaged += found.damaged;
        self.unread += found.unread;
        self.broken.extend(found.violations.iter().map(|violation| format!("{violation:?}")));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (means, count) in &self.used {
            writeln!(formatter, "{means:<24}{count:>12}")?;
        }
        for (means, why) in &self.skipped {
            writeln!(formatter, "{means:<24}     skipped: {why}")?;
        }
        for (what, count) in [
            ("ordeals without quorum", self.without_quorum),
            ("nodes ended by faults", self.ended_by_faults),
            ("syncs made to fail", self.syncs_failed),
            ("acknowledged writes", self.acknowledged),
            ("  read back", self.checked),
            ("unknown writes", self.unknown),
            ("failed requests", self.failed.values().sum()),
            ("lost", self.lost),
            ("stale", self.stale),
            ("resurrected", self.resurrected),
            ("damaged or unread", self.damaged + self.unread),
            ("longest unavailable (ms)", self.longest_unavailable_ms),
            ("longest wait (ms)", self.longest_wait_ms),
        ] {
            writeln!(formatter, "{what:<24}{count:>12}")?;
        }
        if !self.failed.is_empty() {
            let failed = self.failed.iter().map(|(code, count)| format!("{code} {count}"));
            writeln!(formatter, "failed, by code: {}", failed.collect::<Vec<_>>().join(", "))?;
        }
        for broken in &self.broken {
            writeln!(formatter, "BROKEN: {broken}")?;
        }
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        write!(formatter, "{verdict} after {:.0} s, seed {}", self.seconds, self.seed)
    }
}
