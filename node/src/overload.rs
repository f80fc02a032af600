//! What may be in flight at once, counted in bytes: the limit that turns a flood into early
//! `Overloaded` answers instead of growing memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Charged per request on top of its bytes: its task, its counters, its frames.
const REQUEST_OVERHEAD_BYTES: usize = 2 * 1024;

/// A shared account of bytes in flight.
#[derive(Debug, Clone)]
pub struct InFlight {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    bytes: AtomicUsize,
    requests: AtomicUsize,
    bytes_max: usize,
}

/// One request's share, given back when dropped.
#[derive(Debug)]
pub struct Share {
    account: Arc<Account>,
    bytes: usize,
}

impl InFlight {
    /// An account of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let account =
            Account { bytes: AtomicUsize::new(0), requests: AtomicUsize::new(0), bytes_max };
        Self { account: Arc::new(account) }
    }

    /// Takes a share for a request of `payload` bytes, or nothing when the account is full.
    #[must_use]
    pub fn admit(&self, payload: usize) -> Option<Share> {
        let bytes = payload + REQUEST_OVERHEAD_BYTES;
        let before = self.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.account.bytes_max {
            self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        self.account.requests.fetch_add(1, Ordering::Relaxed);
        Some(Share { account: self.account.clone(), bytes })
    }

    /// Requests in flight.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.account.requests.load(Ordering::Relaxed)
    }
}

/// Memory that a request turns out to need while it is carried out.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    bytes: AtomicUsize,
    refused: AtomicBool,
}

impl InFlight {
    /// For one request; nothing is held yet.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held {
            account: self.account.clone(),
            bytes: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        }
    }
}

impl Held {
    /// Charges `bytes` more, unless the account is full. What is small goes with the request's own charge.
    pub fn take(&self, bytes: usize) -> bool {
        if bytes <= REQUEST_OVERHEAD_BYTES {
            return true;
        }
        let before = self.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.account.bytes_max {
            self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.refused.store(true, Ordering::Relaxed);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Whether there was no room for something.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
