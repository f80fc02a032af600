//! Hinted handoff: sends each peer, once it is back, the writes it missed, in order and paced.
//!
//! Invariant: a hint is forgotten only after its target has acknowledged it, or has refused it for
//! good. The cursor is durable in the store; a crash replays a few hints again, which joins away.

use std::sync::Arc;
use std::time::Duration;

use starling_ring::HostId;
use starling_storage::planted::{Bug, Planted};
use starling_storage::replica::Replica;
use starling_storage::{Hint, HintError, OwedHint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::blocking::Blocking;
use crate::internode::link::Request;
use crate::internode::message::{HINT, Kind, ReplicaError};
use crate::internode::{Link, LinkError, Links, Window};
use crate::membership::LivenessTable;
use crate::overload::InFlight;
use crate::time::now;

/// How often a peer's debt is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Hints in flight to one peer.
const WINDOW: usize = Window::SIZE_MAX;
/// Bytes of hints in flight to one peer.
const WINDOW_BYTES: u64 = 1 << 20;
/// Each peer gets hints at this pace, so that they do not crowd out its clients.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// While clients are served, handing over pauses for so many times as long as it took: it must not take what they need to recover.
const PAUSE_UNDER_LOAD: u32 = 4;
/// How long one hint may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the handoff works with.
#[derive(Clone)]
pub struct Handoff {
    /// Where the hints are.
    pub replica: Arc<Replica>,
    /// Who is up.
    pub liveness: Arc<LivenessTable>,
    /// Where reading hints may block.
    pub blocking: Blocking,
    /// Clients' requests, which go first.
    pub in_flight: InFlight,
    /// What a test wants to be wrong.
    pub planted: Planted,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Why a peer was not sent all that it is owed. What it has not taken is sent again.
#[derive(Debug, thiserror::Error)]
enum HandoffError {
    /// The peer did not take a hint, and may the next time.
    #[error("after {handed} hints: {source}")]
    Peer {
        /// Taken before.
        handed: u64,
        /// What became of the first that was not.
        source: LinkError,
    },
    /// The hints cannot be read, or what was taken cannot be noted.
    #[error("the store of hints failed: {0}")]
    Hints(#[from] HintError),
}

impl Handoff {
    /// Starts a task per peer on `tasks`.
    pub fn start(&self, links: &Links, tasks: &TaskTracker) {
        for link in links.iter() {
            let (handoff, link) = (self.clone(), link.clone());
            tasks.spawn(async move {
                let stop = handoff.stop.clone();
                // Cut off at any await: what was acknowledged but not yet forgotten is sent again.
                stop.run_until_cancelled(handoff.serve(&link)).await;
            });
        }
    }

    async fn serve(&self, link: &Arc<Link>) {
        let (target, address) = (link.member.host_id, link.member.address);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (hints, _) = self.replica.hints().pending(target);
            if hints > 0 && link.is_connected() && self.liveness.is_reachable(link.peer) {
                info!(%target, %address, hints, "handing hints over");
                match self.hand_over(link, target).await {
                    Ok(0) => {}
                    Ok(handed) => info!(%target, %address, handed, "hints handed over"),
                    Err(HandoffError::Peer { handed, source }) => {
                        debug!(%target, %address, handed, reason = %source, "handing hints over is interrupted");
                    }
                    Err(error @ HandoffError::Hints(_)) => {
                        warn!(%target, %address, %error, "cannot hand hints over; it is tried again");
                    }
                }
            }
        }
    }

    /// Sends everything owed. Returns how many hints were taken.
    async fn hand_over(&self, link: &Arc<Link>, target: HostId) -> Result<u64, HandoffError> {
        let mut handed = 0;
        loop {
            let replica = self.replica.clone();
            let next = move || replica.hints().next(target, WINDOW, WINDOW_BYTES);
            let owed = self.blocking.run(next).await?;
            if owed.is_empty() {
                return Ok(handed);
            }
            let sent_at = now();
            let mut results = self.send(link, &owed).await;
            let took = now().saturating_duration_since(sent_at);
            let taken = results
                .iter()
                .take_while(|result| is_settled(result) || self.planted.is(Bug::ForgetHintEarly));
            let taken = taken.count();
            for (hint, result) in owed.iter().zip(&results).take(taken) {
                note(target, hint, result);
            }
            let bytes: u64 =
                owed[..taken].iter().filter_map(|owed| owed.hint.as_ref()).map(size).sum();
            let arrived = results[..taken].iter().filter(|result| result.is_ok()).count();
            handed += arrived as u64;
            crate::metrics::observe_hints_replayed(arrived);
            if let Some(last) = taken.checked_sub(1).map(|last| owed[last].sequence) {
                let replica = self.replica.clone();
                let late = owed.iter().zip(&results[..taken]).filter(|(_, result)| is_late(result));
                let late: Vec<Hint> = late.filter_map(|(owed, _)| owed.hint.clone()).collect();
                let forget = move || {
                    replica.hints().quarantine().keep(target, &late)?;
                    replica.hints().done_through(target, last)
                };
                self.blocking.run(forget).await?;
            }
            if taken < owed.len()
                && let Err(source) = results.swap_remove(taken)
            {
                return Err(HandoffError::Peer { handed, source });
            }
            let is_busy = self.in_flight.requests() > 0;
            let yielded = if is_busy { took * PAUSE_UNDER_LOAD } else { Duration::ZERO };
            tokio::time::sleep(pause(bytes).max(yielded)).await;
        }
    }

    /// Sends a window of hints and waits for all answers.
    async fn send(&self, link: &Arc<Link>, owed: &[OwedHint]) -> Vec<Result<(), LinkError>> {
        let (window, answered) = Window::new(owed.len());
        for (place, owed) in owed.iter().enumerate() {
            let Some(hint) = &owed.hint else {
                window.settle(place, Err(ReplicaError::Damaged.into()));
                continue;
            };
            let name = self.replica.buckets().name(hint.table);
            let Some(name) = name else {
                let reason = "its bucket is not known here".to_owned();
                window.settle(place, Err(ReplicaError::Bucket { reason }.into()));
                continue;
            };
            let request = Request {
                kind: Kind::Mutate,
                flags: HINT,
                budget: ANSWER_WITHIN,
                mint: hint.mint,
                begin_by: None,
                header: &hint.key,
                operand: &hint.operand,
                bucket: Some((hint.table, &name)),
            };
            link.send(&request, Window::waiter(&window, place));
        }
        // The sender lives in the window, which every pending answer keeps alive.
        answered.await.unwrap_or_default()
    }
}

fn size(hint: &Hint) -> u64 {
    (hint.key.len() + hint.operand.len()) as u64
}

/// How long sending `bytes` should take.
fn pause(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND)
}

/// Whether a hint need not be sent again: taken, or refused for a reason that will not pass.
fn is_settled(result: &Result<(), LinkError>) -> bool {
    result.as_ref().err().is_none_or(LinkError::is_final)
}

/// Whether the target has forgotten so much since that the hint could bring back what was deleted.
fn is_late(result: &Result<(), LinkError>) -> bool {
    matches!(result, Err(LinkError::Refused(ReplicaError::Late { .. })))
}

fn note(target: HostId, owed: &OwedHint, result: &Result<(), LinkError>) {
    match result {
        Ok(()) => {}
        Err(reason) if owed.hint.is_none() => {
            error!(%target, sequence = owed.sequence, %reason, "a stored hint is damaged and was dropped");
        }
        // The quarantine names it.
        Err(_) if is_late(result) => {}
        Err(reason) => {
            warn!(%target, sequence = owed.sequence, %reason, "the target refuses a hint for good; it was dropped");
        }
    }
}
