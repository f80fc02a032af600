//! The node's metrics, each named here and nowhere else in this crate, and the recorder behind them.
//!
//! The handles of the hot path are registered once and kept: an observation is an atomic addition,
//! without formatting a label. [`install`] must run before the first observation, or the process
//! keeps handles that record nothing. Metrics are per process: several nodes in one, as in tests,
//! share them. What is a state and not an event is set from the [`Overview`] when somebody looks.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{Unit, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use starling_ring::{ConsistencyLevel, HostId};
use starling_storage::values::Alarms;
use starling_storage::{ActorChange, StoreStatistics};

use crate::coordinator::RequestError;
use crate::internode::message::ReplicaError;
use crate::overview::{NodeState, Overview};

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A get.
    Read,
    /// A put.
    Write,
    /// A delete.
    Delete,
}

const OPS: [&str; 3] = ["read", "write", "delete"];
const LEVELS: [&str; 12] = [
    "any",
    "one",
    "two",
    "three",
    "quorum",
    "all",
    "local_one",
    "local_quorum",
    "each_quorum",
    "serial",
    "local_serial",
    "count",
];
const RESULTS: [&str; 7] =
    ["ok", "unavailable", "timeout", "write_failed", "overloaded", "refused", "failed"];
/// The limits at which requests are turned away.
const SHED: [&str; 6] =
    ["in_flight_bytes", "queue", "too_late", "disk_full", "connections", "unread_answers"];
const DROPPED: [&str; 9] = [
    "overloaded",
    "clock_skew",
    "damaged",
    "bucket",
    "store",
    "not_serving",
    "rebuilding",
    "late",
    "disk_full",
];
/// Upper bounds in seconds: 50 us to 10 s.
const DURATION_BOUNDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 3.0, 5.0, 10.0,
];
const SIBLING_BOUNDS: [f64; 8] = [0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 25.0, 100.0];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
static HANDLES: OnceLock<Handles> = OnceLock::new();

/// One counter for each combination that was ever seen, so that `/metrics` shows no others.
struct Handles {
    requests: [[[OnceLock<Counter>; RESULTS.len()]; LEVELS.len()]; OPS.len()],
    durations: [Histogram; OPS.len()],
    dropped: [OnceLock<Counter>; DROPPED.len()],
    siblings: Histogram,
    digest_mismatches: Counter,
    hedged_reads: Counter,
    read_repairs: Counter,
    hints_stored: Counter,
    hints_replayed: Counter,
    replica_reads: Counter,
    replica_writes: Counter,
    replica_write_durations: Histogram,
    replica_disk_read_durations: Histogram,
    syncs: Histogram,
}

impl Handles {
    fn register() -> Self {
        Self {
            requests: Default::default(),
            durations: OPS.map(|op| histogram!("starling_request_duration_seconds", "op" => op)),
            dropped: Default::default(),
            siblings: histogram!("starling_siblings"),
            digest_mismatches: counter!("starling_digest_mismatches_total"),
            hedged_reads: counter!("starling_hedged_reads_total"),
            read_repairs: counter!("starling_read_repairs_total"),
            hints_stored: counter!("starling_hints_stored_total"),
            hints_replayed: counter!("starling_hints_replayed_total"),
            replica_reads: counter!("starling_replica_requests_total", "op" => "read"),
            replica_writes: counter!("starling_replica_requests_total", "op" => "write"),
            replica_write_durations: histogram!(
                "starling_replica_request_duration_seconds", "op" => "write"
            ),
            replica_disk_read_durations: histogram!(
                "starling_replica_request_duration_seconds", "op" => "disk_read"
            ),
            syncs: histogram!("starling_wal_fsync_duration_seconds"),
        }
    }
}

fn handles() -> &'static Handles {
    HANDLES.get_or_init(Handles::register)
}

/// Installs the recorder of this process, once, and answers what renders it.
pub fn install() -> PrometheusHandle {
    RECORDER.get_or_init(install_once).clone()
}

