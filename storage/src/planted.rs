//! Bugs that tests plant, to see that something notices them. No configuration reaches this: only a
//! test hands one to a constructor.

use std::fmt;

/// What is wrong on purpose. Each is a mistake that a change could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// A write is acknowledged before its sync.
    AcknowledgeBeforeSync,
    /// A failed sync counts as done.
    IgnoreFailedSync,
    /// The actor is kept although the machine lost its memory.
    KeepActorAfterPowerLoss,
    /// A put replaces everything, whatever its context has seen.
    PutReplacesUnseen,
    /// A put replaces nothing.
    PutIgnoresContext,
    /// A delete leaves what its context has seen.
    DeleteIgnoresContext,
    /// A replica acknowledges a batch of writes without its first one.
    ApplyForgetsFirst,
    /// No hint is kept for a replica that is known to be down.
    NoHintForTheDown,
    /// No hint is kept for a replica that failed or did not answer.
    NoHintForTheLate,
    /// A hint is forgotten although its target has not taken it.
    ForgetHintEarly,
    /// Reads ask one replica less than the level demands.
    ReadOneShort,
    /// Writes wait for one replica less than the level demands.
    WriteOneShort,
    /// A replica that failed counts as one that acknowledged.
    FailureCountsAsAck,
    /// A deadline counts as success.
    DeadlineCountsAsAck,
    /// A write of unknown outcome is answered as one that was not done.
    UnknownIsNotDone,
    /// A read takes the digests of all replicas for equal.
    DigestsAlwaysAgree,
    /// A read answers before its repair has arrived.
    AnswerBeforeRepair,
    /// A read returns one of the states that differ, and joins nothing.
    ReadDoesNotJoin,
    /// A read does not look at its floor.
    IgnoreFloor,
    /// A connection that leads nowhere is kept.
    KeepDeadConnections,
    /// A replica says that it has nothing when its state is not in memory.
    NotCachedIsAbsent,
    /// A replica that lost writes answers reads.
    AnswerWhileRebuilding,
    /// Comparing replicas only takes and does not give.
    RepairTakesOnly,
    /// A write does not mark what it changes as to be compared again.
    WritesLeaveLeavesClean,
    /// What was sent before the purge floor rose is still taken.
    TakeLateEnvelopes,
    /// Tombstones are forgotten as soon as they are old, whoever has seen them.
    PurgeWithoutFloor,
    /// What a read or a comparison writes back is dated by its sending, not by its reading.
    WriteBackUnderFreshMint,
    /// A replica adopts a purge floor although it has not compared with all others.
    FloorWithoutAgreement,
}

impl Bug {
    /// Every one.
    pub const ALL: [Bug; 28] = [
        Bug::AcknowledgeBeforeSync,
        Bug::IgnoreFailedSync,
        Bug::KeepActorAfterPowerLoss,
        Bug::PutReplacesUnseen,
        Bug::PutIgnoresContext,
        Bug::DeleteIgnoresContext,
        Bug::ApplyForgetsFirst,
        Bug::NoHintForTheDown,
        Bug::NoHintForTheLate,
        Bug::ForgetHintEarly,
        Bug::ReadOneShort,
        Bug::WriteOneShort,
        Bug::FailureCountsAsAck,
        Bug::DeadlineCountsAsAck,
        Bug::UnknownIsNotDone,
        Bug::DigestsAlwaysAgree,
        Bug::AnswerBeforeRepair,
        Bug::ReadDoesNotJoin,
        Bug::IgnoreFloor,
        Bug::KeepDeadConnections,
        Bug::NotCachedIsAbsent,
        Bug::AnswerWhileRebuilding,
        Bug::RepairTakesOnly,
        Bug::WritesLeaveLeavesClean,
        Bug::TakeLateEnvelopes,
        Bug::PurgeWithoutFloor,
        Bug::WriteBackUnderFreshMint,
        Bug::FloorWithoutAgreement,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The bug of this replica or node, if a test planted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted(Option<Bug>);

impl Planted {
    /// Without bugs, as far as anybody knows.
    pub const NONE: Planted = Planted(None);

    /// With this one.
    pub fn new(bug: Bug) -> Planted {
        Planted(Some(bug))
    }

    /// Whether it is this one.
    pub fn is(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }
}
