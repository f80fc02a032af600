//! The admin port: health, metrics, status and digests over HTTP on loopback, read-only.
//!
//! It knows the node only through its [`Source`], and takes an already bound listener.
//! Nothing here changes anything, so it asks for no password; what it shows never includes keys of
//! the data or secrets.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use starling_storage::values::alarms;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics;
use crate::net::AdminListener;
use crate::overview::{DigestError, NodeState, Overview, Source};

/// Samples of histograms are folded into their buckets this often, or memory grows with them.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Health<'a> {
    status: NodeState,
    waiting_for: &'a [String],
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

/// Everything the handlers share.
#[derive(Clone)]
struct Shared {
    source: Arc<Source>,
    recorder: PrometheusHandle,
}

/// Serves until `stop`. A listener that fails for good is logged: the node serves without it.
pub async fn serve(listener: AdminListener, source: Arc<Source>, stop: CancellationToken) {
    let recorder = metrics::install();
    let shared = Shared { source, recorder: recorder.clone() };
    let routes = Router::new()
        .route("/health", get(ready))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(rendered_metrics))
        .route("/status", get(status))
        .route("/v1/overview", get(status))
        .route("/v1/digest", get(digest))
        .fallback(not_found)
        .with_state(shared);
    let server =
        axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = async { server.await } => {
            if let Err(error) = served {
                warn!(%error, "the admin port has failed");
            }
        }
        never = upkeep(recorder) => match never {},
        () = forced(stop) => {}
    }
}

/// Connections that somebody keeps open do not hold up a stop for longer than this.
async fn forced(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn upkeep(recorder: PrometheusHandle) -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP).await;
        recorder.run_upkeep();
    }
}

async fn live() -> &'static str {
    "alive\n"
}

async fn ready(State(shared): State<Shared>) -> Response {
    let overview = shared.source.overview();
    let code = match overview.state {
        NodeState::Serving => StatusCode::OK,
        NodeState::Starting | NodeState::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    let health = Health { status: overview.state, waiting_for: &overview.waiting_for };
    (code, Json(health)).into_response()
}

async fn status(State(shared): State<Shared>) -> Json<Overview> {
    Json(shared.source.overview())
}

async fn rendered_metrics(State(shared): State<Shared>) -> Response {
    metrics::observe_overview(&shared.source.overview());
    if let Some(store) = shared.source.storage().await {
        metrics::observe_storage(store, alarms());
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.recorder.render()).into_response()
}

async fn digest(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    // Names of buckets need no escaping, so an escaped one is none.
    let bucket = query.as_deref().and_then(|query| query.strip_prefix("bucket="));
    let Some(bucket) = bucket.filter(|name| !name.is_empty()) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "ask for /v1/digest?bucket=KEYSPACE.BUCKET".into(),
        );
    };
    match shared.source.digest(bucket.to_owned()).await {
        Ok(digest) => Json(digest).into_response(),
        Err(error) => {
            let code = match &error {
                DigestError::NotServing => StatusCode::SERVICE_UNAVAILABLE,
                DigestError::UnknownBucket { .. } => StatusCode::NOT_FOUND,
                DigestError::Store { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            problem(code, error.to_string())
        }
    }
}

async fn not_found() -> Response {
    let error = "there are /health, /health/live, /health/ready, /metrics, /status and \
                 /v1/digest?bucket=KEYSPACE.BUCKET";
    problem(StatusCode::NOT_FOUND, error.to_owned())
}

fn problem(code: StatusCode, error: String) -> Response {
    (code, Json(Problem { error })).into_response()
}
