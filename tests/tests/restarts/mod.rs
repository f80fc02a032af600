//! A node that is written to, ended, changed and started again, over and over.
//!
//! Invariant: every write that it acknowledged is remembered here with its dot, and took at most
//! [`REFUSED_MAX`] from its sending, or from when the node served if that was later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use starling_client::{Bucket, CausalContext, Client, ConsistencyLevel, Error};
use starling_node::net::Network;
use starling_node::time::now;
use starling_storage::values::{Actor, Dot};
use starling_tests::dots::{self, Dots};
use starling_tests::{Disk, InProcess};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// An hour in microseconds.
pub const HOUR_US: i64 = 3_600_000_000;
/// How long a node that serves may refuse a write.
const REFUSED_MAX: Duration = Duration::from_secs(1);
const BUCKET: &str = "demo.things";
/// The node that all of it happens to.
const NODE: u8 = 1;
const WRITERS: usize = 8;
/// So many writes are acknowledged before the node may be ended.
const WRITES: usize = 40;
/// Outcomes that wait to be looked at: more than there are while a node ends.
const OUTCOMES_MAX: usize = 4_096;

/// How a node ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// In good order.
    Stop,
    /// As by kill -9.
    Crash,
    /// With everything that was not synced.
    PowerCut,
}

/// What a node finds no more.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// The whole data directory.
    Everything,
    /// The store; the records beside it are there.
    Store,
    /// What the store has taken since the copy.
    StoreSinceCopy,
    /// What the store and the records have taken since the copy.
    SinceCopy,
}

struct Acknowledged {
    key: String,
    context: CausalContext,
    /// When it was sent, or the node served if that was later.
    began: Instant,
    took: Duration,
}

/// See the module.
pub struct Restarts {
    cluster: InProcess,
    /// Kept from one write to the end of the node, which cuts some off.
    writers: Option<Writers>,
    serving_since: Instant,
    next_key: Arc<AtomicU64>,
    dots: Dots,
    acknowledged: BTreeMap<String, Dot>,
    copies: Vec<TempDir>,
    longest: Duration,
}

struct Writers {
    tasks: JoinSet<()>,
    outcomes: mpsc::Receiver<Result<Acknowledged, Error>>,
}

impl Restarts {
    /// Starts so many nodes, one of which is to be restarted.
    pub async fn begin(nodes: u8, network: Arc<dyn Network>, disk: Disk) -> Restarts {
        Restarts {
            cluster: InProcess::start(nodes, network, disk).await,
            writers: None,
            serving_since: now(),
            next_key: Arc::default(),
            dots: Dots::default(),
            acknowledged: BTreeMap::new(),
            copies: Vec::new(),
            longest: Duration::ZERO,
        }
    }

    /// Writes to the node alone until a number of writes are acknowledged, and leaves the writers running.
    /// Returns in whose name the last of them was minted.
    ///
    /// # Panics
    /// If a write is refused or takes too long.
    pub async fn write(&mut self) -> Actor {
        if self.writers.is_none() {
            self.writers = Some(self.new_writers().await);
        }
        let asked = now();
        let mut count = 0;
        loop {
            let writers = self.writers.as_mut().expect("they were made above");
            let outcome = writers.outcomes.recv().await.expect("writers write for ever");
            let taken = outcome.unwrap_or_else(|error| panic!("the node refuses: {error}"));
            // The writers may be ahead of this.
            count += usize::from(taken.began >= asked);
            let dot = self.note(taken);
            if count == WRITES {
                return dot.actor;
            }
        }
    }

    /// Ends the node while writers write.
    pub async fn end(&mut self, end: End) {
        let node = self.cluster.node(NODE);
        match end {
            End::Stop => node.stop().await,
            End::Crash => node.crash().await,
            End::PowerCut => node.power_cut().await,
        }
        let Some(Writers { mut tasks, mut outcomes }) = self.writers.take() else { return };
        // What was acknowledged before the end counts; that the rest failed is no wonder.
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        while let Some(outcome) = outcomes.recv().await {
            if let Ok(taken) = outcome {
                self.note(taken);
            }
        }
    }

    /// Steps the node's clock.
    pub fn step(&mut self, delta_us: i64) {
        self.cluster.node(NODE).clock().step(delta_us);
    }

    /// Starts the node and returns when it serves.
    pub async fn start(&mut self) {
        self.cluster.node(NODE).start().await;
        self.cluster.node(NODE).ready().await;
        self.serving_since = now();
    }

