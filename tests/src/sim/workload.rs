//! What simulated clients do: read, put, delete and overwrite a few hot keys, with fresh, stale and no contexts, each
//! on a client library of its own, and write down what came of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use starling_client::{Bucket, CausalContext, Client, ConsistencyLevel, Error};
use starling_ring::Ring;
use tokio::time::sleep;

use super::history::{Covers, Level, Operation, Outcome, Value, What, Write};
use super::machine::{KEYSPACE, address};
use super::network::SimClient;
use super::scenario::{Habit, Scenario};

/// Contexts of a key that a client remembers, so that some are stale.
const REMEMBERED: usize = 6;
/// Enough keys that every node leads some, asked for so often that none falls silent.
const BUSY_KEYS: u32 = 24;
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// How long a read may take that is to be answered after a purge floor has risen, and how often there is one.
const PATIENCE: Duration = Duration::from_secs(7);
const PATIENT_PAUSE_MS_MAX: u64 = 30;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A context, and the values that it has seen.
type Seen = (CausalContext, BTreeSet<Value>);

/// What all clients of a run share.
#[derive(Debug, Default)]
pub struct Record {
    operations: Mutex<Vec<Operation>>,
    values: AtomicU64,
}

impl Record {
    fn next_value(&self) -> Value {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn add(&self, operation: Operation) {
        tracing::info!("{operation}");
        self.operations.lock().push(operation);
    }

    /// Everything done so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations.lock().clone()
    }
}

/// One client at work.
pub struct Worker {
    number: u8,
    client: Client,
    bucket: Bucket,
    random: StdRng,
    habit: Habit,
    record: Arc<Record>,
    remembered: Vec<Vec<Seen>>,
    /// The keys that have their turn, if keys have turns.
    turns: Arc<[usize]>,
}

