//! Buckets, and the requests on them.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use starling_protocol::{ContextToken, Level, Request, Response, TokenTextError};
use starling_ring::ConsistencyLevel;
use tokio::time::Instant;

use crate::client::Shared;
use crate::connection::now;
use crate::error::Error;
use crate::request::Job;

/// What a client has seen of a key: opaque, made by the cluster, good for that key only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CausalContext(ContextToken);

impl CausalContext {
    /// The text form, base64url.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.to_text()
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Text that is no base64url. Whether the cluster accepts it shows when it is used.
    pub fn from_text(text: &str) -> Result<Self, TokenTextError> {
        ContextToken::from_text(text).map(Self)
    }
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The concurrent values, newest first: usually one, none when nothing is stored.
    pub siblings: Vec<Bytes>,
    /// To be passed to the put that replaces them.
    pub context: CausalContext,
}

/// A bucket of a cluster; cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
    name: Arc<str>,
}

impl Bucket {
    pub(crate) fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self { shared, name: name.into() }
    }

    /// Opens the bucket on some node, so that a bad name is known at once.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        // The bucket is open on the connection by the time that this is sent; the question itself reads nothing,
        // so that opening a bucket is no request for data. Any key would do.
        let request = |_| Request::OpenBucket { name: self.name.to_string() };
        let timeout = self.shared.read_timeout;
        match self.run(&Bytes::new(), &[], false, timeout, &request).await? {
            (Response::BucketOpened { .. }, _) => Ok(()),
            _ => Err(garbled("it opened no bucket", false)),
        }
    }

    /// `keyspace.bucket`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a key.
    pub fn get(&self, key: impl Into<Bytes>) -> Get<'_> {
        Get {
            bucket: self,
            key: key.into(),
            level: self.shared.consistency,
            floor: None,
            timeout: self.shared.read_timeout,
        }
    }

    /// Stores a value. Without a context it stands beside what is there.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put<'_> {
        Put {
            bucket: self,
            key: key.into(),
            value: value.into(),
            level: self.shared.consistency,
            context: None,
            looks_first: false,
            timeout: self.shared.write_timeout,
        }
    }

    /// Stores a value in place of whatever a quorum shows first.
    pub fn overwrite(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put<'_> {
        Put { looks_first: true, ..self.put(key, value) }
    }

    /// Deletes a key: what its context covers, or without one what a quorum shows first.
    pub fn delete(&self, key: impl Into<Bytes>) -> Delete<'_> {
        Delete {
            bucket: self,
            key: key.into(),
            level: self.shared.consistency,
            context: None,
            timeout: self.shared.write_timeout,
        }
    }

    /// Joins a state from a snapshot into what every replica of the key has. Doing it again changes nothing.
    ///
    /// All replicas must be up and whole: a restored state keeps its old dates, and a replica that missed it would be taken to have had it,
    /// and deleted it.
    ///
    /// # Errors
    /// [`Error`]; where it is unknown, do it again.
    pub async fn restore(&self, key: Bytes, state: Bytes, timeout: Duration) -> Result<(), Error> {
        let level = wire_level(ConsistencyLevel::All);
        let request = |bucket| Request::Restore { bucket, key: key.clone(), level };
        match self.run(&key, &state, true, timeout, &request).await? {
            (Response::Restored, _) => Ok(()),
            _ => Err(garbled("it is no acknowledgement", true)),
        }
    }

    /// What a quorum as near as the write's level shows. All attempts of the write then replace the
    /// same: one that arrives late removes nothing that was written in the meantime.
    async fn look(
        &self,
        key: &Bytes,
        level: ConsistencyLevel,
        floor: Option<ContextToken>,
        deadline: Instant,
    ) -> Result<ContextToken, Error> {
        let level = match level {
            ConsistencyLevel::LocalOne | ConsistencyLevel::LocalQuorum => {
                ConsistencyLevel::LocalQuorum
            }
            _ => ConsistencyLevel::Quorum,
        };
        let timeout = deadline.saturating_duration_since(now());
        let get = Get { bucket: self, key: key.clone(), level, floor, timeout };
        Ok(get.send().await?.context.0)
    }

    fn keyspace(&self) -> &str {
        self.name.split_once('.').map_or(&self.name, |(keyspace, _)| keyspace)
    }

    async fn run(
        &self,
        key: &Bytes,
        operand: &[u8],
        write: bool,
        timeout: Duration,
        request: &(dyn Fn(u32) -> Request + Send + Sync),
    ) -> Result<(Response, Bytes), Error> {
        let keyspace = self.keyspace();
        let job = Job { bucket: &self.name, keyspace, key, write, operand, timeout, request };
        self.shared.run(&job).await
    }
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A read, sent when awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Get<'a> {
    bucket: &'a Bucket,
    key: Bytes,
    level: ConsistencyLevel,
    floor: Option<ContextToken>,
    timeout: Duration,
}

impl<'a> Get<'a> {
    /// How many replicas must agree.
    pub fn consistency(mut self, level: ConsistencyLevel) -> Self {
        self.level = level;
        self
    }

    /// The answer must have seen `context`: reads what was written with it, whichever node answers.
    pub fn floor(mut self, context: &CausalContext) -> Self {
        self.floor = Some(context.0.clone());
        self
    }

