//! The one file that maps this node's errors to the wire.

use starling_protocol::{Level, WireError};
use starling_ring::{ConsistencyError, ConsistencyLevel};
use starling_storage::buckets::BucketError;

use crate::coordinator::RequestError;

/// The level that a client named.
pub(super) fn consistency(level: Level) -> ConsistencyLevel {
    match level {
        Level::Any => ConsistencyLevel::Any,
        Level::One => ConsistencyLevel::One,
        Level::Two => ConsistencyLevel::Two,
        Level::Three => ConsistencyLevel::Three,
        Level::Quorum => ConsistencyLevel::Quorum,
        Level::All => ConsistencyLevel::All,
        Level::LocalOne => ConsistencyLevel::LocalOne,
        Level::LocalQuorum => ConsistencyLevel::LocalQuorum,
        Level::EachQuorum => ConsistencyLevel::EachQuorum,
        Level::Serial => ConsistencyLevel::Serial,
        Level::LocalSerial => ConsistencyLevel::LocalSerial,
        Level::Count(count) => ConsistencyLevel::Count(count),
    }
}

pub(super) fn wire_error(error: &RequestError) -> WireError {
    match error {
        RequestError::Unavailable { level, tally, down } => WireError::Unavailable {
            level: level.to_string(),
            required: tally.required,
            alive: tally.received,
            down: down.clone(),
        },
        RequestError::Timeout { tally, write } => {
            WireError::Timeout { received: tally.received, required: tally.required, write: *write }
        }
        RequestError::ReadFailed { tally } => WireError::ReadFailed {
            received: tally.received,
            required: tally.required,
            failed: tally.failed,
        },
        RequestError::WriteFailed { tally } => WireError::WriteFailed {
            received: tally.received,
            required: tally.required,
            failed: tally.failed,
        },
        RequestError::Overloaded { reason } => {
            WireError::Overloaded { reason: (*reason).to_owned() }
        }
        RequestError::Level(error) => level_error(error),
        RequestError::UnknownKeyspace { name } => WireError::UnknownKeyspace { name: name.clone() },
        RequestError::KeySize { len, max } => {
            WireError::KeyTooLarge { len: wide(*len), max: wide(*max) }
        }
        RequestError::ValueTooLarge { len, max } => {
            WireError::ValueTooLarge { len: wide(*len), max: wide(*max) }
        }
        RequestError::ObjectTooLarge { len, max } => {
            WireError::ObjectTooLarge { len: wide(*len), max: wide(*max) }
        }
        RequestError::TooManySiblings { count, max } => {
            WireError::TooManySiblings { count: narrow(*count), max: narrow(*max) }
        }
        RequestError::BadContext { reason } => WireError::BadContext { reason: reason.clone() },
        RequestError::FloorNotMet => WireError::FloorNotMet,
        RequestError::ClockSkew { ahead_us } => WireError::ClockSkew { ahead_ms: ahead_us / 1_000 },
        RequestError::NoLeader { reason } => WireError::NoLeader { reason: reason.clone() },
        RequestError::LeaderLost => WireError::LeaderLost,
        RequestError::DiskFull => WireError::DiskFull,
        RequestError::BadState { .. } => WireError::BadRequest { message: error.to_string() },
        RequestError::Store { reason } => WireError::Internal { message: reason.clone() },
    }
}

fn level_error(error: &ConsistencyError) -> WireError {
    match error {
        ConsistencyError::NotSupportedYet { level } => {
            WireError::NotSupportedYet { what: format!("consistency level {level}") }
        }
        ConsistencyError::NotEnoughReplicas { required, replication_factor } => {
            WireError::NotEnoughReplicas {
                required: *required,
                replication_factor: *replication_factor,
            }
        }
        other => WireError::BadRequest { message: other.to_string() },
    }
}

pub(super) fn bucket_error(name: &str, error: &BucketError) -> WireError {
    match error {
        BucketError::Collision { other, .. } => {
            WireError::BucketIdCollision { name: name.to_owned(), other: other.clone() }
        }
        BucketError::TooMany { max } => WireError::TooManyBuckets { max: narrow(*max) },
        BucketError::BadName { reason, .. } => {
            WireError::BadBucketName { name: name.to_owned(), reason: (*reason).to_string() }
        }
        other => WireError::Internal { message: other.to_string() },
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn wide(number: usize) -> u64 {
    number as u64
}
