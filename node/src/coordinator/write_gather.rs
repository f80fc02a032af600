//! Gathers the acknowledgements of one write and leaves hints for the replicas that did not give one.

use std::sync::Arc;

use parking_lot::Mutex;
use starling_protocol::Frame;
use starling_ring::HostId;
use starling_storage::Hint;
use starling_storage::planted::{Bug, Planted};
use tokio::sync::oneshot;

use super::late_hints::LateHints;
use super::quorum::{QuorumTracker, Tally, Verdict};
use crate::internode::link::Late;
use crate::internode::{LinkError, ReplySink};

/// One write in flight. Lives until the last replica has answered or has a hint.
pub(super) struct WriteGather {
    counting: Mutex<Counting>,
    hint: Option<HintFor>,
    planted: Planted,
}

/// What it takes to leave a hint. A repair has none: the next read repairs again.
pub(super) struct HintFor {
    pub(super) hints: LateHints,
    pub(super) hosts: Vec<HostId>,
    pub(super) envelope: Hint,
}

struct Counting {
    tracker: QuorumTracker,
    hinted: Vec<bool>,
    decided: Option<oneshot::Sender<Verdict>>,
}

impl WriteGather {
    /// `down[i]`: the replica was known to be down, is not asked, and has its hint already.
    pub(super) fn new(
        tracker: QuorumTracker,
        down: &[bool],
        hint: Option<HintFor>,
        planted: Planted,
    ) -> (Arc<Self>, oneshot::Receiver<Verdict>) {
        let (decided, decision) = oneshot::channel();
        let mut counting = Counting { tracker, hinted: down.to_vec(), decided: Some(decided) };
        for (index, _) in down.iter().enumerate().filter(|(_, down)| **down) {
            counting.tracker.record(index, false);
        }
        (Arc::new(Self { counting: Mutex::new(counting), hint, planted }), decision)
    }

    /// Counts one replica, this node's own included.
    pub(super) fn record(&self, replica: usize, success: bool) {
        let mut counting = self.counting.lock();
        let verdict = counting.tracker.record(replica, success);
        if verdict != Verdict::Undecided
            && let Some(decided) = counting.decided.take()
        {
            // The client may have stopped waiting; the write goes on without it.
            let _nobody_waits = decided.send(verdict);
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.counting.lock().tracker.tally()
    }

    fn leave_hint(&self, replica: usize) {
        let Some(hint) = &self.hint else { return };
        if self.planted.is(Bug::NoHintForTheLate) {
            return;
        }
        if std::mem::replace(&mut self.counting.lock().hinted[replica], true) {
            return;
        }
        hint.hints.keep(hint.hosts[replica], hint.envelope.clone());
    }
}

impl ReplySink for WriteGather {
    fn reply(&self, replica: u8, answer: Result<Frame, LinkError>) {
        let replica = usize::from(replica);
        if answer.is_err() {
            self.leave_hint(replica);
        }
        self.record(replica, answer.is_ok() || self.planted.is(Bug::FailureCountsAsAck));
    }

    fn late(&self, replica: u8, late: Late) {
        if late == Late::Overdue {
            self.leave_hint(usize::from(replica));
        }
    }
}