impl Worker {
    /// Connects to some node, however long that takes.
    pub async fn connect(
        number: u8,
        scenario: &Scenario,
        mut nodes: Vec<SocketAddr>,
        record: Arc<Record>,
    ) -> Worker {
        let mut random = StdRng::seed_from_u64(scenario.seed ^ (u64::from(number) << 32));
        let only = only_known(number, scenario).map(address);
        let seams = Arc::new(SimClient::new(u64::from(number), only));
        loop {
            nodes.shuffle(&mut random);
            let mut builder = Client::builder().seams(seams.clone());
            for node in nodes.iter().filter(|node| only.is_none_or(|only| only == node.ip())) {
                builder = builder.contact_point(node.to_string());
            }
            if only.is_some() {
                builder = builder.attempt_timeout(PATIENCE);
            }
            if let Ok(client) = builder.build().await
                && let Ok(bucket) = client.bucket(&format!("{KEYSPACE}.registers")).await
            {
                let remembered = vec![Vec::new(); usize::from(scenario.keys)];
                let turns = turns(scenario, &client.ring());
                let habit = scenario.habit;
                return Worker { number, client, bucket, random, habit, record, remembered, turns };
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Reads at ONE what nobody writes, over the same connections, as long as the client works.
    pub fn keep_busy(&self, until: Duration) {
        let bucket = self.bucket.clone();
        tokio::spawn(async move {
            for key in (0..BUSY_KEYS).cycle().take_while(|_| elapsed() < until) {
                let get = bucket.get(format!("busy-{key}")).consistency(ConsistencyLevel::One);
                // Whatever it says.
                let _unread = get.timeout(BUSY_TIMEOUT).send().await;
                sleep(BUSY_PAUSE).await;
            }
        });
    }

    /// If this client knows one node only: reads what is in turn besides, one read after the other whether or not the last is over, as long as
    /// the client works. Each waits for long.
    pub fn keep_reading(&self, scenario: &Scenario, turn: Duration) {
        if only_known(self.number, scenario).is_none() {
            return;
        }
        let (number, until) = (self.number, scenario.heal_at);
        let (bucket, record, turns) =
            (self.bucket.clone(), self.record.clone(), self.turns.clone());
        let mut random = StdRng::seed_from_u64(scenario.seed ^ (u64::from(number) << 40));
        tokio::spawn(async move {
            while elapsed() < until {
                let level = if random.random() { Level::All } else { Level::Quorum };
                let key = in_turn(turn, &turns, 0);
                let (bucket, record, begin) = (bucket.clone(), record.clone(), elapsed());
                tokio::spawn(async move {
                    let get = bucket.get(name(key)).consistency(consistency(level));
                    let read = get.timeout(PATIENCE).send().await.ok();
                    let values = read.map(|read| read.siblings.iter().map(value).collect());
                    let what = What::Read { values, floor: BTreeSet::new() };
                    record.add(operation(number, key, level, begin, what));
                });
                let pause = random.random_range(0..=PATIENT_PAUSE_MS_MAX);
                sleep(Duration::from_millis(pause)).await;
            }
        });
    }

    /// Works until `until`.
    pub async fn work(&mut self, until: Duration, think_max: Duration) {
        while elapsed() < until {
            self.operate().await;
            let think = self.random.random_range(0..=think_max.as_millis() as u64);
            sleep(Duration::from_millis(think)).await;
        }
    }

    /// The ring as the client knows it.
    pub fn ring(&self) -> Arc<Ring> {
        self.client.ring()
    }

    async fn operate(&mut self) {
        let any = self.random.random_range(0..self.remembered.len());
        let level = *[Level::One, Level::Quorum, Level::Quorum, Level::Quorum, Level::All]
            .choose(&mut self.random)
            .expect("not empty");
        // Of a hundred: reads, reads with a floor, puts, deletes; the rest are overwrites.
        let shares = match self.habit {
            Habit::Mixed => [30, 10, 40, 10],
            Habit::Append => [15, 5, 76, 2],
            Habit::Merge => [35, 10, 50, 3],
            Habit::Recreate => [20, 5, 35, 35],
            Habit::MoveOn(turn) => return self.move_on(turn, any).await,
        };
        self.use_key(any, level, shares).await;
    }

    /// Puts what is in turn, deletes what was in turn before, and looks at the rest now and then. Never at ALL: whatever is late would stop it.
    async fn move_on(&mut self, turn: Duration, any: usize) {
        let level = if self.random.random_ratio(1, 6) { Level::One } else { Level::Quorum };
        match self.random.random_range(0..10) {
            0..5 => self.use_key(in_turn(turn, &self.turns, 0), level, [40, 5, 55, 0]).await,
            5..9 => self.clear(in_turn(turn, &self.turns, 1), level).await,
            _ => self.use_key(any, level, [95, 5, 0, 0]).await,
        }
    }

    async fn use_key(&mut self, key: usize, level: Level, shares: [u32; 4]) {
        let [reads, floors, puts, deletes] = shares;
        let turn = self.random.random_range(0..100);
        if turn < reads {
            self.read(key, level).await;
        } else if turn < reads + floors {
            self.read_not_below(key, level).await;
        } else if turn < reads + floors + puts {
            self.put(key, level).await;
        } else if turn < reads + floors + puts + deletes {
            let context = self.some_context(key);
            self.delete(key, level, context).await;
        } else {
            self.overwrite(key, level).await;
        }
    }

    /// Deletes what a key shows, if anything: a delete of nothing would be one more to forget.
    async fn clear(&mut self, key: usize, level: Level) {
        if self.read(key, level).await.is_some_and(|values| !values.is_empty()) {
            let context = self.remembered[key].last().cloned();
            self.delete(key, level, context).await;
        }
    }

    /// Reads a key; what was read, or nothing if it failed.
    pub async fn read(&mut self, key: usize, level: Level) -> Option<BTreeSet<Value>> {
        let begin = elapsed();
        let read = self.bucket.get(name(key)).consistency(consistency(level)).send().await;
        let values = read.as_ref().ok().map(|read| read.siblings.iter().map(value).collect());
        if let (Ok(read), Some(values)) = (read, &values) {
            self.remember(key, read.context, BTreeSet::clone(values));
        }
        self.done(key, level, begin, What::Read { values: values.clone(), floor: BTreeSet::new() });
        values
    }

    /// Reads a key not below what this client last saw of it.
    async fn read_not_below(&mut self, key: usize, level: Level) {
        let Some((floor, seen)) = self.remembered[key].last().cloned() else { return };
        let begin = elapsed();
        let get = self.bucket.get(name(key)).floor(&floor).consistency(consistency(level));
        let values = get.send().await.ok();
        let values = values.map(|read| read.siblings.iter().map(value).collect());
        self.done(key, level, begin, What::Read { values, floor: seen });
    }

    async fn put(&mut self, key: usize, level: Level) {
        let value = self.record.next_value();
        let context = self.some_context(key);
        let (begin, retried) = (elapsed(), self.client.stats().retried);
        let mut put = self.bucket.put(name(key), Bytes::copy_from_slice(&value.to_le_bytes()));
        if let Some((context, _)) = &context {
            put = put.context(context);
        }
        let put = put.consistency(consistency(level)).send().await;
        let mut covers = context.map(|(_, covers)| covers).unwrap_or_default();
        let write = self.write(Some(value), Covers::These(covers.clone()), retried, put.as_ref());
        if let Ok(context) = put {
            covers.insert(value);
            self.remember(key, context, covers);
        }
        self.done(key, level, begin, What::Write(write));
    }

    async fn delete(&mut self, key: usize, level: Level, context: Option<Seen>) {
        let (begin, retried) = (elapsed(), self.client.stats().retried);
        let mut delete = self.bucket.delete(name(key));
        if let Some((context, _)) = &context {
            delete = delete.context(context);
        }
        let deleted = delete.consistency(consistency(level)).send().await;
        let covers = context.map_or(Covers::Whatever, |(_, covers)| Covers::These(covers));
        let write = self.write(None, covers, retried, deleted.as_ref());
        self.done(key, level, begin, What::Write(write));
    }

    async fn overwrite(&mut self, key: usize, level: Level) {
        let value = self.record.next_value();
        let (begin, retried) = (elapsed(), self.client.stats().retried);
        let put = self.bucket.overwrite(name(key), Bytes::copy_from_slice(&value.to_le_bytes()));
        let put = put.consistency(consistency(level)).send().await;
        let write = self.write(Some(value), Covers::Whatever, retried, put.as_ref());
        self.done(key, level, begin, What::Write(write));
    }

    /// The newest context of a key, a stale one, or none.
    fn some_context(&mut self, key: usize) -> Option<Seen> {
        let [newest, stale] = match self.habit {
            Habit::Mixed | Habit::Recreate => [60, 20],
            Habit::Append => [5, 2],
            Habit::Merge => [60, 35],
            Habit::MoveOn(_) => [50, 5],
        };
        let turn = self.random.random_range(0..100);
        if turn < newest {
            self.remembered[key].last().cloned()
        } else if turn < newest + stale {
            self.remembered[key].choose(&mut self.random).cloned()
        } else {
            None
        }
    }

    fn remember(&mut self, key: usize, context: CausalContext, covers: BTreeSet<Value>) {
        let remembered = &mut self.remembered[key];
        remembered.push((context, covers));
        if remembered.len() > REMEMBERED {
            remembered.remove(0);
        }
    }

    fn write(
        &self,
        value: Option<Value>,
        covers: Covers,
        retried_before: u64,
        result: Result<&CausalContext, &Error>,
    ) -> Write {
        let outcome = match result {
            Ok(_) => Outcome::Acked,
            Err(error) if error.is_unknown() => Outcome::Unknown,
            Err(error) => Outcome::NotDone(error.to_string()),
        };
        Write { value, covers, outcome, repeated: self.client.stats().retried > retried_before }
    }

    fn done(&self, key: usize, level: Level, begin: Duration, what: What) {
        self.record.add(operation(self.number, key, level, begin, what));
    }
}

/// The one node that a client knows, if it does not know all.
fn only_known(client: u8, scenario: &Scenario) -> Option<u8> {
    scenario.only_known.filter(|_| client == 1)
}

/// The keys of which the one known node holds no replica: what it then knows of them is always on its way.
fn turns(scenario: &Scenario, ring: &Ring) -> Arc<[usize]> {
    let placement = ring.keyspace(KEYSPACE).expect("every run has the keyspace");
    let is_held = |key: &usize, node: u8| {
        let replicas = placement.replicas(placement.token(name(*key).as_bytes()));
        replicas.iter().any(|replica| ring.member(*replica).address.ip() == address(node))
    };
    let keys = 0..usize::from(scenario.keys);
    keys.filter(|key| scenario.only_known.is_none_or(|node| !is_held(key, node))).collect()
}

/// The key whose turn it is now, or was so many turns ago.
fn in_turn(turn: Duration, keys: &[usize], ago: usize) -> usize {
    let turns = usize::try_from(elapsed().as_millis() / turn.as_millis()).expect("a run is short");
    keys[(turns + keys.len() - ago) % keys.len()]
}

/// An operation that is over now.
fn operation(client: u8, key: usize, level: Level, begin: Duration, what: What) -> Operation {
    let key = u8::try_from(key).expect("a run has few keys");
    Operation { client, key, begin, end: elapsed(), level, what }
}

/// Simulated time since the run began.
pub fn elapsed() -> Duration {
    turmoil::sim_elapsed().expect("only simulated clients work")
}

/// The name of key number `key`.
pub fn name(key: usize) -> String {
    format!("key-{key}")
}

fn consistency(level: Level) -> ConsistencyLevel {
    match level {
        Level::One => ConsistencyLevel::One,
        Level::Quorum => ConsistencyLevel::Quorum,
        Level::All => ConsistencyLevel::All,
    }
}

/// What a stored value says, 0 (which nobody puts) if it says nothing.
fn value(stored: &Bytes) -> Value {
    stored.as_ref().try_into().map_or(0, u64::from_le_bytes)
}
