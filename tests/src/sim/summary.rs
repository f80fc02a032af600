//! What a run came to, in short, and runs in processes of their own.
//!
//! A seed says everything about a run only in a fresh process: the runtime ends the tasks of a crashed node in an
//! order that follows from how many tasks this process ever had.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use starling_storage::planted::Bug;

use super::run::Outcome;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Machines with a node.
    pub nodes: u8,
    /// Things that went wrong on purpose.
    pub faults: usize,
    /// What clients did.
    pub operations: usize,
    /// A hash of everything that could be seen of the run.
    pub trace: u64,
    /// The promises that were broken.
    pub broken: Vec<Broken>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which.
    pub promise: String,
    /// The operations around it.
    pub evidence: String,
}

impl Summary {
    /// Runs a seed in a process of its own; `binary` is `starling-sim`.
    ///
    /// # Errors
    /// When the process cannot be run, or ends without an answer.
    pub fn of_process(binary: &Path, seed: u64, bug: Option<Bug>) -> anyhow::Result<Summary> {
        let mut command = Command::new(binary);
        command.arg("--one").arg("--seed").arg(seed.to_string());
        if let Some(bug) = bug {
            command.arg("--bug").arg(bug.to_string());
        }
        let ran = command.output().with_context(|| format!("cannot run {}", binary.display()))?;
        let errors = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "seed {seed}: {}: {errors}", ran.status);
        serde_json::from_slice(&ran.stdout).with_context(|| format!("seed {seed}: {errors}"))
    }
}

impl From<&Outcome> for Summary {
    fn from(outcome: &Outcome) -> Summary {
        let broken = outcome.violations.iter().map(|violation| Broken {
            promise: violation.promise.to_owned(),
            evidence: violation.evidence.clone(),
        });
        Summary {
            seed: outcome.scenario.seed,
            nodes: outcome.scenario.nodes,
            faults: outcome.scenario.faults.len(),
            operations: outcome.operations.len(),
            trace: outcome.trace,
            broken: broken.collect(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { seed, nodes, faults, operations, trace, broken } = self;
        write!(
            f,
            "seed {seed}: {nodes} nodes, {faults} faults, {operations} operations, trace {trace:016x}, {} violations",
            broken.len()
        )?;
        for Broken { promise, evidence } in broken.iter().take(3) {
            write!(f, "\n  {promise}: {evidence}")?;
        }
        if !broken.is_empty() {
            write!(f, "\n  again: SEED={seed} make sim ARGS=--verbose")?;
        }
        Ok(())
    }
}