    /// Copies what the ended node has on disk.
    pub fn copy(&mut self) {
        let copy = tempfile::tempdir().expect("the temporary folder can be written");
        self.cluster.node(NODE).copy_to(copy.path());
        self.copies.push(copy);
    }

    /// Takes something from the ended node.
    pub fn lose(&mut self, loss: Loss) {
        let node = self.cluster.node(NODE);
        let copy = self.copies.last().map(TempDir::path);
        let copy = || copy.expect("a copy was made");
        match loss {
            Loss::Everything => node.wipe(),
            Loss::Store => node.wipe_store(),
            Loss::StoreSinceCopy => node.restore_store(copy()),
            Loss::SinceCopy => node.restore(copy()),
        }
    }

    /// The actors seen so far.
    pub fn actors(&self) -> Vec<Actor> {
        self.dots.actors()
    }

    /// Ends it all, and looks into every store for dots that nobody was told of.
    ///
    /// # Panics
    /// If a dot was minted twice, or an acknowledged write is gone.
    pub async fn finish(mut self) {
        self.cluster.node(NODE).clock().set_right();
        self.end_of_writers().await;
        self.cluster.wait_until_up(usize::from(self.cluster.nodes())).await;
        let client = self.cluster.client().await;
        let bucket = client.bucket(BUCKET).await.expect("the cluster answers");
        for (key, dot) in &self.acknowledged {
            let read = bucket.get(key.clone()).consistency(ConsistencyLevel::All).await;
            let read = read.unwrap_or_else(|error| panic!("{key}: {error}"));
            assert!(dots::covers(BUCKET, key, &read.context, *dot), "{key}: {dot} is lost");
            assert_eq!(read.siblings, [key.as_str()], "{key}");
        }
        self.finish_with_loss().await;
    }

    /// [`Restarts::finish`] for a node that had to lose something.
    pub async fn finish_with_loss(mut self) {
        self.end_of_writers().await;
        self.cluster.stop().await;
        let nodes = self.cluster.nodes();
        for number in 1..=nodes {
            self.dots.stored(self.cluster.node(number).store().as_ref(), BUCKET);
        }
        let (dots, longest) = (self.dots.count(), self.longest);
        let (writes, names) = (self.acknowledged.len(), self.dots.actors().len());
        eprintln!("{writes} writes, {dots} dots of {names} actors, the longest {longest:?}");
        assert!(writes > 0, "nothing was shown");
    }

    async fn end_of_writers(&mut self) {
        if let Some(Writers { mut tasks, .. }) = self.writers.take() {
            tasks.shutdown().await;
        }
    }

    fn note(&mut self, taken: Acknowledged) -> Dot {
        let Acknowledged { key, context, took, .. } = taken;
        self.longest = self.longest.max(took);
        assert!(took <= REFUSED_MAX, "{key} took {took:?}");
        let dot = self.dots.acknowledged(BUCKET, &key, &context);
        self.acknowledged.insert(key, dot);
        dot
    }

    async fn new_writers(&mut self) -> Writers {
        let client = self.client_of_node().await;
        let bucket = client.bucket(BUCKET).await.expect("a node that serves answers");
        let (sender, outcomes) = mpsc::channel(OUTCOMES_MAX);
        let mut tasks = JoinSet::new();
        for _ in 0..WRITERS {
            let (sender, bucket) = (sender.clone(), bucket.clone());
            let (next_key, serving_since) = (self.next_key.clone(), self.serving_since);
            tasks.spawn(async move {
                let mut began = serving_since;
                loop {
                    let key = format!("k{}", next_key.fetch_add(1, Ordering::Relaxed));
                    let outcome = put(&bucket, key, began).await;
                    if sender.send(outcome).await.is_err() {
                        return;
                    }
                    began = now();
                }
            });
        }
        Writers { tasks, outcomes }
    }

    /// A client that has only this node to turn to.
    async fn client_of_node(&mut self) -> Client {
        let network = self.cluster.client_network().only(self.cluster.host(NODE));
        let address = self.cluster.node(NODE).config().listen.native.to_string();
        let builder = Client::builder().seams(Arc::new(network)).contact_point(address);
        let client = builder.write_timeout(2 * REFUSED_MAX).build().await;
        client.expect("a node that serves answers")
    }
}

async fn put(bucket: &Bucket, key: String, began: Instant) -> Result<Acknowledged, Error> {
    let context = bucket.put(key.clone(), key.clone()).await?;
    Ok(Acknowledged { key, context, began, took: now() - began })
}