    /// How long it may take, all attempts together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the read.
    ///
    /// # Errors
    /// [`Error`]; a read changes nothing.
    pub async fn send(self) -> Result<Value, Error> {
        let level = wire_level(self.level);
        let request = |bucket| Request::Get {
            bucket,
            key: self.key.clone(),
            level,
            floor: self.floor.clone(),
        };
        let (response, operand) =
            self.bucket.run(&self.key, &[], false, self.timeout, &request).await?;
        match response {
            Response::Value { sibling_lens, context } => {
                let siblings = split(operand, &sibling_lens)
                    .ok_or_else(|| garbled("its siblings do not fit", false))?;
                Ok(Value { siblings, context: CausalContext(context) })
            }
            _ => Err(garbled("it is no value", false)),
        }
    }
}

/// A put, sent when awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Put<'a> {
    bucket: &'a Bucket,
    key: Bytes,
    value: Bytes,
    level: ConsistencyLevel,
    context: Option<ContextToken>,
    looks_first: bool,
    timeout: Duration,
}

impl<'a> Put<'a> {
    /// How many replicas must have it.
    pub fn consistency(mut self, level: ConsistencyLevel) -> Self {
        self.level = level;
        self
    }

    /// A put replaces what `context` covers, and nothing else. An overwrite replaces what it finds,
    /// which is then no older than `context`.
    pub fn context(mut self, context: &CausalContext) -> Self {
        self.context = Some(context.0.clone());
        self
    }

    /// How long it may take, all attempts together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the put. Returns the context of this write.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_unknown`] says whether it may have happened.
    pub async fn send(self) -> Result<CausalContext, Error> {
        let level = wire_level(self.level);
        let deadline = now() + self.timeout;
        let context = if self.looks_first {
            Some(self.bucket.look(&self.key, self.level, self.context, deadline).await?)
        } else {
            self.context
        };
        let operation = self.bucket.shared.seams.operation_id();
        let request = |bucket| Request::Put {
            bucket,
            key: self.key.clone(),
            level,
            context: context.clone(),
            operation,
        };
        let timeout = deadline.saturating_duration_since(now());
        written(self.bucket.run(&self.key, &self.value, true, timeout, &request).await?)
    }
}

/// A delete, sent when awaited.
#[must_use = "a request is sent when it is awaited"]
pub struct Delete<'a> {
    bucket: &'a Bucket,
    key: Bytes,
    level: ConsistencyLevel,
    context: Option<ContextToken>,
    timeout: Duration,
}

impl<'a> Delete<'a> {
    /// How many replicas must have it.
    pub fn consistency(mut self, level: ConsistencyLevel) -> Self {
        self.level = level;
        self
    }

    /// Deletes what `context` covers, and nothing else.
    pub fn context(mut self, context: &CausalContext) -> Self {
        self.context = Some(context.0.clone());
        self
    }

    /// How long it may take, all attempts together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the delete. Returns its context.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_unknown`] says whether it may have happened.
    pub async fn send(self) -> Result<CausalContext, Error> {
        let level = wire_level(self.level);
        let deadline = now() + self.timeout;
        let context = match self.context {
            Some(context) => context,
            None => self.bucket.look(&self.key, self.level, None, deadline).await?,
        };
        let operation = self.bucket.shared.seams.operation_id();
        let request = |bucket| Request::Delete {
            bucket,
            key: self.key.clone(),
            level,
            context: context.clone(),
            operation,
        };
        let timeout = deadline.saturating_duration_since(now());
        written(self.bucket.run(&self.key, &[], true, timeout, &request).await?)
    }
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Value, Error>;
    type IntoFuture = Pending<'a, Value>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<'a> IntoFuture for Put<'a> {
    type Output = Result<CausalContext, Error>;
    type IntoFuture = Pending<'a, CausalContext>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<CausalContext, Error>;
    type IntoFuture = Pending<'a, CausalContext>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

fn written((response, _): (Response, Bytes)) -> Result<CausalContext, Error> {
    match response {
        Response::Written { context } => Ok(CausalContext(context)),
        _ => Err(garbled("it is no acknowledgement", true)),
    }
}

fn garbled(what: &str, unknown: bool) -> Error {
    Error::Protocol { message: what.to_owned(), unknown }
}

fn split(mut operand: Bytes, lens: &[u32]) -> Option<Vec<Bytes>> {
    let mut siblings = Vec::with_capacity(lens.len().min(operand.len() + 1));
    for len in lens {
        let len = *len as usize;
        if len > operand.len() {
            return None;
        }
        siblings.push(operand.split_to(len));
    }
    operand.is_empty().then_some(siblings)
}

fn wire_level(level: ConsistencyLevel) -> Level {
    match level {
        ConsistencyLevel::Any => Level::Any,
        ConsistencyLevel::One => Level::One,
        ConsistencyLevel::Two => Level::Two,
        ConsistencyLevel::Three => Level::Three,
        ConsistencyLevel::Quorum => Level::Quorum,
        ConsistencyLevel::All => Level::All,
        ConsistencyLevel::LocalOne => Level::LocalOne,
        ConsistencyLevel::LocalQuorum => Level::LocalQuorum,
        ConsistencyLevel::EachQuorum => Level::EachQuorum,
        ConsistencyLevel::Serial => Level::Serial,
        ConsistencyLevel::LocalSerial => Level::LocalSerial,
        ConsistencyLevel::Count(count) => Level::Count(count),
    }
}
