//! The authorities of the operator's certificate, published for interceptors: they trust these alone, and mount the ConfigMap
//! that they are in.

use std::sync::Arc;
use std::time::Duration;

use dormouse_engine::Leadership;
use dormouse_kubernetes::{CallError, Calls, Priority};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::certificates::pem;

/// The key in the ConfigMap.
const KEY: &str = "ca.crt";
/// How often it is looked whether the ConfigMap still says what it should.
const LOOK: Duration = Duration::from_secs(60);
/// How soon a failure is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Publishes the authorities while this process leads.
pub(crate) struct Authorities {
    pub(crate) api: Api<ConfigMap>,
    pub(crate) name: String,
    pub(crate) calls: Calls,
    pub(crate) leadership: Arc<dyn Leadership>,
    pub(crate) known: watch::Receiver<Arc<[CertificateDer<'static>]>>,
}

impl Authorities {
    /// Keeps the ConfigMap as it should be. Never returns.
    pub(crate) async fn publish(mut self) {
        let mut leads = self.leadership.subscribe();
        let mut complaint = None;
        loop {
            let leader = *leads.borrow_and_update();
            let bundle = bundle(&self.known.borrow_and_update());
            let pause = match leader.then_some(bundle).filter(|bundle| !bundle.is_empty()) {
                None => LOOK,
                Some(bundle) => match self.write(&bundle).await {
                    Ok(()) => {
                        complaint = None;
                        LOOK
                    }
                    Err(error) => {
                        let error = error.to_string();
                        if complaint.as_ref() != Some(&error) {
                            warn!(
                                config_map = self.name,
                                error, "interceptors cannot be told whom to trust"
                            );
                            complaint = Some(error);
                        }
                        RETRY
                    }
                },
            };
            tokio::select! {
                Ok(()) = leads.changed() => {}
                Ok(()) = self.known.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Writes `bundle` unless it is there.
    async fn write(&self, bundle: &str) -> Result<(), CallError> {
        let read = self.api.get_opt(&self.name);
        let found = self
            .calls
            .unary(Priority::Normal, "read the ConfigMap of authorities", read);
        let data = json!({ KEY: bundle });
        let Some(found) = found.await? else {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                data: Some([(KEY.to_owned(), bundle.to_owned())].into()),
                ..ConfigMap::default()
            };
            let parameters = PostParams::default();
            let create = self.api.create(&parameters, &map);
            let create = self
                .calls
                .unary(Priority::Normal, "create the ConfigMap of authorities", create);
            create.await?;
            info!(
                config_map = self.name,
                "the authorities are published for interceptors"
            );
            return Ok(());
        };
        if found
            .data
            .as_ref()
            .and_then(|data| data.get(KEY))
            .is_some_and(|is| is == bundle)
        {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "data": data }));
        let parameters = PatchParams::default();
        let write = self.api.patch(&self.name, &parameters, &patch);
        let write = self
            .calls
            .unary(Priority::Normal, "write the ConfigMap of authorities", write);
        write.await?;
        info!(config_map = self.name, "the published authorities have changed");
        Ok(())
    }
}

fn bundle(authorities: &[CertificateDer<'_>]) -> String {
    authorities.iter().map(pem).collect()
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::certificates::tests::fake_api::FakeApi;
    use crate::leadership::tests::Leads;

    const PATH: &str = "/api/v1/namespaces/keda/configmaps/authorities";

    fn certificates(names: &[&'static [u8]]) -> Arc<[CertificateDer<'static>]> {
        names.iter().map(|name| CertificateDer::from(*name)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_and_nobody_else_publishes_what_interceptors_may_trust() {
        let server = FakeApi::default();
        let (lead, leads) = watch::channel(false);
        let (renew, known) = watch::channel(certificates(&[b"one"]));
        let authorities = Authorities {
            api: Api::namespaced(server.client(), "keda"),
            name: "authorities".to_owned(),
            calls: Calls::new(dormouse_kubernetes::calls::Throttle::new()),
            leadership: Arc::new(Leads(leads)),
            known,
        };
        let task = tokio::spawn(authorities.publish());
        let published = || {
            let map: ConfigMap = serde_json::from_value(server.get(PATH)?).unwrap();
            assert_eq!(map.name_any(), "authorities");
            Some(
                map.data
                    .unwrap()
                    .remove("ca.crt")
                    .unwrap()
                    .matches("BEGIN")
                    .count(),
            )
        };
        sleep(Duration::from_secs(90)).await;
        assert_eq!(published(), None, "it does not lead");
        lead.send_replace(true);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(published(), Some(1));
        renew.send_replace(certificates(&[b"two", b"one"]));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(published(), Some(2));
        let writes = server.state().writes.len();
        sleep(Duration::from_secs(600)).await;
        assert_eq!(server.state().writes.len(), writes, "nothing changed");
        server.remove(PATH);
        sleep(Duration::from_secs(61)).await;
        assert_eq!(published(), Some(2), "somebody deleted it");
        task.abort();
    }
}
