//! `/queue` on the admin port: what each route has to do now, in the add-on's form.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use dormouse_proxy::Demand;
use serde::Serialize;

/// What one route has to do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Count {
    /// Requests that wait or are being served.
    concurrency: u64,
    /// Requests since the process began.
    request_count: u64,
}

/// The page, as a router to be merged.
pub(crate) fn page(demand: Demand) -> Router {
    Router::new().route("/queue", get(queue)).with_state(demand)
}

async fn queue(State(demand): State<Demand>) -> Json<BTreeMap<String, Count>> {
    let counts = demand.snapshot().into_iter().map(|load| {
        let count = Count {
            concurrency: u64::from(load.pending) + u64::from(load.in_flight),
            request_count: load.started,
        };
        (load.route.to_string(), count)
    });
    Json(counts.collect())
}
