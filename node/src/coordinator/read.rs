//! A read, top to bottom: plan, ask, compare digests; where they differ, fetch the states, join
//! them, and write the join back before answering.

use std::sync::Arc;

use bytes::Bytes;
use starling_storage::planted::Bug;
use starling_storage::values::{self, Causal, Context};
use starling_storage::{Lookup, ReadError, Tier};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::plan::Plan;
use super::quorum::Verdict;
use super::read_gather::{Answer, ReadAt, ReadGather};
use super::spread::Spread;
use super::write::number;
use super::{Coordinator, ReadRequest, RequestError};
use crate::internode::message::Kind;
use crate::internode::{Waiter, link};
use crate::overload::Held;
use crate::time::now;

/// What a read found.
#[derive(Debug, Clone)]
pub struct ReadResult {
    /// The siblings, newest first; none when there is nothing or it was deleted.
    pub values: Vec<Bytes>,
    /// The sealed context of all that was seen.
    pub context: Bytes,
}

/// How many replicas are asked for the state itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// The first; the others send digests.
    OneState,
    /// All.
    States,
    /// All living replicas, and all must answer.
    Everyone,
}

impl Coordinator {
    /// Reads a key.
    ///
    /// # Errors
    /// [`RequestError`]; a read changes nothing but staleness, whatever it answers.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadResult, RequestError> {
        let state = self.read_state(&request).await?;
        let values = state.visible(request.bucket.lww).into_iter();
        let values: Vec<Bytes> = values.map(|sibling| sibling.value.clone()).collect();
        crate::metrics::observe_siblings(values.len());
        let context = self.seal(&request.bucket, &request.key, state.context());
        Ok(ReadResult { values, context })
    }

    /// Reads the whole causal state of a key at the request's level.
    async fn read_state(&self, request: &ReadRequest) -> Result<Causal, RequestError> {
        let (began, held) = (now(), &request.held);
        let plan = self.plan(&request.bucket, &request.key, request.level, Bug::ReadOneShort)?;
        self.check_readable(&plan)?;
        let floor = match &request.floor {
            Some(token) => Some(self.unseal(&request.bucket, &request.key, token)?),
            None => None,
        };
        let answers = self.ask(&plan, Ask::OneState, held, request.deadline).await?;
        let blind = self.planted.is(Bug::DigestsAlwaysAgree);
        let state = match agreed(&answers, blind) {
            Some(state) => decode(state)?,
            None => {
                crate::metrics::observe_digest_mismatch();
                let states = self.ask(&plan, Ask::States, held, request.deadline).await?;
                self.reconcile(&plan, &states, request.deadline).await?
            }
        };
        self.hedging.observe(now().saturating_duration_since(began));
        match floor {
            Some(floor)
                if !floor.is_covered_by(state.context(), forgotten(&answers))
                    && !self.planted.is(Bug::IgnoreFloor) =>
            {
                self.raise_to_floor(&plan, &floor, held, request.deadline).await
            }
            _ => Ok(state),
        }
    }

    /// Joins what every living replica has, because the level's replicas have not seen the floor.
    async fn raise_to_floor(
        &self,
        plan: &Plan,
        floor: &Context,
        held: &Arc<Held>,
        deadline: Instant,
    ) -> Result<Causal, RequestError> {
        let states = self.ask(plan, Ask::Everyone, held, deadline).await?;
        let state = self.reconcile(plan, &states, deadline).await?;
        let meets = floor.is_covered_by(state.context(), forgotten(&states));
        if meets { Ok(state) } else { Err(RequestError::FloorNotMet) }
    }

    async fn ask(
        &self,
        plan: &Plan,
        ask: Ask,
        held: &Arc<Held>,
        deadline: Instant,
    ) -> Result<Vec<Option<Answer>>, RequestError> {
        let preference = self.preference(plan);
        let chosen = match ask {
            Ask::Everyone => preference.clone(),
            Ask::OneState | Ask::States => plan.tracker.choose(&preference),
        };
        if chosen.is_empty() {
            self.check_readable(plan)?;
        }
        let (gather, decision) = ReadGather::new(
            plan.tracker.clone(),
            held.clone(),
            plan.replicas().len(),
            match ask {
                Ask::Everyone => chosen.len(),
                Ask::OneState | Ask::States => 0,
            },
        );
        let spare = preference.into_iter().filter(|index| !chosen.contains(index));
        for (place, &index) in chosen.iter().enumerate() {
            let kind = if place == 0 || ask != Ask::OneState { Kind::Read } else { Kind::Digest };
            self.question(plan, index, kind, &gather, deadline);
            if !decision.is_empty() {
                // Refused for want of room: then nobody else need read it.
                break;
            }
        }
        let verdict = self.decided(plan, &gather, decision, spare, deadline).await;
        let answers = gather.end();
        match verdict {
            None => Err(RequestError::Timeout { tally: gather.tally(), write: false }),
            Some(Verdict::Met) => Ok(answers),
            Some(_) if held.was_refused() => {
                crate::metrics::observe_shed("in_flight_bytes");
                let reason = "too many bytes in flight on this node for a value of this size";
                Err(RequestError::Overloaded { reason })
            }
            Some(_) => Err(RequestError::ReadFailed { tally: gather.tally() }),
        }
    }

    /// Waits for the end of a round, and asks one of the `spare` replicas for each that fails or falls silent, and for one that is slow. None once
    /// it is too late.
    async fn decided(
        &self,
        plan: &Plan,
        gather: &Arc<ReadGather>,
        mut decision: oneshot::Receiver<Verdict>,
        mut spare: impl Iterator<Item = usize>,
        deadline: Instant,
    ) -> Option<Verdict> {
        if let Ok(verdict) = decision.try_recv() {
            return Some(verdict);
        }
        let mut another = || match spare.next() {
            Some(index) => {
                self.question(plan, index, Kind::Read, gather, deadline);
                true
            }
            None => false,
        };
        let timer = tokio::time::sleep_until((now() + self.hedging.delay()).min(deadline));
        tokio::pin!(timer);
        loop {
            tokio::select! {
                biased;
                verdict = &mut decision => return Some(verdict.unwrap_or(Verdict::Impossible)),
                permit = gather.wants_another.acquire() => {
                    permit.expect("the permits are never closed").forget();
                    another();
                }
                () = &mut timer => {
                    if now() >= deadline {
                        return None;
                    }
                    if self.hedging.spend() && another() {
                        crate::metrics::observe_hedged_read();
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Puts one question to one replica; the answer goes to the gather.
    fn question(
        &self,
        plan: &Plan,
        index: usize,
        kind: Kind,
        gather: &Arc<ReadGather>,
        deadline: Instant,
    ) {
        let node = plan.replicas()[index];
        if node == self.local.me {
            return self.question_here(plan, index, gather.clone());
        }
        let request = link::Request {
            kind,
            flags: 0,
            budget: deadline.saturating_duration_since(now()),
            mint: 0,
            begin_by: None,
            header: &plan.storage_key,
            operand: &[],
            bucket: None,
        };
        self.ask_node(node, &request, Waiter::new(gather.clone(), number(index)));
    }

    fn question_here(&self, plan: &Plan, index: usize, gather: Arc<ReadGather>) {
        let read_at = ReadAt::now(&self.replica, &plan.storage_key);
        if !self.replica.may_answer() {
            return gather.settle(index, None);
        }
        match self.replica.read(&plan.storage_key, Tier::Cached) {
            Ok(Lookup::NotCached) => {
                let (replica, blocking) = (self.replica.clone(), self.blocking.clone());
                let key = plan.storage_key.clone();
                tokio::spawn(async move {
                    let found = blocking.run(move || replica.read(&key, Tier::Any)).await;
                    gather.settle(index, answer_here(found, read_at));
                });
            }
            found => gather.settle(index, answer_here(found, read_at)),
        }
    }

    /// Joins the states, and writes the join to those that lack it until as many replicas hold it
    /// as the level asks for: with 2R > N no later read at the level can see less.
    async fn reconcile(
        &self,
        plan: &Plan,
        answers: &[Option<Answer>],
        deadline: Instant,
    ) -> Result<Causal, RequestError> {
        let states = || {
            answers.iter().flatten().filter_map(|answer| match answer {
                Answer::State(Some(state), _) => Some(state.as_ref()),
                _ => None,
            })
        };
        let oldest = answers.iter().flatten().filter_map(|answer| match answer {
            Answer::State(_, read_at) => Some(read_at.mint),
            Answer::Digest(_) => None,
        });
        let mint = oldest.min().unwrap_or(0);
        if self.planted.is(Bug::ReadDoesNotJoin) {
            return decode(states().next().map(Bytes::copy_from_slice));
        }
        let joined = Bytes::from(values::merge(None, states()));
        if states().next().is_none() {
            return Ok(Causal::default());
        }
        let wanted = values::digest(&joined);
        let holds: Vec<bool> = answers
            .iter()
            .map(|answer| answer.as_ref().is_some_and(|answer| answer.digest() == wanted))
            .collect();
        if holds.iter().any(|holds| !holds) {
            self.write_back(plan, &joined, mint, &holds, deadline).await?;
        }
        decode(Some(joined))
    }

    async fn write_back(
        &self,
        plan: &Plan,
        joined: &Bytes,
        mint: u64,
        holds: &[bool],
        deadline: Instant,
    ) -> Result<(), RequestError> {
        crate::metrics::observe_read_repair();
        let fresh = self.planted.is(Bug::WriteBackUnderFreshMint);
        let mint = if fresh { self.replica.clock().read() } else { mint };
        let spread = Spread { state: joined, mint, holds, hinted: false, deadline };
        let (gather, decision) = self.spread(plan, spread).await;
        if self.planted.is(Bug::AnswerBeforeRepair) {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline, decision).await {
            Ok(Ok(Verdict::Met)) => Ok(()),
            _ => Err(RequestError::Timeout { tally: gather.tally(), write: false }),
        }
    }
}

/// Up to when any of the answers may have forgotten: a write at or below it that no answer knows was deleted and forgotten.
fn forgotten(answers: &[Option<Answer>]) -> u64 {
    let floors = answers.iter().flatten().filter_map(|answer| match answer {
        Answer::State(_, read_at) => Some(read_at.floor),
        Answer::Digest(_) => None,
    });
    floors.max().unwrap_or(0)
}

/// The state, if every answer has its digest: `Some(None)` where all have nothing.
#[expect(clippy::option_option, reason = "agreement on absence is agreement")]
fn agreed(answers: &[Option<Answer>], blind: bool) -> Option<Option<Bytes>> {
    let mut answers = answers.iter().flatten();
    let first = answers.next()?;
    let digest = first.digest();
    let mut state = None;
    for answer in std::iter::once(first).chain(answers) {
        if answer.digest() != digest && !blind {
            return None;
        }
        if let Answer::State(found, _) = answer {
            state = Some(found.clone());
        }
    }
    state
}

fn answer_here(found: Result<Lookup, ReadError>, read_at: ReadAt) -> Option<Answer> {
    match found {
        Ok(Lookup::Found(state)) => Some(Answer::State(Some(state), read_at)),
        Ok(Lookup::Absent) => Some(Answer::State(None, read_at)),
        Ok(Lookup::NotCached) => None,
        Err(error) => {
            tracing::error!(%error, "cannot read from the store");
            None
        }
    }
}

fn decode(state: Option<Bytes>) -> Result<Causal, RequestError> {
    match state {
        None => Ok(Causal::default()),
        Some(state) => {
            Causal::decode(state).map_err(|error| RequestError::Store { reason: error.to_string() })
        }
    }
}
