//! A running server, the authorities its clients' certificates come from, and clients.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::Quantity;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::{
    Caller, ExternalMetric, Gatekeeper, Limits, MetricQuery, MetricReadError, MetricSource, serve,
};
use crate::certificates::ServingCertificate;
use crate::certificates::tests::fake_api::FakeApi;
use crate::certificates::tests::{Replica, replica, settings};

pub(super) const HOST: &str = "keda-metrics-apiserver.keda.svc";
pub(super) const TRUST: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
pub(super) const OWN_USER: &str = "system:serviceaccount:keda:keda-operator";
pub(super) const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
/// A metric that is there.
pub(super) const READ: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/s0-orders?labelSelector=scaledobject.keda.sh%2Fname%3Dworker";

/// An authority for client certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

/// A client certificate with its key.
pub(super) struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    pub(super) fn issue(&self, name: &str, organization: &str) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        ClientIdentity {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
        }
    }
}

/// Knows the metric `s0-orders` of `shop/worker`, and remembers who asked.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) asked: Mutex<Vec<(String, Caller)>>,
    /// Metric `s0-slow` is answered when this is notified.
    pub(super) slow: Notify,
}

impl MetricSource for Orders {
    fn external_metric<'a>(
        &'a self,
        query: MetricQuery<'a>,
    ) -> BoxFuture<'a, Result<ExternalMetric, MetricReadError>> {
        async move {
            self.asked
                .lock()
                .unwrap()
                .push((query.metric.to_owned(), query.caller));
            let metric = query.metric.to_owned();
            if (query.namespace, query.scaled_object) != ("shop", "worker") {
                return Err(MetricReadError::UnknownObject {
                    scaled_object: query.scaled_object.to_owned(),
                });
            }
            match query.metric.to_ascii_lowercase().as_str() {
                "s0-orders" => Ok(ExternalMetric {
                    value: Quantity::from_milli(15_000),
                    timestamp: "2026-11-21T05:40:55.987Z".parse().unwrap(),
                }),
                "s0-slow" => {
                    self.slow.notified().await;
                    Ok(ExternalMetric {
                        value: Quantity::from_milli(1),
                        timestamp: "2026-11-21T05:40:55Z".parse().unwrap(),
                    })
                }
                "s0-failing" => Err(MetricReadError::Failing {
                    metric,
                    cause: "queue does not exist".to_owned(),
                }),
                "s0-old" => Err(MetricReadError::TooOld {
                    metric,
                    age: Duration::from_secs(90),
                    limit: Duration::from_secs(34),
                }),
                "s0-new" => Err(MetricReadError::NotYetRead { metric }),
                "s0-follower" => Err(MetricReadError::NotLeader { metric }),
                _ => Err(MetricReadError::UnknownMetric { metric }),
            }
        }
        .boxed()
    }
}

/// A running server.
pub(super) struct Served {
    pub(super) api: FakeApi,
    pub(super) front_proxy: Authority,
    pub(super) clients: Authority,
    pub(super) source: Arc<Orders>,
    pub(super) address: SocketAddr,
    pub(super) stop: Arc<Notify>,
    pub(super) task: JoinHandle<()>,
    pub(super) certificate: ServingCertificate,
    _rotation: Replica,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The ConfigMap by which clusters tell whom to believe.
pub(super) fn trust(front_proxy: &Authority, clients: &Authority) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "extension-apiserver-authentication", "namespace": "kube-system" },
        "data": {
            "client-ca-file": clients.pem,
            "requestheader-client-ca-file": front_proxy.pem,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        },
    })
}

impl Served {
    pub(super) async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub(super) async fn start_with(limits: Limits) -> Self {
        let api = FakeApi::default();
        let (front_proxy, clients) = (Authority::new("front-proxy-ca"), Authority::new("cluster-ca"));
        api.put(TRUST, trust(&front_proxy, &clients));
        api.state().allowed.push((HPA, "", "*"));
        let rotation = replica(&api, settings(), true);
        rotation.serving.ready().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = Arc::<Orders>::default();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let server = serve(
            listener,
            rotation.serving.resolver(),
            Arc::new(Gatekeeper::new(api.client(), OWN_USER.to_owned())),
            Arc::clone(&source) as Arc<dyn MetricSource>,
            limits,
            async move { stopped.notified().await },
        );
        Self {
            task: tokio::spawn(server),
            certificate: rotation.serving.clone(),
            api,
            front_proxy,
            clients,
            source,
            address,
            stop,
            _rotation: rotation,
        }
    }

    /// A client of this server that trusts its authorities and shows `identity`.
    pub(super) fn client(&self, identity: Option<&ClientIdentity>) -> Client {
        let authorities = self.certificate.authorities().borrow().to_vec();
        Client::new(self.address, &authorities, identity)
    }

    /// The aggregation layer's client.
    pub(super) fn aggregator(&self) -> Client {
        self.client(Some(&self.front_proxy.issue("front-proxy-client", "")))
    }
}

/// One client with its connections.
pub(super) struct Client {
    inner: reqwest::Client,
    port: u16,
}

impl Client {
    pub(super) fn new(
        address: SocketAddr,
        authorities: &[CertificateDer<'static>],
        identity: Option<&ClientIdentity>,
    ) -> Self {
        Self::speaking(address, authorities, identity, &["h2", "http/1.1"])
    }

    pub(super) fn speaking(
        address: SocketAddr,
        authorities: &[CertificateDer<'static>],
        identity: Option<&ClientIdentity>,
        protocols: &[&str],
    ) -> Self {
        let config = client_config(authorities, identity, protocols);
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .resolve(HOST, address)
            .timeout(Duration::from_secs(20))
            .no_proxy()
            .build()
            .unwrap();
        Self {
            inner,
            port: address.port(),
        }
    }

    pub(super) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_send(method, path, headers).await.unwrap()
    }

    pub(super) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self
            .inner
            .request(method, format!("https://{HOST}:{}{path}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        Ok(Answer {
            code: response.status(),
            version: response.version(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers).await
    }
}

/// A TLS configuration for clients.
pub(super) fn client_config(
    authorities: &[CertificateDer<'static>],
    identity: Option<&ClientIdentity>,
    protocols: &[&str],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let key = PrivateKeyDer::try_from(identity.key.clone()).unwrap();
            builder
                .with_client_auth_cert(identity.chain.clone(), key)
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    config
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) version: http::Version,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Code, reason and message of a `Status`, whose constant parts are checked.
    pub(super) fn failure(&self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!(
            (&status["kind"], &status["apiVersion"], &status["status"]),
            (&json!("Status"), &json!("v1"), &json!("Failure"))
        );
        assert_eq!(status["code"], self.code.as_u16());
        assert_eq!(self.headers["content-type"], "application/json");
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        (self.code.as_u16(), text("reason"), text("message"))
    }
}
