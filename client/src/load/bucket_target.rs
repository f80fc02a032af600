//! A bucket of a real cluster as a target, through the client library as any program uses it.

use bytes::Bytes;
use starling_protocol::WireError;
use starling_ring::ConsistencyLevel;

use super::keys::KeyName;
use super::target::{Cause, Failure, FailureKind, Reading, Target};
use crate::bucket::{Bucket, CausalContext};
use crate::client::Client;
use crate::error::Error;

/// A bucket at one consistency level.
#[derive(Clone)]
pub struct BucketTarget {
    client: Client,
    bucket: Bucket,
    level: ConsistencyLevel,
}

impl BucketTarget {
    /// Opens the bucket `name`, keyspace.bucket, for operations at `level`.
    ///
    /// # Errors
    /// Those of [`Client::bucket`].
    pub async fn open(
        client: &Client,
        name: &str,
        level: ConsistencyLevel,
    ) -> Result<BucketTarget, Error> {
        let bucket = client.bucket(name).await?;
        Ok(BucketTarget { client: client.clone(), bucket, level })
    }
}

impl Target for BucketTarget {
    type Context = CausalContext;

    async fn read(
        &self,
        key: &KeyName,
        floor: Option<&CausalContext>,
    ) -> Result<Reading<CausalContext>, Failure> {
        let mut get = self.bucket.get(Bytes::copy_from_slice(key)).consistency(self.level);
        if let Some(floor) = floor {
            get = get.floor(floor);
        }
        match get.send().await {
            Ok(value) => Ok(Reading { siblings: value.siblings, context: value.context }),
            Err(error) => Err(failure(&error, false)),
        }
    }

    async fn write(
        &self,
        key: &KeyName,
        value: Option<Bytes>,
        cause: Cause<'_, CausalContext>,
    ) -> Result<CausalContext, Failure> {
        let (bucket, key) = (&self.bucket, Bytes::copy_from_slice(key));
        let written = match (value, cause) {
            (Some(value), Cause::Nothing) => {
                bucket.put(key, value).consistency(self.level).send().await
            }
            (Some(value), Cause::Context(context)) => {
                bucket.put(key, value).context(context).consistency(self.level).send().await
            }
            (Some(value), Cause::WhatIsThere) => {
                bucket.overwrite(key, value).consistency(self.level).send().await
            }
            (None, Cause::Context(context)) => {
                bucket.delete(key).context(context).consistency(self.level).send().await
            }
            (None, Cause::Nothing | Cause::WhatIsThere) => {
                bucket.delete(key).consistency(self.level).send().await
            }
        };
        written.map_err(|error| failure(&error, true))
    }

    fn retries(&self) -> u64 {
        self.client.stats().retried
    }

    fn repetitions(&self) -> u64 {
        self.client.stats().repeated
    }
}

fn failure(error: &Error, write: bool) -> Failure {
    let kind = match error {
        Error::Refused { error, .. } => match error {
            WireError::Unavailable { .. }
            | WireError::ReadFailed { .. }
            | WireError::NotReady { .. }
            | WireError::NoLeader { .. }
            | WireError::ShuttingDown => FailureKind::Unavailable,
            // A write that failed at replicas ended as one that timed out: its outcome is unknown.
            WireError::Timeout { .. } | WireError::WriteFailed { .. } | WireError::LeaderLost => {
                FailureKind::Timeout
            }
            WireError::Overloaded { .. } => FailureKind::Overloaded,
            _ => FailureKind::Other,
        },
        Error::Timeout { .. } => FailureKind::Timeout,
        Error::Unreachable { .. } => FailureKind::Unavailable,
        _ => FailureKind::Other,
    };
    let message = format!("[{}] {error}", error.code());
    Failure { kind, unknown: write && error.is_unknown(), message }
}

#[cfg(test)]
mod tests {
    use starling_protocol::WireError;

    use super::failure;
    use crate::error::Error;
    use crate::load::target::FailureKind;

    #[test]
    fn errors_keep_what_they_say_about_the_outcome() {
        let check = |error: Error, kind: FailureKind, unknown: bool| {
            let failure = failure(&error, true);
            assert_eq!((failure.kind, failure.unknown), (kind, unknown), "{error}");
        };
        let refused = |error: WireError, unknown: bool| Error::Refused { error, unknown };
        let unavailable = WireError::Unavailable {
            level: "QUORUM".to_owned(),
            required: 2,
            alive: 1,
            down: Vec::new(),
        };
        check(refused(unavailable.clone(), false), FailureKind::Unavailable, false);
        check(refused(unavailable, true), FailureKind::Unavailable, true);
        let timeout = WireError::Timeout { received: 1, required: 2, write: true };
        check(refused(timeout, true), FailureKind::Timeout, true);
        let failed = WireError::WriteFailed { received: 1, required: 2, failed: 1 };
        check(refused(failed, true), FailureKind::Timeout, true);
        let overloaded = WireError::Overloaded { reason: "bytes".to_owned() };
        check(refused(overloaded, false), FailureKind::Overloaded, false);
        let lost = Error::Timeout { last: "closed".to_owned(), unknown: true };
        check(lost.clone(), FailureKind::Timeout, true);
        assert!(!failure(&lost, false).unknown, "a read leaves nothing behind");
    }
}
