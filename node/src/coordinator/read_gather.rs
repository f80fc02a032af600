//! Gathers the states and digests of one read.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use starling_protocol::Frame;
use starling_storage::{Replica, values};
use tokio::sync::{Semaphore, oneshot};

use super::quorum::{QuorumTracker, Tally, Verdict};
use crate::internode::link::Late;
use crate::internode::message::{Kind, state_of};
use crate::internode::{LinkError, ReplySink};
use crate::overload::Held;

/// What a replica said of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its encoded state, or that it has none, and when it was read.
    State(Option<Bytes>, ReadAt),
    /// The digest of its state.
    Digest(u128),
}

/// When a state was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadAt {
    /// The replica's clock, no later than the reading.
    pub mint: u64,
    /// Writes of the key up to there may be forgotten at the replica: below its purge floor, or for their age.
    pub floor: u64,
}

impl ReadAt {
    /// For a read of `key` that begins now. The clock is moved to the present, as for a promise of a floor: what an idle replica last minted
    /// may lie before a floor that the others have adopted, and they would refuse what was read here.
    #[must_use]
    pub fn now(replica: &Replica, key: &[u8]) -> Self {
        Self { mint: replica.clock().read(), floor: replica.forgotten_up_to(key) }
    }
}

impl Answer {
    pub(super) fn digest(&self) -> u128 {
        match self {
            Self::State(state, _) => state.as_deref().map_or(0, values::digest),
            Self::Digest(digest) => *digest,
        }
    }
}

/// One round of questions. It may outlive its read, until the last replica has answered; then it holds nothing of it.
pub(super) struct ReadGather {
    counting: Mutex<Counting>,
    /// A permit for each contacted replica that failed or fell silent: ask another one.
    pub(super) wants_another: Semaphore,
}

struct Counting {
    /// What states are charged to, until the round is over.
    held: Option<Arc<Held>>,
    tracker: QuorumTracker,
    answers: Vec<Option<Answer>>,
    answered: usize,
    answered_min: usize,
    decided: Option<oneshot::Sender<Verdict>>,
}

impl ReadGather {
    /// A round that ends when the tracker is decided and at least `answered_min` of the
    /// `replicas` have answered or failed.
    pub(super) fn new(
        tracker: QuorumTracker,
        held: Arc<Held>,
        replicas: usize,
        answered_min: usize,
    ) -> (Arc<Self>, oneshot::Receiver<Verdict>) {
        let (decided, decision) = oneshot::channel();
        let counting = Counting {
            held: Some(held),
            tracker,
            answers: vec![None; replicas],
            answered: 0,
            answered_min,
            decided: Some(decided),
        };
        let counting = Mutex::new(counting);
        (Arc::new(Self { counting, wants_another: Semaphore::new(0) }), decision)
    }

    /// Counts one replica, this node's own included, and wants another one in place of one that failed.
    pub(super) fn settle(&self, replica: usize, answer: Option<Answer>) {
        let failed = answer.is_none();
        self.record(replica, answer);
        if failed {
            self.wants_another.add_permits(1);
        }
    }

    /// Counts one replica; once the round is over, nothing.
    fn record(&self, replica: usize, answer: Option<Answer>) {
        let mut counting = self.counting.lock();
        let Some(held) = &counting.held else { return };
        // A state for which there is no room is as good as none, and if it is the only one, so is the read.
        let room = match &answer {
            Some(Answer::State(Some(state), _)) => held.take(state.len()),
            _ => true,
        };
        let answer = answer.filter(|_| room);
        let mut answers = counting.answers.iter().flatten();
        let has_state = answers.any(|answer| matches!(answer, Answer::State(Some(_), _)));
        let verdict = counting.tracker.record(replica, answer.is_some());
        counting.answers[replica] = answer;
        counting.answered += 1;
        let verdict = if room || has_state { verdict } else { Verdict::Impossible };
        let over = match verdict {
            Verdict::Undecided => false,
            Verdict::Met => counting.answered >= counting.answered_min,
            Verdict::Impossible => true,
        };
        if over && let Some(decided) = counting.decided.take() {
            // The reader may have stopped waiting at its deadline.
            let _nobody_waits = decided.send(verdict);
        }
    }

    /// Ends the round: the answers so far, by replica. What comes later is dropped as it comes.
    pub(super) fn end(&self) -> Vec<Option<Answer>> {
        let mut counting = self.counting.lock();
        counting.held = None;
        std::mem::take(&mut counting.answers)
    }

    pub(super) fn tally(&self) -> Tally {
        self.counting.lock().tracker.tally()
    }
}

impl ReplySink for ReadGather {
    fn reply(&self, replica: u8, answer: Result<Frame, LinkError>) {
        self.settle(usize::from(replica), answer.ok().and_then(|frame| parse(&frame)));
    }

    fn late(&self, _replica: u8, late: Late) {
        if late == Late::Silent {
            self.wants_another.add_permits(1);
        }
    }
}

fn parse(frame: &Frame) -> Option<Answer> {
    match Kind::from_byte(frame.kind)? {
        Kind::State => {
            let floor = frame.header.as_ref().try_into().map_or(0, u64::from_le_bytes);
            Some(Answer::State(state_of(frame), ReadAt { mint: frame.mint, floor }))
        }
        Kind::DigestIs => {
            let bytes: [u8; 16] = frame.operand.as_ref().try_into().ok()?;
            Some(Answer::Digest(u128::from_le_bytes(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use starling_ring::Requirement;

    use super::{Answer, QuorumTracker, ReadAt, ReadGather, Verdict};
    use crate::overload::InFlight;

    const BUDGET: Duration = Duration::from_secs(2);

    #[test]
    fn a_round_that_is_over_holds_nothing_of_its_read_while_a_replica_is_late() {
        let node = InFlight::new(1 << 20);
        let state = || Some(Answer::State(Some(vec![7; 600 << 10].into()), ReadAt::default()));
        let share = node.connection().admit(1, BUDGET).expect("there is room");
        let held = Arc::new(share.hold());
        let one = Requirement { total: 1, per_datacenter: BTreeMap::new() };
        let tracker = QuorumTracker::new(&one, ["dc1", "dc1"]);
        let (gather, mut decision) = ReadGather::new(tracker, held.clone(), 2, 0);
        gather.record(0, state());
        assert_eq!(decision.try_recv(), Ok(Verdict::Met));
        assert_eq!(gather.end(), [state(), None]);
        drop((held, share));
        let next = node.connection().admit(900 << 10, BUDGET);
        assert!(next.is_ok(), "the read is answered");
        gather.record(1, state());
        drop(next);
        assert!(node.connection().admit(900 << 10, BUDGET).is_ok(), "what came late is dropped");
    }
}
