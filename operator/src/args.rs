//! What the operator is told on its command line and by its environment. The names are KEDA's, so that charts, manifests and
//! habits carry over; nothing else in the operator reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use dormouse_kubernetes::Namespaces;
use dormouse_runtime::telemetry::{Encoder, LogLevel, TimeEncoding};
use dormouse_scalers::clients::{HostList, MinTls};
use dormouse_scalers::metadata::TimeSpan;

use crate::demand::DemandArgs;

/// `dormouse operator`
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {
    /// Stand for election before writing anything; needed with more than one replica.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub leader_elect: bool,
    /// Name of the Lease.
    #[arg(long, default_value = "operator.keda.sh")]
    pub leader_election_id: String,
    /// Where /metrics is served.
    #[arg(long, default_value = ":8080")]
    pub metrics_bind_address: BindAddress,
    /// Where /healthz and /readyz are served.
    #[arg(long, default_value = ":8081")]
    pub health_probe_bind_address: BindAddress,
    /// Where external.metrics.k8s.io is served.
    #[arg(long, default_value = ":6443")]
    pub metrics_api_bind_address: BindAddress,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take it for help")]
    pub demand: DemandArgs,
    /// The Secret that holds the CA and the serving certificate.
    #[arg(long, default_value = "kedaorg-certs")]
    pub cert_secret_name: String,
    /// The directory of the serving certificate, where it is not made here.
    #[arg(long, default_value = "/certs")]
    pub cert_dir: PathBuf,
    /// Name of the operator's Service.
    #[arg(long, default_value = "keda-operator")]
    pub operator_service_name: String,
    /// Name of the metrics API's Service.
    #[arg(long, default_value = "keda-metrics-apiserver")]
    pub metrics_server_service_name: String,
    /// Name of the admission webhooks' Service.
    #[arg(long, default_value = "keda-admission-webhooks")]
    pub webhooks_service_name: String,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub k8s_cluster_domain: String,
    /// Make and rotate the serving certificate.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_cert_rotation: bool,
    /// Write the CA into the APIService.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub enable_apiservice_patching: bool,
    /// Life of a serving certificate; it is replaced after two thirds of it. As 8760h, 90m or 60s.
    #[arg(long, default_value = "8760h")]
    pub cert_validity: Period,
    /// Directory of CA certificates that triggers trust besides the system's; may be given more than once.
    #[arg(long, default_value = "/custom/ca")]
    pub ca_dir: Vec<PathBuf>,
    /// Networks that triggers may reach although they hold link-local, loopback or metadata addresses or the API server;
    /// separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = network)]
    pub egress_allow: Vec<ipnet::IpNet>,
    /// Hosts that an awsEndpoint may name when the operator's own AWS identity signs, besides AWS' own; separated by commas,
    /// *.example.org for all hosts below.
    #[arg(long, default_value = "")]
    pub aws_endpoint_allow: HostList,
    /// Refuse a ClusterTriggerAuthentication that does not name its hosts, instead of warning.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub require_allowed_hosts: bool,
    /// Log level: debug, info, error or a number.
    #[arg(long, default_value = "info")]
    pub zap_log_level: LogLevel,
    /// Log format: console or json.
    #[arg(long, default_value = "console")]
    pub zap_encoder: Encoder,
    /// Time format of the log.
    #[arg(long, default_value = "rfc3339")]
    pub zap_time_encoding: TimeEncoding,
    /// Tell the durations of HTTP requests apart by namespace, object, trigger and metric.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub enable_high_cardinality_metrics_labels: bool,
    /// Kubeconfig file, outside of a cluster.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Namespaces to watch, separated by commas; empty for all.
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: Namespaces,
    /// Only ScaledObjects with these labels.
    #[arg(long, env = "WATCH_LABEL_SELECTOR", default_value = "")]
    pub watch_label_selector: String,
    /// Only authentications with these labels.
    #[arg(long, env = "WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH", default_value = "")]
    pub watch_label_selector_for_triggerauth: String,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Namespace of this pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "keda")]
    pub pod_namespace: String,
    /// Address of this pod, by which other replicas reach its metrics API.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<std::net::IpAddr>,
    /// Where ClusterTriggerAuthentications find their Secrets; the pod's own namespace unless given.
    #[arg(long, env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: Option<String>,
    /// Read Secrets in the cluster object namespace only.
    #[arg(long, env = "KEDA_RESTRICT_SECRET_ACCESS", action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = false)]
    pub restrict_secret_access: bool,
    /// Deadline of a read whose trigger sets none, in milliseconds.
    #[arg(long, env = "KEDA_HTTP_DEFAULT_TIMEOUT", default_value_t = 3000)]
    pub http_default_timeout: u64,
    /// Open a new connection for each read.
    #[arg(long, env = "KEDA_HTTP_DISABLE_KEEP_ALIVE", action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = false)]
    pub http_disable_keep_alive: bool,
    /// Lowest TLS version for reads: TLS12 or TLS13.
    #[arg(long, env = "KEDA_HTTP_MIN_TLS_VERSION", default_value = "TLS12")]
    pub http_min_tls_version: MinTlsVersion,
    /// ScaledObjects brought in order at once.
    #[arg(long, env = "KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES", default_value_t = 16)]
    pub max_reconciles: usize,
    /// How long others leave an unrenewed lease alone.
    #[arg(
        long,
        env = "KEDA_OPERATOR_LEADER_ELECTION_LEASE_DURATION",
        default_value = "15s"
    )]
    pub lease_duration: Period,
    /// How long this process counts itself leader without a renewal.
    #[arg(
        long,
        env = "KEDA_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE",
        default_value = "10s"
    )]
    pub lease_renew_deadline: Period,
    /// Time between renewals.
    #[arg(
        long,
        env = "KEDA_OPERATOR_LEADER_ELECTION_RETRY_PERIOD",
        default_value = "2s"
    )]
    pub lease_retry_period: Period,
}