fn install_once() -> PrometheusHandle {
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let siblings = Matcher::Full("starling_siblings".to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(durations, &DURATION_BOUNDS)
        .and_then(|builder| builder.set_buckets_for_metric(siblings, &SIBLING_BOUNDS))
        .expect("the bounds are not empty")
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("the program that embeds this node records the metrics: /metrics is empty");
    }
    describe();
    gauge!("starling_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    handle
}

fn describe() {
    let count = Unit::Count;
    for (name, help) in [
        ("starling_requests_total", "Requests of clients, by what became of them."),
        ("starling_requests_shed_total", "Requests and connections turned away at a limit."),
        ("starling_hedged_reads_total", "Reads sent to one more replica because one was slow."),
        ("starling_digest_mismatches_total", "Reads whose replicas did not agree."),
        ("starling_read_repairs_total", "Reads that brought a replica up to date."),
        ("starling_replica_requests_total", "Reads and writes done for a coordinator."),
        ("starling_replica_dropped_total", "Requests of coordinators that were not done."),
        ("starling_bad_frames_total", "Frames that were damaged, cut off, too large or unknown."),
        ("starling_hints_stored_total", "Writes kept for a node that missed them."),
        ("starling_hints_replayed_total", "Kept writes that the node has now."),
        ("starling_actor_changes_total", "Times that this node began to write under a new actor."),
        ("starling_repair_bytes_total", "Bytes that comparing with peers moved, states included."),
        ("starling_repair_states_total", "States that were exchanged because replicas differed."),
        ("starling_purged_keys_total", "Deleted keys that were forgotten."),
        (
            "starling_sweep_compactions_total",
            "Compactions begun to reclaim the space of deleted keys.",
        ),
        ("starling_hints_quarantined_total", "Kept writes that came too late, and are kept aside."),
        ("starling_hints_dropped_total", "Kept writes given up: comparing replicas brings them."),
        ("starling_bad_operands_total", "States from peers that were damaged, and refused."),
        (
            "starling_dot_conflicts_total",
            "Writes met with two different values: two nodes write under one identity, or memory is broken.",
        ),
        (
            "starling_opaque_merges_total",
            "Merges that met bytes which nobody can read, and kept them.",
        ),
    ] {
        describe_counter!(name, count, help);
    }
    // An alarm on what rises misses the first event of a counter that was not there before.
    SHED.iter().for_each(|reason| {
        counter!("starling_requests_shed_total", "reason" => *reason).increment(0)
    });
    for name in ["starling_hints_dropped_total", "starling_bad_operands_total"] {
        counter!(name).increment(0);
    }
    describe_gauges();
    describe_histograms();
}

fn describe_gauges() {
    for (name, help) in [
        ("starling_disk_free_bytes", "Space left on the disk of the data directory."),
        ("starling_disk_total_bytes", "Size of the disk of the data directory."),
        ("starling_build_info", "1, with the version as a label."),
        ("starling_node_state", "1 for the state that the node is in."),
        ("starling_peer_up", "1 while this node reaches the peer."),
        (
            "starling_peer_heartbeats",
            "1 while the peer's heartbeats arrive by gossip, whichever node passes them on.",
        ),
        ("starling_clock_offset_seconds", "How far the peer's clock is ahead of this node's."),
        ("starling_ring_epoch", "The ring epoch."),
        ("starling_ring_ownership_ratio", "The share of all data that this node holds."),
        ("starling_ring_slots", "Slots by how many of their replicas are up."),
        ("starling_requests_in_flight", "Requests being worked on."),
        ("starling_hints_pending", "Writes kept for a peer."),
        ("starling_hints_pending_bytes", "Bytes kept for a peer."),
        (
            "starling_repair_behind_keys",
            "Keys found to differ from a peer's and not yet exchanged.",
        ),
        (
            "starling_repair_behind_bytes",
            "Bytes of the values of keys that differ from a peer's, about.",
        ),
        (
            "starling_repair_last_agreement_seconds",
            "How long ago everything that differed from a peer had been exchanged.",
        ),
        ("starling_rebuilding", "1 while this node has lost writes and answers no reads."),
        ("starling_storage_bytes", "Bytes in the store."),
        ("starling_compactions_pending_bytes", "Bytes that compactions have yet to rewrite."),
    ] {
        describe_gauge!(name, help);
    }
}

fn describe_histograms() {
    describe_histogram!(
        "starling_request_duration_seconds",
        Unit::Seconds,
        "How long requests took, the waiting for replicas included."
    );
    describe_histogram!("starling_siblings", "Siblings found by a read.");
    describe_histogram!(
        "starling_replica_request_duration_seconds",
        Unit::Seconds,
        "How long requests of coordinators took here, until a write was durable; reads that the \
         cache answered are not counted."
    );
    describe_histogram!(
        "starling_wal_fsync_duration_seconds",
        Unit::Seconds,
        "How long the syncs of the store's log took."
    );
}

/// A client's request ended.
pub fn observe_request(
    op: Op,
    level: ConsistencyLevel,
    error: Option<&RequestError>,
    took: Duration,
) {
    let (op, level, result) = (op as usize, level_index(level), result_index(error));
    let handles = handles();
    let counter = handles.requests[op][level][result].get_or_init(|| {
        counter!(
            "starling_requests_total",
            "op" => OPS[op], "level" => LEVELS[level], "result" => RESULTS[result]
        )
    });
    counter.increment(1);
    handles.durations[op].record(took.as_secs_f64());
}

/// Something was turned away at the limit called `reason`, one of [`SHED`].
pub fn observe_shed(reason: &'static str) {
    counter!("starling_requests_shed_total", "reason" => reason).increment(1);
}

/// The disk of the data directory has so many bytes left of so many.
pub fn observe_disk(free: u64, total: u64) {
    gauge!("starling_disk_free_bytes").set(free as f64);
    gauge!("starling_disk_total_bytes").set(total as f64);
}

/// A frame from a `"client"` or a `"peer"` could not be used.
pub fn observe_bad_frame(from: &'static str) {
    counter!("starling_bad_frames_total", "from" => from).increment(1);
}

/// A read found so many siblings.
pub fn observe_siblings(count: usize) {
    handles().siblings.record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// The replicas of a read did not agree.
pub fn observe_digest_mismatch() {
    handles().digest_mismatches.increment(1);
}

/// A read was sent to one more replica.
pub fn observe_hedged_read() {
    handles().hedged_reads.increment(1);
}

/// A read wrote back to one replica or more.
pub fn observe_read_repair() {
    handles().read_repairs.increment(1);
}

/// So many writes were kept for nodes that missed them.
pub fn observe_hints_stored(count: usize) {
    handles().hints_stored.increment(count as u64);
}

/// So many kept writes arrived where they belong.
pub fn observe_hints_replayed(count: usize) {
    handles().hints_replayed.increment(count as u64);
}

/// Comparing with a peer moved so many bytes `"in"` or `"out"`.
pub fn observe_repair_bytes(direction: &'static str, bytes: usize) {
    counter!("starling_repair_bytes_total", "direction" => direction).increment(bytes as u64);
}

/// So many states were exchanged `"in"` or `"out"`. Their bytes count where they are sent outside of an answer.
pub fn observe_repaired(direction: &'static str, states: usize) {
    counter!("starling_repair_states_total", "direction" => direction).increment(states as u64);
}

/// So many deleted keys were forgotten.
pub fn observe_purged(keys: u64) {
    counter!("starling_purged_keys_total").increment(keys);
}

/// The space of deleted keys was given back.
pub fn observe_sweep_compaction() {
    counter!("starling_sweep_compactions_total").increment(1);
}

/// So many writes of one batch were applied for coordinators and made durable.
pub fn observe_replica_writes(count: usize, took: Duration) {
    handles().replica_writes.increment(count as u64);
    handles().replica_write_durations.record_many(took.as_secs_f64(), count);
}

/// A read for a coordinator had to wait for the disk.
pub fn observe_replica_disk_read(took: Duration) {
    handles().replica_disk_read_durations.record(took.as_secs_f64());
}

/// The store's log was synced.
pub fn observe_sync(took: Duration) {
    handles().syncs.record(took.as_secs_f64());
}

/// A read was answered for a coordinator.
pub fn observe_replica_read() {
    handles().replica_reads.increment(1);
}

/// A coordinator's request was not done.
pub fn observe_replica_dropped(error: &ReplicaError) {
    let reason = match error {
        ReplicaError::Overloaded => 0,
        ReplicaError::ClockSkew { .. } => 1,
        ReplicaError::Damaged | ReplicaError::BadRequest => 2,
        ReplicaError::Bucket { .. } => 3,
        ReplicaError::Store { .. } => 4,
        ReplicaError::ShuttingDown => 5,
        ReplicaError::Rebuilding => 6,
        ReplicaError::Late { .. } => 7,
        ReplicaError::DiskFull => 8,
    };
    let counter = handles().dropped[reason]
        .get_or_init(|| counter!("starling_replica_dropped_total", "reason" => DROPPED[reason]));
    counter.increment(1);
}

/// This node writes under a new actor.
pub fn observe_actor_change(change: ActorChange) {
    let reason = match change {
        ActorChange::UncleanBoot => "unclean_boot",
        ActorChange::LostWrites => "lost_writes",
        ActorChange::StoreMismatch => "store_mismatch",
        ActorChange::ClockJumped => "clock_jumped",
        ActorChange::AmnesiaRevealed => "amnesia_revealed",
        ActorChange::AmbiguousWrite => "ambiguous_write",
        _ => "other",
    };
    counter!("starling_actor_changes_total", "reason" => reason).increment(1);
}

/// A peer's heartbeats arrive by gossip, or do not any more.
pub fn observe_heartbeats(peer: HostId, arrive: bool) {
    gauge!("starling_peer_heartbeats", "peer" => peer.to_string()).set(f64::from(u8::from(arrive)));
}

/// A peer's wall clock is this far ahead of this node's.
pub fn observe_clock_offset(peer: HostId, offset_us: i64) {
    // Gauges are floating point; offsets of interest are far below 2^52 microseconds.
    let seconds = Duration::from_micros(offset_us.unsigned_abs()).as_secs_f64();
    let signed = if offset_us < 0 { -seconds } else { seconds };
    gauge!("starling_clock_offset_seconds", "peer" => peer.to_string()).set(signed);
}

/// Sets every gauge that shows a state of the node or its cluster.
pub(crate) fn observe_overview(overview: &Overview) {
    for state in NodeState::ALL {
        let is = f64::from(u8::from(state == overview.state));
        gauge!("starling_node_state", "state" => state.as_str()).set(is);
    }
    gauge!("starling_ring_epoch").set(float(overview.epoch));
    gauge!("starling_requests_in_flight").set(float(overview.requests_in_flight));
    let slots = overview.slots;
    for (health, slots) in
        [("full", slots.full), ("degraded", slots.degraded), ("below_quorum", slots.below_quorum)]
    {
        gauge!("starling_ring_slots", "health" => health).set(float(slots));
    }
    gauge!("starling_rebuilding").set(f64::from(u8::from(overview.repair.rebuilding)));
    for pair in &overview.repair.pairs {
        let peer = pair.peer.to_string();
        gauge!("starling_repair_behind_keys", "peer" => peer.clone()).set(float(pair.behind_keys));
        gauge!("starling_repair_behind_bytes", "peer" => peer.clone())
            .set(float(pair.behind_bytes));
        if let Some(ago_ms) = pair.agreed_ms_ago {
            let ago = Duration::from_millis(ago_ms).as_secs_f64();
            gauge!("starling_repair_last_agreement_seconds", "peer" => peer).set(ago);
        }
    }
    for node in &overview.nodes {
        if Some(node.host_id) == overview.node {
            gauge!("starling_ring_ownership_ratio").set(node.owns);
            continue;
        }
        let peer = node.host_id.to_string();
        let up = f64::from(u8::from(node.is_up()));
        gauge!("starling_peer_up", "peer" => peer.clone()).set(up);
        gauge!("starling_hints_pending", "peer" => peer.clone()).set(float(node.hints_pending));
        gauge!("starling_hints_pending_bytes", "peer" => peer).set(float(node.hints_pending_bytes));
    }
}

/// Sets the gauges of the store, and counts what must never happen to what is in it.
pub(crate) fn observe_storage(store: StoreStatistics, alarms: Alarms) {
    gauge!("starling_storage_bytes", "kind" => "tables").set(float(store.tables));
    gauge!("starling_storage_bytes", "kind" => "memtables").set(float(store.memtables));
    gauge!("starling_compactions_pending_bytes").set(float(store.compactions_owed));
    counter!("starling_dot_conflicts_total").absolute(alarms.dot_conflicts);
    counter!("starling_opaque_merges_total").absolute(alarms.opaque_merges);
}

/// Gauges are floats; above 2^53 a count loses its last digits, which no gauge here reaches.
fn float(count: u64) -> f64 {
    count as f64
}

fn level_index(level: ConsistencyLevel) -> usize {
    match level {
        ConsistencyLevel::Any => 0,
        ConsistencyLevel::One => 1,
        ConsistencyLevel::Two => 2,
        ConsistencyLevel::Three => 3,
        ConsistencyLevel::Quorum => 4,
        ConsistencyLevel::All => 5,
        ConsistencyLevel::LocalOne => 6,
        ConsistencyLevel::LocalQuorum => 7,
        ConsistencyLevel::EachQuorum => 8,
        ConsistencyLevel::Serial => 9,
        ConsistencyLevel::LocalSerial => 10,
        ConsistencyLevel::Count(_) => 11,
    }
}

fn result_index(error: Option<&RequestError>) -> usize {
    match error {
        None => 0,
        Some(
            RequestError::Unavailable { .. }
            | RequestError::ReadFailed { .. }
            | RequestError::NoLeader { .. },
        ) => 1,
        Some(RequestError::Timeout { .. } | RequestError::LeaderLost) => 2,
        Some(RequestError::WriteFailed { .. }) => 3,
        Some(RequestError::Overloaded { .. }) => 4,
        Some(RequestError::Store { .. }) => 6,
        // The rest are requests that could not be done as they were asked.
        Some(_) => 5,
    }
}
