//! What the operator watches.

use std::sync::Arc;

use dormouse_api::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication};
use dormouse_engine::ObjectKey;
use dormouse_kubernetes::{Change, Cluster, Queue, Watch, Watched};
use dormouse_runtime::Supervisor;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use tokio::sync::Notify;

use super::until;
use crate::args::OperatorArgs;
use crate::changes::{self, Seen};
use crate::context::{Stores, engine_key};
use crate::demand::DemandParts;
use crate::neighbours::Neighbours;
use crate::work::Work;
use crate::{authentications, routes};

/// Starts the watches. Each change that is worth it puts a key into a queue; nothing else happens on the watches' tasks.
pub(super) fn start(
    args: &OperatorArgs,
    cluster: &Cluster,
    queues: &Work,
    demand: &DemandParts,
    supervisor: &mut Supervisor,
) -> Stores {
    let (client, scope) = (&cluster.client, &args.watch_namespace);
    let neighbours = Neighbours::default();
    let (seen_objects, seen_hpas) = (Seen::default(), Seen::default());
    let (seen, work, undecodable) = (seen_objects.clone(), queues.clone(), queues.undecodable.clone());
    let routes_changed = Arc::new(Notify::new());
    let (index, users, used) = (neighbours.clone(), demand.users.clone(), routes_changed.clone());
    let scaled_objects = Watch::<ScaledObject>::within(client, scope)
        .labels(&args.watch_label_selector)
        .on_change(move |key, change| {
            work.undecodable.no_longer(&engine_key(key));
            if let Change::Applied(_) = change {
                work.statuses.add(engine_key(key));
            }
            let scaled_on = match change {
                Change::Deleted(_) => {
                    index.forget_object(key);
                    users.forget(key)
                }
                Change::Applied(object) => {
                    index.note_object(key, object);
                    users.note(key, object)
                }
            };
            if !scaled_on.is_empty() {
                used.notify_one();
            }
            if let Change::Deleted(_) = change {
                seen.forget(key);
            } else if !seen.is_news(key, changes::of_scaled_object(change.object())) {
                return;
            }
            work.objects.add(engine_key(key));
            let object = change.object();
            authentications::used_by::<TriggerAuthentication>(object)
                .into_iter()
                .for_each(|k| work.authentications.add(k));
            for key in authentications::used_by::<ClusterTriggerAuthentication>(object) {
                work.cluster_authentications.add(key);
            }
        })
        .on_undecodable(move |object| undecodable.seen(object));
    let (scaled_objects, task) = scaled_objects.start();
    supervisor.spawn("watch of ScaledObjects", until(supervisor.token(), task));
    let (seen, work, index) = (seen_hpas.clone(), queues.clone(), neighbours.clone());
    let hpas = Watch::<HorizontalPodAutoscaler>::within(client, scope).on_change(move |key, change| {
        match change {
            Change::Deleted(_) => index.forget_hpa(key),
            Change::Applied(hpa) => index.note_hpa(key, hpa),
        }
        if let Change::Deleted(_) = change {
            seen.forget(key);
        } else if !seen.is_news(key, changes::of_hpa(change.object())) {
            return;
        }
        let hpa = change.object();
        let owners = hpa.metadata.owner_references.iter().flatten();
        let mut owners =
            owners.filter(|owner| owner.kind == "ScaledObject" && owner.controller == Some(true));
        if let Some(owner) = owners.next() {
            return work
                .objects
                .add(ObjectKey::new(&*key.namespace, owner.name.as_str()));
        }
        // An HPA of someone else's: the objects on its target have to be judged again.
        let Some(target) = hpa.spec.as_ref().map(|spec| &spec.scale_target_ref.name) else {
            return;
        };
        let target = dormouse_kubernetes::ObjectKey::new(key.namespace.clone(), target.as_str());
        for object in index.objects_on(&target) {
            work.objects.add(engine_key(&object));
        }
    });
    let (hpas, task) = hpas.start();
    supervisor.spawn("watch of HPAs", until(supervisor.token(), task));
    let labels = &args.watch_label_selector_for_triggerauth;
    let authentications = Watch::<TriggerAuthentication>::within(client, scope).labels(labels);
    let trigger_authentications = watch_authentications(
        authentications,
        queues.authentications.clone(),
        &scaled_objects,
        queues,
        supervisor,
    );
    let authentications = Watch::<ClusterTriggerAuthentication>::all(client).labels(labels);
    let work = queues.cluster_authentications.clone();
    let cluster_trigger_authentications =
        watch_authentications(authentications, work, &scaled_objects, queues, supervisor);
    let interceptors = args.demand.demand_bind_address.is_some();
    let routes = interceptors.then(|| {
        let (hub, users, work) = (demand.hub.clone(), demand.users.clone(), queues.clone());
        let look_again = move |user: &_| work.objects.add(engine_key(user));
        let (routes, task) = routes::follow(client, scope, hub, users, routes_changed, look_again);
        supervisor.spawn("watch of InterceptorRoutes", until(supervisor.token(), task));
        routes
    });
    Stores {
        scaled_objects,
        hpas,
        routes,
        trigger_authentications,
        cluster_trigger_authentications,
        seen_objects,
        seen_hpas,
        neighbours,
    }
}

/// A changed authentication is looked at itself, and so are the objects that use it.
fn watch_authentications<K: authentications::Authentication>(
    watch: Watch<K>,
    own: Queue<dormouse_kubernetes::ObjectKey>,
    objects: &Watched<ScaledObject>,
    queues: &Work,
    supervisor: &mut Supervisor,
) -> Watched<K> {
    let (seen, objects, work) = (Seen::default(), objects.clone(), queues.objects.clone());
    let watch = watch.on_change(move |key, change| {
        if let Change::Deleted(_) = change {
            seen.forget(key);
        } else if !seen.is_news(key, changes::of_generation_and_metadata(change.object().meta())) {
            return;
        }
        own.add(key.clone());
        for user in authentications::users::<K>(&objects, key) {
            work.add(engine_key(&user));
        }
    });
    let (watched, task) = watch.start();
    supervisor.spawn("watch of authentications", until(supervisor.token(), task));
    watched
}