/// A network, or one address.
fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let text = text.trim();
    let one = text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    one.or_else(|_| text.parse()).map_err(|_| {
        format!("{text:?} is no network: forms such as 10.0.0.0/8, 10.0.0.1 and fd00::/8 are accepted")
    })
}

/// `host:port`, where an empty host is every address of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress(pub SocketAddr);

impl FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = if text.starts_with(':') {
            format!("0.0.0.0{text}")
        } else {
            text.to_owned()
        };
        full.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is no address: \":port\" and \"ip:port\" are accepted"))
    }
}

/// A time span as Go writes it: `15s`, `1m30s`, `500ms`, `8760h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted = "forms such as 15s, 1m30s, 500ms and 8760h are accepted";
        match TimeSpan::parse(text) {
            Ok(span) if !span.duration().is_zero() => Ok(Self(span.duration())),
            _ => Err(format!("{text:?} is no time span: {accepted}")),
        }
    }
}

/// The lowest TLS version for reads, as `KEDA_HTTP_MIN_TLS_VERSION` names it. Versions before TLS 1.2 are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinTlsVersion(pub MinTls);

impl FromStr for MinTlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "TLS12" => Ok(Self(MinTls::Tls12)),
            "TLS13" => Ok(Self(MinTls::Tls13)),
            _ => Err(format!(
                "{text:?} is no lowest TLS version: TLS12 and TLS13 are accepted"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_gos() {
        for (text, seconds) in [
            ("15s", 15.0),
            ("1m30s", 90.0),
            ("500ms", 0.5),
            ("8760h", 31_536_000.0),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().0.as_secs_f64(), seconds, "{text}");
        }
        for bad in ["", "s", "1d", "-1s", "0s", "99999999999h"] {
            assert!(
                bad.parse::<Period>().unwrap_err().contains("are accepted"),
                "{bad}"
            );
        }
    }

    #[test]
    fn networks_are_one_address_or_many() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network(" ::1").unwrap().to_string(), "::1/128");
        assert!(network("example.org").unwrap_err().contains("are accepted"));
    }

    #[test]
    fn an_empty_host_is_every_address() {
        assert_eq!(
            ":8080".parse::<BindAddress>().unwrap().0.to_string(),
            "0.0.0.0:8080"
        );
        assert!("8080".parse::<BindAddress>().is_err());
    }
}
