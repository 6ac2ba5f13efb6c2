//! The HPA of one ScaledObject, as the engine's autoscaler.

use std::sync::Arc;
use std::time::Duration;

use dormouse_api::{GroupVersionKindResource, ScaledObject, labels};
use dormouse_engine::{Autoscaler, AutoscalerSpec, Leadership, PortError};
use dormouse_kubernetes::{CallError, Calls, ObjectKey, Priority, Watched};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use crate::changes::{self, Seen};
use crate::context::{LookAgain, engine_key};
use crate::hpa;
use crate::target::{not_leading, port_error};

/// When to try again what the API server cannot know yet. It looks for new kinds every 30 s.
const UNTIL_KNOWN: Duration = Duration::from_secs(10);

/// Makes and removes the HPA of one ScaledObject.
pub struct HpaAutoscaler {
    /// Client.
    pub client: Client,
    /// Bounded calls.
    pub calls: Calls,
    /// Who may write.
    pub leadership: Arc<dyn Leadership>,
    /// All HPAs that are watched.
    pub hpas: Watched<HorizontalPodAutoscaler>,
    /// How they were when their objects were last looked at for them.
    pub seen: Seen,
    /// The object.
    pub object: Arc<ScaledObject>,
    /// Its target's kind.
    pub target: GroupVersionKindResource,
    /// The name of the HPA that its status knows, which may be one from before a rename.
    pub known_name: Option<String>,
    /// Version of this operator, for the HPA's label.
    pub version: &'static str,
    /// Has the object looked at again.
    pub look_again: LookAgain,
}

impl HpaAutoscaler {
    fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> String {
        self.object.spec.hpa_name(&self.object.name_any())
    }

    fn api(&self) -> Api<HorizontalPodAutoscaler> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// To be asked right before each write: what came before it may have taken long.
    fn may_write(&self) -> Result<(), PortError> {
        if self.leadership.is_leader() {
            Ok(())
        } else {
            Err(not_leading())
        }
    }

    fn is_ours(&self, hpa: &HorizontalPodAutoscaler) -> bool {
        let owners = hpa.metadata.owner_references.iter().flatten();
        owners
            .into_iter()
            .any(|owner| Some(&owner.uid) == self.object.metadata.uid.as_ref())
    }

    /// Whether the user lets an HPA that is there already become ours.
    fn may_take_over(&self) -> bool {
        self.object
            .annotations()
            .get(labels::TRANSFER_HPA_OWNERSHIP)
            .is_some_and(|value| value == "true")
    }

    fn foreign(&self, name: &str) -> PortError {
        let object = self.object.name_any();
        let kind = format!(
            "{}/{}.{}",
            self.target.group, self.target.version, self.target.kind
        );
        PortError {
            category: "conflict",
            message: format!(
                "the workload '{}' of type '{kind}' is already managed by the hpa '{name}', which ScaledObject \
                 '{object}' does not own: delete that HPA, or hand it over with the annotation {}: \"true\"",
                self.object.spec.scale_target_ref.name,
                labels::TRANSFER_HPA_OWNERSHIP
            ),
        }
    }

    async fn make(&self, spec: &AutoscalerSpec) -> Result<(), PortError> {
        let name = self.name();
        let desired = hpa::desired(&self.object, &self.target, spec, self.version);
        let key = ObjectKey::new(self.namespace(), name.as_str());
        let live = match self.hpas.get(&key) {
            Some(seen) => Some((*seen).clone()),
            None => {
                match self.write(&desired, None).await? {
                    Ok(created) => {
                        self.seen.expect(&key, changes::of_hpa(&created));
                        None
                    }
                    // The watch has not shown it yet.
                    Err(CallError::AlreadyExists { .. }) => {
                        self.get(&name).await.map_err(|error| port_error(&error))?
                    }
                    Err(error) => return Err(port_error(&error)),
                }
            }
        };
        if let Some(live) = live {
            self.bring_to(&live, &desired).await?;
        }
        self.remove_renamed(&name).await
    }

