//! What the generator sends to: a bucket of a real cluster, or a model of one in tests.
//!
//! Invariant: a [`Failure`] with `unknown: false` says that the operation surely took no effect.

use std::future::Future;

use bytes::Bytes;

use super::keys::KeyName;

/// What a write replaces.
#[derive(Debug)]
pub enum Cause<'a, C> {
    /// Nothing: it stands beside whatever is there.
    Nothing,
    /// What that context covers.
    Context(&'a C),
    /// Whatever the cluster finds by reading first.
    WhatIsThere,
}

/// How an operation failed, as the report classes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Too few replicas were up.
    Unavailable,
    /// Too few replicas answered in time.
    Timeout,
    /// The cluster had reached a limit.
    Overloaded,
    /// Anything else.
    Other,
}

/// An operation that did not succeed, after all retries.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The class.
    pub kind: FailureKind,
    /// Whether it may have taken effect nevertheless, or may yet.
    pub unknown: bool,
    /// What the client library said.
    pub message: String,
}

/// Values and their context.
#[derive(Clone, Debug)]
pub struct Reading<C> {
    /// The siblings.
    pub siblings: Vec<Bytes>,
    /// What a write has to carry to replace them.
    pub context: C,
}

/// A bucket at one consistency level.
pub trait Target: Clone + Send + Sync + 'static {
    /// A causal context.
    type Context: Clone + Send + Sync + 'static;

    /// Reads a key; with a floor, an answer covers it.
    fn read(
        &self,
        key: &KeyName,
        floor: Option<&Self::Context>,
    ) -> impl Future<Output = Result<Reading<Self::Context>, Failure>> + Send;

    /// Writes a value, or deletes where there is none.
    fn write(
        &self,
        key: &KeyName,
        value: Option<Bytes>,
        cause: Cause<'_, Self::Context>,
    ) -> impl Future<Output = Result<Self::Context, Failure>> + Send;

    /// How many requests were sent again so far, of all operations together.
    fn retries(&self) -> u64;

    /// How many writes were acknowledged so far after an earlier attempt that may have been applied too.
    fn repetitions(&self) -> u64;
}
