//! Reads of external metrics: through the API server, as the HPA controller makes them, or straight at one replica.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::{Cluster, Installation, Namespace, manifest};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::PostParams;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::objects::Item;

const ACCOUNT: &str = "bench";
const API_SERVICE: &str = "v1beta1.external.metrics.k8s.io";
/// The longest a read may take before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(10);
const METRICS_PORT: u16 = 6443;

/// The path of one object's metric.
pub(crate) fn path(namespace: &str, item: &Item) -> String {
    format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/s0-metric-api-value\
         ?labelSelector=scaledobject.keda.sh%2Fname%3D{}",
        item.name
    )
}

/// One read through the API server.
pub(crate) async fn through(client: kube::Client, path: String) -> Result<()> {
    let request = http::Request::get(path).body(Vec::new())?;
    let answer = timeout(DEADLINE, client.request_text(request))
        .await
        .context("no answer within 10 s")??;
    ensure!(
        answer.contains("\"value\""),
        "an answer without a value: {answer}"
    );
    Ok(())
}

/// One read that asks the operator nothing, only this machine and the bench itself.
pub(crate) async fn floor(client: reqwest::Client, url: String) -> Result<()> {
    let answer = client.get(url).send().await?.error_for_status()?;
    answer.bytes().await?;
    Ok(())
}

/// One way to one replica, with the token of an account that may read external metrics.
#[derive(Clone)]
pub(crate) struct Direct {
    client: reqwest::Client,
    base: String,
    token: Arc<str>,
}

impl Direct {
    /// One read.
    pub(crate) async fn read(self, path: String) -> Result<()> {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.token);
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(
            status.is_success(),
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }
}

/// What it takes to ask a replica: a caller's token, and the authority of its certificate.
pub(crate) struct Caller {
    token: Arc<str>,
    authorities: RootCertStore,
    server_name: String,
}

impl Caller {
    /// Makes an account in the bench's namespace that may read external metrics.
    pub(crate) async fn new(
        cluster: &Cluster,
        installation: &Installation,
        namespace: &Namespace,
    ) -> Result<Self> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
        let rights = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": ACCOUNT},
            "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace.name()}],
        });
        for object in [account, rights, binding] {
            manifest::apply_value(cluster, namespace.name(), object).await?;
        }
        let api: Api<ServiceAccount> = namespace.api();
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer: TokenRequest = api
            .create_subresource("token", ACCOUNT, &PostParams::default(), &request)
            .await
            .context("requesting a token")?;
        let token = answer
            .status
            .context("a TokenRequest was answered without a token")?
            .token;
        let service = Api::<APIService>::all(cluster.client()).get(API_SERVICE).await?;
        let bundle = service
            .spec
            .and_then(|spec| spec.ca_bundle)
            .context("the APIService has no caBundle")?;
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
            authorities
                .add(certificate.context("the caBundle is not PEM")?)
                .context("the caBundle holds no certificate authority")?;
        }
        Ok(Self {
            token: token.into(),
            authorities,
            server_name: format!("keda-metrics-apiserver.{}.svc", installation.namespace()),
        })
    }

    /// The way to the replica whose pod has this address.
    pub(crate) fn to(&self, pod: std::net::IpAddr) -> Result<Direct> {
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(self.authorities.clone())
            .with_no_client_auth();
        // As the API server does: one connection for all reads.
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let address = SocketAddr::new(pod, METRICS_PORT);
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .resolve(&self.server_name, address)
            .timeout(DEADLINE)
            .no_proxy()
            .build()
            .context("unable to make an HTTP client")?;
        Ok(Direct {
            client,
            base: format!("https://{}:{METRICS_PORT}", self.server_name),
            token: self.token.clone(),
        })
    }
}

/// Reads metrics through the API server all the time and notes which reads fail, and when.
pub(crate) struct Probe {
    failed: Arc<Mutex<BTreeMap<Instant, String>>>,
    _reading: AbortOnDropHandle<()>,
}

/// Reads per second of a [`Probe`].
const PROBES_PER_SECOND: u32 = 20;

impl Probe {
    /// Begins, going through `paths` in turn.
    pub(crate) fn start(cluster: &Cluster, paths: Vec<String>) -> Self {
        let failed = Arc::<Mutex<BTreeMap<Instant, String>>>::default();
        let (client, noted) = (cluster.client(), failed.clone());
        let reading = tokio::spawn(async move {
            let mut due = interval(Duration::from_secs(1) / PROBES_PER_SECOND);
            due.set_missed_tick_behavior(MissedTickBehavior::Skip);
            // Dropped with this task, so no read outlives the probe.
            let mut under_way = tokio::task::JoinSet::new();
            for path in paths.into_iter().cycle() {
                let began = due.tick().await;
                while under_way.try_join_next().is_some() {}
                let (client, noted) = (client.clone(), noted.clone());
                under_way.spawn(async move {
                    if let Err(error) = through(client, path).await {
                        let mut failed = noted.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.insert(began, format!("{error:#}"));
                    }
                });
            }
        });
        Self {
            failed,
            _reading: AbortOnDropHandle::new(reading),
        }
    }

    /// The reads begun since `moment` that failed: how many, the last one's time after it, and the first one's reason.
    pub(crate) fn failed_since(&self, moment: Instant) -> (usize, Option<Duration>, Option<String>) {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let since: Vec<_> = failed.range(moment..).collect();
        (
            since.len(),
            since.last().map(|(at, _)| **at - moment),
            since.first().map(|(_, reason)| (*reason).clone()),
        )
    }
}
