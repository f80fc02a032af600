//! The demo's load: mixed reads and writes at QUORUM, every acknowledged write remembered.

use starling_client::load::{
    BucketTarget, Limit, LoadConfig, LoadError, Outcome, Progress, Verification, VerifyOptions,
    Workload, run, verify,
};
use starling_client::{Client, ConsistencyLevel};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Keys that are written over and over.
const RECORDS: u64 = 20_000;
/// Seconds that may wait to be shown; later ones are dropped.
const SECONDS_MAX: usize = 16;

/// A load that runs until it is stopped.
pub struct Load {
    seconds: mpsc::Receiver<Progress>,
    running: JoinHandle<Result<Outcome, LoadError>>,
    stop: CancellationToken,
}

impl Load {
    /// Starts the load on `bucket`, which must be new.
    pub async fn start(client: &Client, bucket: &str, concurrency: u32) -> Result<Self, Failure> {
        let config = LoadConfig {
            workload: Workload::Mixed { read_ratio: 0.5 },
            records: RECORDS,
            load_phase: false,
            fresh: true,
            concurrency: concurrency as usize,
            limit: Limit::UntilStopped,
            consistency: ConsistencyLevel::Quorum,
            verify: true,
            ..LoadConfig::new()
        };
        let target = BucketTarget::open(client, bucket, config.consistency).await?;
        let (shown, seconds) = mpsc::channel(SECONDS_MAX);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            let observe = |progress: &Progress| {
                // A second that nobody could show is no loss.
                let _not_shown = shown.try_send(progress.clone());
            };
            run(&target, &config, stopped, observe).await
        });
        Ok(Self { seconds, running, stop })
    }

    /// The next second of the load.
    pub async fn next(&mut self) -> Result<Progress, Failure> {
        match self.seconds.recv().await {
            Some(progress) => Ok(progress),
            None => Err(Failure::Demo { problem: "the load has ended by itself".to_owned() }),
        }
    }

    /// Ends the load once what is in flight is answered.
    pub async fn stop(self) -> Result<Outcome, Failure> {
        self.stop.cancel();
        let ended = self.running.await.map_err(std::io::Error::from)?;
        ended.map_err(|error| Failure::Demo { problem: error.to_string() })
    }
}

/// Reads everything that was written at `level`, and adds what was judged while the load ran.
pub async fn read_back(
    client: &Client,
    bucket: &str,
    level: ConsistencyLevel,
    outcome: Outcome,
) -> Result<Verification, Failure> {
    let target = BucketTarget::open(client, bucket, level).await?;
    let found = verify(&target, outcome.history, VerifyOptions::default(), |_| {}).await;
    let mut all = found;
    let judged = outcome.judged;
    all.lost += judged.lost;
    all.stale += judged.stale;
    all.resurrected += judged.resurrected;
    all.damaged += judged.damaged;
    all.violations.extend(judged.violations);
    Ok(all)
}
