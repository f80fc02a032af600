//! How a client is configured.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use starling_ring::ConsistencyLevel;

use crate::client::{Client, Shared};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::seams::{Seams, System};

/// Collects what a client needs; see [`Client::builder`].
#[derive(Clone)]
pub struct ClientBuilder {
    contact_points: Vec<String>,
    consistency: ConsistencyLevel,
    connect_timeout: Duration,
    attempt_timeout: Duration,
    read_timeout: Duration,
    write_timeout: Duration,
    seams: Arc<dyn Seams>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientBuilder");
        shown.field("contact_points", &self.contact_points).finish_non_exhaustive()
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            contact_points: Vec::new(),
            consistency: ConsistencyLevel::Quorum,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            seams: Arc::new(System),
        }
    }
}

impl ClientBuilder {
    /// Adds a node to ask for the ring, as `host:port` of its native address. One suffices; more
    /// help while that one is down.
    #[must_use]
    pub fn contact_point(mut self, address: impl Into<String>) -> Self {
        self.contact_points.push(address.into());
        self
    }

    /// The level of requests that name none. Default: QUORUM.
    #[must_use]
    pub fn consistency(mut self, level: ConsistencyLevel) -> Self {
        self.consistency = level;
        self
    }

    /// How long one connection attempt may take. Default: 1 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one node may take for one attempt. Default: 2 s.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How long a read may take, all attempts together. Default: 5 s.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// How long a write may take, all attempts together. Default: 5 s.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// The outside world, for simulations. Default: the operating system.
    #[must_use]
    pub fn seams(mut self, seams: Arc<dyn Seams>) -> Self {
        self.seams = seams;
        self
    }

    /// Asks a contact point for the ring.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with every contact point and why; [`Error::Refused`] where one answered that it
    /// does not serve yet, or no longer; or [`Error::NoContactPoint`].
    pub async fn build(self) -> Result<Client, Error> {
        let cluster =
            Cluster::discover(&self.contact_points, self.connect_timeout, self.seams.clone())
                .await?;
        Ok(Client::start(Shared {
            cluster,
            consistency: self.consistency,
            read_timeout: self.read_timeout,
            write_timeout: self.write_timeout,
            attempt_timeout: self.attempt_timeout,
            retried: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            seams: self.seams,
        }))
    }
}
