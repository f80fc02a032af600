//! A load in the background that remembers what was acknowledged, and judges each read as it comes.

use starling_client::Client;
use starling_client::load::{BucketTarget, Limit, LoadConfig, LoadError, Outcome, Workload, run};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// See the module. It goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    running: JoinHandle<Result<Outcome, LoadError>>,
}

impl Load {
    /// Reads, puts and deletes in a new bucket, so many a second whatever the cluster does. Latency
    /// counts from when a request was due, so that a pause of everything shows in full.
    ///
    /// # Panics
    /// If no node answers.
    pub async fn start(client: &Client, bucket: &str, operations_per_s: f64) -> Load {
        let config = LoadConfig {
            workload: Workload::Mixed { read_ratio: 0.4 },
            records: 2_000,
            load_phase: false,
            fresh: true,
            concurrency: 32,
            rate: Some(operations_per_s),
            limit: Limit::UntilStopped,
            delete_ratio: 0.1,
            verify: true,
            ..LoadConfig::new()
        };
        let target = BucketTarget::open(client, bucket, config.consistency).await;
        let target = target.expect("the bucket is made on first use");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move { run(&target, &config, stopped, |_| {}).await });
        Load { stop, running }
    }

    /// Ends it, and returns what it has seen.
    ///
    /// # Panics
    /// If it could not be run.
    pub async fn stop(self) -> Outcome {
        self.stop.cancel();
        self.running.await.expect("the load does not panic").expect("the load can be run")
    }
}
