//! What clients did and saw, as plain data: what the checkers judge.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// One written value. No two writes write the same.
pub type Value = u64;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub client: u8,
    /// On which key.
    pub key: u8,
    /// When it was called.
    pub begin: Duration,
    /// When it returned.
    pub end: Duration,
    /// At which level.
    pub level: Level,
    /// What, and with which result.
    pub what: What,
}

/// How many replicas had to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// One.
    One,
    /// More than half.
    Quorum,
    /// Every one.
    All,
}

/// See [`Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Read these values; `None` if the read failed.
    Read {
        /// What was read.
        values: Option<BTreeSet<Value>>,
        /// What the read had to have seen at least.
        floor: BTreeSet<Value>,
    },
    /// Wrote a value.
    Write(Write),
}

/// A put, or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What was put; `None` for a delete.
    pub value: Option<Value>,
    /// What it replaces.
    pub covers: Covers,
    /// What became of it.
    pub outcome: Outcome,
    /// The client tried more than once, so the cluster may hold it more than once.
    pub repeated: bool,
}

/// What a write replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covers {
    /// These values, which its context has seen.
    These(BTreeSet<Value>),
    /// Whatever the cluster held when the client looked, which it does once, before its first attempt.
    Whatever,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Acked,
    /// It may have been done, or may yet be.
    Unknown,
    /// It was surely not done, for this reason.
    NotDone(String),
}

impl Operation {
    /// The write, if it is one.
    pub fn write(&self) -> Option<&Write> {
        match &self.what {
            What::Write(write) => Some(write),
            What::Read { .. } => None,
        }
    }
}

impl Write {
    /// Whether it replaced `value`, should it have been done.
    pub fn may_cover(&self, value: Value) -> bool {
        match &self.covers {
            Covers::These(values) => values.contains(&value),
            Covers::Whatever => true,
        }
    }

    /// Whether it surely replaced `value`, should it have been done.
    pub fn covers(&self, value: Value) -> bool {
        matches!(&self.covers, Covers::These(values) if values.contains(&value))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, end) = (self.begin.as_millis(), self.end.as_millis());
        write!(
            f,
            "{begin:>7}..{end:<7} client {} key {} {:?} ",
            self.client, self.key, self.level
        )?;
        match &self.what {
            What::Read { values, floor } => {
                match values {
                    Some(values) => write!(f, "read {values:?}")?,
                    None => write!(f, "read nothing: it failed")?,
                }
                if floor.is_empty() { Ok(()) } else { write!(f, ", not below {floor:?}") }
            }
            What::Write(write) => {
                match write.value {
                    Some(value) => write!(f, "put {value}")?,
                    None => write!(f, "delete")?,
                }
                match &write.covers {
                    Covers::These(values) => write!(f, " over {values:?}")?,
                    Covers::Whatever => write!(f, " over whatever there is")?,
                }
                write!(f, ": {:?}{}", write.outcome, if write.repeated { ", repeated" } else { "" })
            }
        }
    }
}
