//! Where work that may wait for the disk runs: a bounded pool, or in place under simulation, where
//! threads would make the order of events depend on the machine.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// See the module.
#[derive(Debug, Clone)]
pub enum Blocking {
    /// Tokio's blocking threads, at most as many at once as there are permits, each caller waiting
    /// its turn.
    Pool(Arc<Semaphore>),
    /// On the calling task.
    Inline,
}

impl Blocking {
    /// A pool of `threads`.
    #[must_use]
    pub fn pool(threads: usize) -> Self {
        Self::Pool(Arc::new(Semaphore::new(threads)))
    }

    /// Runs `work` to its end.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Pool(permits) => {
                let permit = permits.acquire().await.expect("the pool's permits are never closed");
                let done = tokio::task::spawn_blocking(work).await;
                drop(permit);
                match done.map_err(JoinError::try_into_panic) {
                    Ok(done) => done,
                    Err(Ok(panic)) => std::panic::resume_unwind(panic),
                    // The runtime ends, and this task with it.
                    Err(Err(_cancelled)) => std::future::pending().await,
                }
            }
        }
    }
}
