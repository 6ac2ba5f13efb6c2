//! The APIService's caBundle: by it the API server knows our certificate.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tracing::info;

use super::RotationSettings;
use super::material::{Material, authorities};
use super::secret::{CallError, within_deadline};

const NAME: &str = "v1beta1.external.metrics.k8s.io";

/// What the API server verifies our certificate by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// These authorities.
    Bundle(Vec<CertificateDer<'static>>),
    /// Nobody comes to us by way of an APIService, so nobody is lost.
    NotUsed(&'static str),
}

/// Reads and writes the one field.
pub(crate) struct ApiServiceBundle {
    api: Api<APIService>,
    namespace: String,
    service: String,
    may_patch: bool,
}

impl ApiServiceBundle {
    pub(crate) fn new(client: Client, settings: &RotationSettings) -> Self {
        Self {
            api: Api::all(client),
            namespace: settings.namespace.clone(),
            service: settings.metrics_service.clone(),
            may_patch: settings.patch_api_service,
        }
    }

    /// Makes the caBundle that of `material` if it differs, and says what it is then.
    pub(crate) async fn publish(&self, material: &Material) -> Result<Published, CallError> {
        let found = within_deadline(|| format!("read APIService {NAME}"), self.api.get_opt(NAME)).await?;
        let Some(found) = found else {
            return Ok(Published::NotUsed("does not exist"));
        };
        let version = found.resource_version();
        let spec = found.spec.unwrap_or_default();
        let service = spec.service.unwrap_or_default();
        if service.namespace.as_ref() != Some(&self.namespace) || service.name.as_ref() != Some(&self.service)
        {
            return Ok(Published::NotUsed("points at another Service"));
        }
        if spec.insecure_skip_tls_verify.unwrap_or(false) {
            return Ok(Published::NotUsed(
                "verifies no certificate (insecureSkipTLSVerify)",
            ));
        }
        let bundle = spec.ca_bundle.unwrap_or_default();
        // A bundle nobody can read is a bundle to replace.
        let present = authorities(&bundle.0, Timestamp::now()).unwrap_or_default();
        let present = present.into_iter().map(|authority| authority.certificate);
        let present = present.collect::<Vec<_>>();
        let wanted = material
            .authorities
            .iter()
            .map(|authority| &authority.certificate);
        let is_wanted =
            wanted.clone().count() == present.len() && wanted.clone().all(|one| present.contains(one));
        if is_wanted || !self.may_patch {
            return Ok(Published::Bundle(present));
        }
        let text = k8s_openapi::ByteString(material.bundle(usize::MAX).into_bytes());
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": version },
            "spec": { "caBundle": text },
        }));
        let parameters = PatchParams::default();
        let call = self.api.patch(NAME, &parameters, &patch);
        within_deadline(|| format!("write the caBundle of APIService {NAME}"), call).await?;
        info!(
            authorities = material.authorities.len(),
            "the caBundle of APIService {NAME} is up to date"
        );
        Ok(Published::Bundle(wanted.cloned().collect()))
    }
}
