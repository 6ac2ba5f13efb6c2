//! Keeps every object in order, for as long as the process runs.

use std::time::Duration;

use dormouse_api::{ClusterTriggerAuthentication, TriggerAuthentication};
use dormouse_engine::Leadership;
use dormouse_kubernetes::{Action, Watched};
use dormouse_runtime::admin;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Parts;
use crate::context::Context;
use crate::demand::DemandParts;
use crate::leadership::Fence;
use crate::routes::RouteStores;
use crate::work::{Work, or_later};
use crate::{authentications, reconcile};

/// Authentications brought in order at once.
const AUTHENTICATION_WORKERS: usize = 4;
/// Statuses put right at once that somebody else changed.
const STATUS_WORKERS: usize = 4;

/// How long the start waits for routes once all else is there.
const ROUTES: Duration = Duration::from_secs(5);

/// Waits for the watches, then keeps every object in order until the process stops; then gives the lease free.
pub(super) async fn work(
    parts: Parts,
    fence: Fence,
    synced: admin::Ready,
    max_reconciles: usize,
    stopping: CancellationToken,
    released: CancellationToken,
) {
    let Parts {
        cx,
        queues,
        journal,
        demand,
        ..
    } = parts;
    let stores = cx.stores.clone();
    let all_synced = async {
        stores.scaled_objects.synced().await;
        stores.hpas.synced().await;
        stores.trigger_authentications.synced().await;
        stores.cluster_trigger_authentications.synced().await;
        if let Some(RouteStores { routes, .. }) = &stores.routes {
            // An object that scales on a route would seem to name one that is not there.
            synced_soon(routes).await;
        }
    };
    if stopping.run_until_cancelled(all_synced).await.is_some() {
        synced.set(true);
        info!(objects = stores.scaled_objects.len(), "watches are current");
        queues.resume_all(&stores, &demand.awaited());
        let objects = queues.objects.run(max_reconciles, stopping.clone(), |key| {
            let (cx, journal, resumed) = (cx.clone(), journal.clone(), queues.take_resuming(&key));
            async move {
                let outcome = reconcile::reconcile(&cx, &key, resumed).await;
                if cx
                    .stores
                    .scaled_objects
                    .get(&crate::context::watch_key(&key))
                    .is_none()
                {
                    journal.forget(&key);
                }
                outcome.map(|()| Action::Done)
            }
        });
        let authentications = queues
            .authentications
            .run(AUTHENTICATION_WORKERS, stopping.clone(), |key| {
                let cx = cx.clone();
                async move {
                    let outcome = authentications::reconcile::<TriggerAuthentication>(&cx, &key).await;
                    or_later(&key, outcome)
                }
            });
        let cluster_authentications =
            queues
                .cluster_authentications
                .run(AUTHENTICATION_WORKERS, stopping.clone(), |key| {
                    let cx = cx.clone();
                    async move {
                        let outcome =
                            authentications::reconcile::<ClusterTriggerAuthentication>(&cx, &key).await;
                        or_later(&key, outcome)
                    }
                });
        let statuses = queues.statuses.run(STATUS_WORKERS, stopping.clone(), |key| {
            let cx = cx.clone();
            async move {
                let Some(object) = cx.stores.scaled_objects.get(&crate::context::watch_key(&key)) else {
                    return Ok(Action::Done);
                };
                let wait = cx.status.take_in(&key, &object).await;
                wait.map(|wait| wait.map_or(Action::Done, Action::After))
            }
        });
        let takeovers = take_overs(&cx, &queues, &demand, &fence, &stopping);
        tokio::join!(
            objects,
            authentications,
            cluster_authentications,
            statuses,
            takeovers
        );
    }
    drop(synced);
    cx.engine.stop_all().await;
    released.cancel();
}

/// Waits for the routes, but not for ever: a cluster without their CRD has none. What scales on one is looked at again when it
/// appears.
async fn synced_soon<K>(routes: &Watched<K>) {
    if timeout(ROUTES, routes.synced()).await.is_err() {
        warn!("InterceptorRoutes cannot be listed yet, perhaps for want of their CRD: going on without them");
    }
}

/// At each take-over everything is looked at again: another process wrote until now.
async fn take_overs(
    cx: &Context,
    queues: &Work,
    demand: &DemandParts,
    fence: &Fence,
    stopping: &CancellationToken,
) {
    let mut leads = fence.subscribe();
    let follow = async {
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            info!("this replica leads");
            cx.status.close_all();
            queues.resume_all(&cx.stores, &demand.awaited());
            if leads.wait_for(|leads| !*leads).await.is_err() {
                return;
            }
            cx.metrics.forget_all();
            warn!("this replica no longer leads");
        }
    };
    stopping.run_until_cancelled(follow).await;
}

#[cfg(test)]
mod tests {
    use dormouse_api::InterceptorRoute;
    use dormouse_kubernetes::Watch;
    use http::{Request, Response};
    use kube::client::Body;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn routes_that_cannot_be_listed_do_not_keep_the_rest() {
        let nobody =
            |_: Request<Body>| std::future::pending::<Result<Response<Body>, std::convert::Infallible>>();
        let client = kube::Client::new(tower::service_fn(nobody), "keda");
        let (routes, _task) = Watch::<InterceptorRoute>::all(&client).start();
        let began = Instant::now();
        synced_soon(&routes).await;
        assert_eq!(began.elapsed(), ROUTES);
    }
}
