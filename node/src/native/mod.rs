//! The client port: sessions, requests and answers of the native protocol.

mod data;
mod errors;
mod reply;
mod service;
mod serving;
mod session;
mod snapshots;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::net::Listener;

pub use reply::Reply;
pub use service::Service;
pub use serving::Serving;
pub use views::status;

/// Accepts clients until `stop`, at most `connections_max` at once; one more is closed at once.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    service: Arc<Service>,
    connections_max: usize,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(connections_max));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a client");
                // Out of descriptors, most likely: let some close before asking again.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            warn!(%from, connections_max, "too many clients; connection closed");
            crate::metrics::observe_shed("connections");
            continue;
        };
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(async move {
            let reason = session::run(stream, service, stop).await;
            log_end(from, &reason);
            drop(permit);
        });
    }
}

fn log_end(from: SocketAddr, reason: &session::End) {
    match reason {
        session::End::Client | session::End::Stopped => debug!(%from, "client left"),
        session::End::Unread => {
            crate::metrics::observe_shed("unread_answers");
            warn!(%from, "client connection closed: it does not take its answers");
        }
        session::End::NoRoom => {
            crate::metrics::observe_shed("in_flight_bytes");
            warn!(%from, "client connection closed: no room for its frame within limits.in_flight_max");
        }
        session::End::Misbehaved(why) => warn!(%from, %why, "client connection closed"),
        session::End::Io(error) => debug!(%from, %error, "client connection lost"),
    }
}
