//! A cluster of real processes under load, in the same machine's cores.

use std::time::Duration;

use anyhow::Context;
use starling_client::load::{BucketTarget, Limit, LoadConfig, Progress, Report, Workload, run};
use starling_client::{Client, ConsistencyLevel};
use starling_node::config::{Config, Overrides};
use starling_node::time::now;
use starling_storage::RocksOptions;
use tokio_util::sync::CancellationToken;

use super::Scale;
use super::steal::CpuTime;
use crate::cluster::{Cluster, READY_WITHIN};

/// Until what starting left behind is done.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// How long a clean stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// What a cluster did.
#[derive(Clone, Debug)]
pub struct ClusterFigures {
    /// Writes as fast as answers come.
    pub writes: Report,
    /// Writes at half of that rate.
    pub writes_at_half: Report,
    /// Reads as fast as answers come.
    pub reads: Report,
    /// Reads at half of that rate.
    pub reads_at_half: Report,
    /// Bytes resident in the largest node before any request.
    pub idle_bytes: u64,
    /// Bytes resident in the largest node after all of it.
    pub loaded_bytes: u64,
    /// From exec to serving on that data, after a clean stop.
    pub serving_after_stop: Duration,
    /// From exec to serving on that data, after a kill.
    pub serving_after_kill: Duration,
    /// The share of the processors that the machine's host kept for others meanwhile, 0 to 1.
    pub stolen: Option<f64>,
}

/// Starts `nodes` nodes that each hold all data, and measures them at QUORUM. `observe` sees each second.
///
/// # Errors
/// A load that cannot be run.
pub async fn measure_cluster(
    nodes: u8,
    scale: &Scale,
    mut observe: impl FnMut(&str, &Progress),
) -> anyhow::Result<ClusterFigures> {
    let mut cluster = Cluster::builder().nodes(nodes).keyspace("bench", nodes).start().await;
    tokio::time::sleep(IDLE_AFTER).await;
    let idle_bytes = resident_bytes(&mut cluster);
    let before = CpuTime::now();
    let client = cluster.client().await;
    let bench = Bench { client, scale };
    let writes = bench.load("bench.writes", Workload::Write, None, true, &mut observe).await?;
    let half = Some(writes.throughput_per_s / 2.0);
    let writes_at_half =
        bench.load("bench.paced", Workload::Write, half, true, &mut observe).await?;
    let reads = bench.load("bench.reads", Workload::Read, None, true, &mut observe).await?;
    let half = Some(reads.throughput_per_s / 2.0);
    let reads_at_half =
        bench.load("bench.reads", Workload::Read, half, false, &mut observe).await?;
    let stolen = before.zip(CpuTime::now()).map(|(before, after)| after.stolen_since(before));
    let loaded_bytes = resident_bytes(&mut cluster);
    let node = cluster.node(1);
    node.terminate(STOP_WITHIN).await;
    let serving_after_stop = serving_after(&mut cluster).await;
    cluster.node(1).kill();
    let serving_after_kill = serving_after(&mut cluster).await;
    Ok(ClusterFigures {
        writes,
        writes_at_half,
        reads,
        reads_at_half,
        idle_bytes,
        loaded_bytes,
        serving_after_stop,
        serving_after_kill,
        stolen,
    })
}

/// The store's options of a node with the default configuration, but for its pace: the yardstick has no requests to leave room for.
///
/// # Errors
/// A configuration that the node does not accept.
pub fn default_options() -> anyhow::Result<RocksOptions> {
    let mut cluster = Cluster::builder().nodes(1).prepare();
    let config = Config::load(&cluster.node(1).config_path(), &Overrides::default())
        .context("the configuration of the harness")?;
    Ok(RocksOptions {
        block_cache_bytes: config.block_cache_bytes as usize,
        memtable_bytes: config.memtable_bytes as usize,
        compaction_bytes_max: u64::MAX,
        ..RocksOptions::default()
    })
}

struct Bench<'a> {
    client: Client,
    scale: &'a Scale,
}

impl Bench<'_> {
    async fn load(
        &self,
        bucket: &str,
        workload: Workload,
        rate: Option<f64>,
        fresh: bool,
        observe: &mut impl FnMut(&str, &Progress),
    ) -> anyhow::Result<Report> {
        let config = LoadConfig {
            workload,
            records: self.scale.records,
            load_phase: fresh,
            fresh,
            value_bytes: self.scale.value_bytes,
            concurrency: self.scale.concurrency,
            rate,
            warmup: self.scale.warmup,
            limit: Limit::Duration(self.scale.measure),
            consistency: ConsistencyLevel::Quorum,
            ..LoadConfig::new()
        };
        let target = BucketTarget::open(&self.client, bucket, config.consistency).await?;
        let what = if rate.is_some() { "at half rate" } else { "at full rate" };
        let label = format!("{bucket} {what}");
        let stop = CancellationToken::new();
        let outcome = run(&target, &config, stop, |progress| observe(&label, progress)).await?;
        Ok(outcome.report)
    }
}

fn resident_bytes(cluster: &mut Cluster) -> u64 {
    cluster.nodes().iter().map(|node| node.resident_bytes()).max().unwrap_or(0)
}

async fn serving_after(cluster: &mut Cluster) -> Duration {
    let node = cluster.node(1);
    let begin = now();
    node.start();
    node.ready(READY_WITHIN).await;
    begin.elapsed()
}
