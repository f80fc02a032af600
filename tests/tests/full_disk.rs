//! A disk fills up: writes are refused before anything fails, reads go on, and all is well again when there is space.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use starling_client::{Bucket, ConsistencyLevel, Error, WireError};
use starling_node::disk::Space;
use starling_node::net::TcpNetwork;
use starling_node::time::now;
use starling_tests::{Disk, InProcess};

const BUCKET: &str = "demo.things";
const WITHIN: Duration = Duration::from_secs(30);
const TOTAL: u64 = 1 << 40;
const FULL: Space = Space { free: 0, total: TOTAL };
const ROOMY: Space = Space { free: TOTAL, total: TOTAL };

/// Puts under keys of its own, and remembers what was acknowledged.
struct Writer {
    bucket: Bucket,
    tried: u32,
    acknowledged: BTreeSet<String>,
    /// What may have been done.
    doubtful: BTreeSet<String>,
}

impl Writer {
    async fn put(&mut self) -> Result<(), Error> {
        self.tried += 1;
        let key = format!("key {}", self.tried);
        let put = self.bucket.put(key.clone(), key.clone()).await;
        match &put {
            Ok(_) => drop(self.acknowledged.insert(key)),
            Err(error) if error.is_unknown() => drop(self.doubtful.insert(key)),
            Err(_) => {}
        }
        put.map(drop)
    }

    async fn assert_all_there(&self, level: ConsistencyLevel) {
        for number in 1..=self.tried {
            let key = format!("key {number}");
            if self.doubtful.contains(&key) {
                continue;
            }
            let read = self.bucket.get(key.clone()).consistency(level).await;
            let found = read.expect("all nodes are up").siblings;
            let expected: &[String] =
                if self.acknowledged.contains(&key) { std::slice::from_ref(&key) } else { &[] };
            assert_eq!(found, expected, "{key}");
        }
    }
}

async fn started() -> (InProcess, Writer) {
    let cluster = InProcess::start(3, Arc::new(TcpNetwork), Disk::Folder).await;
    cluster.wait_until_up(3).await;
    let bucket = cluster.client().await.bucket(BUCKET).await.expect("it is made on first use");
    let mut writer =
        Writer { bucket, tried: 0, acknowledged: BTreeSet::new(), doubtful: BTreeSet::new() };
    for _ in 0..50 {
        writer.put().await.expect("all nodes have room");
    }
    (cluster, writer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_goes_on_while_one_disk_is_full() {
    let (mut cluster, mut writer) = started().await;
    cluster.node(1).set_space(FULL);
    let until = now() + WITHIN;
    let mut refused_one = false;
    while !refused_one {
        assert!(now() < until, "nothing is kept for the node without room");
        writer.put().await.expect("two nodes have room");
        refused_one =
            [2, 3].iter().any(|number| cluster.node(*number).overview().hints_pending > 0);
    }
    for _ in 0..50 {
        writer.put().await.expect("two nodes have room");
    }
    writer.assert_all_there(ConsistencyLevel::Quorum).await;
    let at_all = writer.bucket.put("at all", "").consistency(ConsistencyLevel::All).await;
    assert!(at_all.is_err(), "one of the nodes has no room");

    cluster.node(1).set_space(ROOMY);
    cluster.wait_until_settled().await;
    writer.assert_all_there(ConsistencyLevel::All).await;
    assert!(cluster.node(1).fatal().is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_refused_and_reads_go_on_while_all_disks_are_full() {
    let (mut cluster, mut writer) = started().await;
    (1..=3).for_each(|number| cluster.node(number).set_space(FULL));
    let until = now() + WITHIN;
    loop {
        assert!(now() < until, "writes are still taken");
        match writer.put().await {
            Ok(()) => {}
            Err(Error::Refused { error: WireError::DiskFull, unknown: false }) => break,
            // The nodes notice one after the other: a leader that has room may find no other that has.
            Err(error) => assert!(error.is_unknown(), "{error}"),
        }
    }
    for _ in 0..20 {
        let refused = writer.put().await.expect_err("no node has room");
        assert_eq!((refused.code(), refused.is_unknown()), ("S111", false), "{refused}");
    }
    writer.assert_all_there(ConsistencyLevel::Quorum).await;

    (1..=3).for_each(|number| cluster.node(number).set_space(ROOMY));
    let until = now() + WITHIN;
    while writer.put().await.is_err() {
        assert!(now() < until, "writes are still refused");
    }
    for _ in 0..20 {
        writer.put().await.expect("all nodes have room");
    }
    cluster.wait_until_settled().await;
    writer.assert_all_there(ConsistencyLevel::All).await;
    cluster.stop().await;
}