    async fn get(&self, name: &str) -> Result<Option<HorizontalPodAutoscaler>, CallError> {
        let api = self.api();
        self.calls
            .unary(Priority::Normal, "read an HPA", api.get_opt(name))
            .await
    }

    async fn bring_to(
        &self,
        live: &HorizontalPodAutoscaler,
        desired: &HorizontalPodAutoscaler,
    ) -> Result<(), PortError> {
        let name = live.name_any();
        if !self.is_ours(live) && !self.may_take_over() {
            return Err(self.foreign(&name));
        }
        if !hpa::differs(live, desired) {
            return Ok(());
        }
        // What the watch shows may be old, and writing over a newer one would lose what others added to it.
        let Some(fresh) = self.get(&name).await.map_err(|error| port_error(&error))? else {
            return Err(PortError {
                category: "conflict",
                message: format!("HPA {name:?} is being deleted"),
            });
        };
        if !hpa::differs(&fresh, desired) {
            return Ok(());
        }
        match self.write(&hpa::merged(&fresh, desired), Some(&fresh)).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(port_error(&error)),
        }
    }

    /// Creates `hpa`, or replaces `live` with it. Where the API server has not heard of ScaledObjects for long enough to
    /// let them block deletions, it is written without that mark, which is added at a later look.
    async fn write(
        &self,
        hpa: &HorizontalPodAutoscaler,
        live: Option<&HorizontalPodAutoscaler>,
    ) -> Result<Result<HorizontalPodAutoscaler, CallError>, PortError> {
        let written = self.put(hpa, live.is_some()).await?;
        if !written.as_ref().is_err_and(CallError::is_owner_kind_unknown) {
            return Ok(written);
        }
        (self.look_again)(engine_key(&ObjectKey::of(&*self.object)), UNTIL_KNOWN);
        let plain = hpa::without_block(hpa);
        match live {
            Some(live) if !hpa::differs(live, &plain) => Ok(Ok(live.clone())),
            _ => self.put(&plain, live.is_some()).await,
        }
    }

    async fn put(
        &self,
        hpa: &HorizontalPodAutoscaler,
        replace: bool,
    ) -> Result<Result<HorizontalPodAutoscaler, CallError>, PortError> {
        self.may_write()?;
        let (api, params) = (self.api(), PostParams::default());
        Ok(if replace {
            let name = hpa.name_any();
            let replace = api.replace(&name, &params, hpa);
            self.calls.unary(Priority::Normal, "update an HPA", replace).await
        } else {
            let create = api.create(&params, hpa);
            self.calls.unary(Priority::Normal, "create an HPA", create).await
        })
    }

    /// After a rename, the HPA of the old name goes.
    async fn remove_renamed(&self, name: &str) -> Result<(), PortError> {
        match self.known_name.as_deref().filter(|known| *known != name) {
            Some(known) => self.delete(known).await,
            None => Ok(()),
        }
    }

    /// Deletes an HPA of ours; one that is not ours, or not there, is left alone.
    async fn delete(&self, name: &str) -> Result<(), PortError> {
        let Some(live) = self.get(name).await.map_err(|error| port_error(&error))? else {
            return Ok(());
        };
        if !self.is_ours(&live) {
            return Ok(());
        }
        self.may_write()?;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: live.metadata.uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        let api = self.api();
        match self
            .calls
            .unary(Priority::Normal, "delete an HPA", api.delete(name, &params))
            .await
        {
            Ok(_) => Ok(()),
            Err(CallError::NotFound { .. }) => Ok(()),
            Err(error) => Err(port_error(&error)),
        }
    }
}

impl Autoscaler for HpaAutoscaler {
    fn ensure<'a>(&'a self, spec: &'a AutoscalerSpec) -> BoxFuture<'a, Result<(), PortError>> {
        self.make(spec).boxed()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), PortError>> {
        async {
            self.delete(&self.name()).await?;
            self.remove_renamed(&self.name()).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
