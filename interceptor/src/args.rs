//! What the interceptor is told on its command line and by its environment. Each flag has the name of its environment
//! variable, which is the add-on's; names that the add-on had before still work.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, value_parser};
use dormouse_core::routes::PathPrefix;
use dormouse_kubernetes::Namespaces;
use dormouse_proxy::NoWake;
use dormouse_runtime::telemetry::{Encoder, LogLevel, TimeEncoding};
use dormouse_translate::duration;
use ipnet::IpNet;

use crate::reporter::Access;
use crate::tls::TlsArgs;
use crate::traces::TraceArgs;

/// `dormouse interceptor`
#[derive(Args, Clone, Debug)]
pub struct InterceptorArgs {
    /// Port for requests.
    #[arg(long, env = "KEDA_HTTP_PROXY_PORT", default_value_t = 8080)]
    pub proxy_port: u16,
    /// Port for /queue, /livez and /readyz.
    #[arg(long, env = "KEDA_HTTP_ADMIN_PORT", default_value_t = 9090)]
    pub admin_port: u16,
    /// Port for /metrics.
    #[arg(long, env = "OTEL_PROM_EXPORTER_PORT", default_value_t = 2223)]
    pub metrics_port: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    pub bind: IpAddr,
    /// Threads that carry requests; one per processor unless given.
    #[arg(long)]
    pub data_threads: Option<NonZeroUsize>,
    /// Namespaces whose routes are served, separated by commas; empty for all.
    #[arg(long, env = "KEDA_HTTP_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: Namespaces,
    /// Let routes claim a host that a route of another namespace claimed first.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub hosts_across_namespaces: bool,

    /// How long a request waits for a ready pod; 0s for no bound but --max-hold.
    #[arg(long, env = "KEDA_HTTP_READINESS_TIMEOUT", default_value = "0s", value_parser = period)]
    pub readiness_timeout: Duration,
    /// The same under its former name, which wins where it is set.
    #[arg(long, env = "KEDA_CONDITION_WAIT_TIMEOUT", hide = true, value_parser = period)]
    pub condition_wait_timeout: Option<Duration>,
    /// How long a whole request may take; 0s for no bound.
    #[arg(long, env = "KEDA_HTTP_REQUEST_TIMEOUT", default_value = "0s", value_parser = period)]
    pub request_timeout: Duration,
    /// How long a pod may take to begin its response; 0s for no bound.
    #[arg(long, env = "KEDA_HTTP_RESPONSE_HEADER_TIMEOUT", default_value = "300s", value_parser = period)]
    pub response_header_timeout: Duration,
    /// The same under its former name, which wins where it is set.
    #[arg(long, env = "KEDA_RESPONSE_HEADER_TIMEOUT", hide = true, value_parser = period)]
    pub former_response_header_timeout: Option<Duration>,
    /// One attempt to connect to a pod.
    #[arg(long, env = "KEDA_HTTP_CONNECT_TIMEOUT", default_value = "500ms", value_parser = some_period)]
    pub connect_timeout: Duration,
    /// Ends the wait for a ready pod where nothing else does.
    #[arg(long, env = "DORMOUSE_MAX_HOLD", default_value = "15m", value_parser = some_period)]
    pub max_hold: Duration,

    /// How long a client may take for the head of a request.
    #[arg(long, env = "DORMOUSE_REQUEST_HEADER_TIMEOUT", default_value = "60s", value_parser = some_period)]
    pub request_header_timeout: Duration,
    /// How long a client's connection is kept between two requests.
    #[arg(long, env = "DORMOUSE_IDLE_TIMEOUT", default_value = "75s", value_parser = some_period)]
    pub idle_timeout: Duration,

    /// Requests of one route that wait, where the route sets no bound; 0 for the default of 10,000.
    #[arg(long, env = "KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS", default_value_t = 0)]
    pub cold_start_max_pending_requests: u32,
    /// Requests of all routes that wait.
    #[arg(long, env = "DORMOUSE_MAX_PENDING_REQUESTS", default_value_t = 20_000, value_parser = value_parser!(u32).range(1..))]
    pub max_pending_requests: u32,
    /// Connections of clients.
    #[arg(long, env = "DORMOUSE_MAX_CONNECTIONS", default_value_t = 32_768, value_parser = value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Say by X-KEDA-HTTP-Cold-Start whether a request had to wait.
    #[arg(long, env = "KEDA_HTTP_ENABLE_COLD_START_HEADER", action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = true)]
    pub enable_cold_start_header: bool,
    /// Write a line of JSON to standard output for each request.
    #[arg(long, env = "KEDA_HTTP_LOG_REQUESTS", action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub log_requests: bool,
    /// Send requests to pods; otherwise to the Service's own address, where meshes and session affinity want them.
    #[arg(long, env = "KEDA_HTTP_DIRECT_POD_ROUTING", action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub direct_pod_routing: bool,
    /// Idle connections that are kept to all pods, by each data thread; 0 for no bound but that of each pod.
    #[arg(long, env = "KEDA_HTTP_MAX_IDLE_CONNS", default_value_t = 1000)]
    pub max_idle_conns: usize,
    /// Idle connections that are kept to one pod, by each data thread; never more than 64, or twice the route's concurrency
    /// target where that is more.
    #[arg(long, env = "KEDA_HTTP_MAX_IDLE_CONNS_PER_HOST", default_value_t = 200)]
    pub max_idle_conns_per_host: usize,
    /// Networks whose X-Forwarded headers are believed, separated by commas; all unless given.
    #[arg(long, value_delimiter = ',')]
    pub trusted_proxies: Option<Vec<IpNet>>,

    /// Beginnings of the User-Agents whose requests wake nothing, separated by commas: such as health checks from outside.
    #[arg(long, env = "DORMOUSE_NO_WAKE_USER_AGENTS", value_delimiter = ',')]
    pub no_wake_user_agents: Vec<String>,
    /// Paths whose requests, and those below them, wake nothing, separated by commas.
    #[arg(long, env = "DORMOUSE_NO_WAKE_PATHS", value_delimiter = ',')]
    pub no_wake_paths: Vec<String>,

    /// How long requests are still taken after the process was told to stop.
    #[arg(long, env = "KEDA_HTTP_SHUTDOWN_DELAY", default_value = "5s", value_parser = period)]
    pub shutdown_delay: Duration,
    /// How long requests may then take to end; 0s for no bound but --max-hold.
    #[arg(long, env = "KEDA_HTTP_DRAIN_TIMEOUT", default_value = "30s", value_parser = period)]
    pub drain_timeout: Duration,

    /// Headless Service of the operators, as host:port.
    #[arg(long, default_value = "keda-operator-demand.keda.svc:9091", value_parser = host_and_port)]
    pub operators: String,
    /// Name that the operators' certificate bears; the host of --operators unless given.
    #[arg(long)]
    pub operators_name: Option<String>,
    /// File with the only authorities whose certificates operators may have; without it, they are spoken to in the clear.
    #[arg(long)]
    pub operators_ca_file: Option<PathBuf>,
    /// File with the token by which operators know this pod; without it, none is sent.
    #[arg(long)]
    pub operators_token_file: Option<PathBuf>,
    /// TLS towards clients and pods.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Traces of requests.
    #[command(flatten)]
    pub traces: TraceArgs,
    /// Log level: debug, info, error or a number.
    #[arg(long, default_value = "info")]
    pub zap_log_level: LogLevel,
    /// Log format: console or json.
    #[arg(long, default_value = "console")]
    pub zap_encoder: Encoder,
    /// Time format of the log.
    #[arg(long, default_value = "rfc3339")]
    pub zap_time_encoding: TimeEncoding,
}

impl InterceptorArgs {
    /// The data plane as it is asked for.
    #[must_use]
    pub fn proxy(&self) -> dormouse_proxy::Config {
        let mut config = dormouse_proxy::Config::new(SocketAddr::new(self.bind, self.proxy_port));
        if let Some(threads) = self.data_threads {
            config.threads = threads;
        }
        config.bounds.connections = usize::try_from(self.max_connections).unwrap_or(usize::MAX);
        config.bounds.pending = self.max_pending_requests;
        config.bounds.idle = Some(self.max_idle_conns)
            .filter(|max| *max > 0)
            .unwrap_or(usize::MAX);
        config.bounds.idle_per_endpoint = self.max_idle_conns_per_host;
        if self.cold_start_max_pending_requests > 0 {
            config.bounds.pending_per_route = self.cold_start_max_pending_requests;
        }
        let timeouts = &mut config.timeouts;
        let former = |former: Option<Duration>, own| former.filter(|former| !former.is_zero()).unwrap_or(own);
        timeouts.readiness = bound(former(self.condition_wait_timeout, self.readiness_timeout));
        timeouts.request = bound(self.request_timeout);
        timeouts.response_header = bound(former(
            self.former_response_header_timeout,
            self.response_header_timeout,
        ));
        timeouts.connect = self.connect_timeout;
        timeouts.max_hold = self.max_hold;
        timeouts.header = self.request_header_timeout;
        timeouts.keep_alive = self.idle_timeout;
        let agents = self.no_wake_user_agents.iter().filter(|agent| !agent.is_empty());
        let paths = self.no_wake_paths.iter().filter(|path| !path.is_empty());
        config.no_wake = NoWake::new(
            agents.cloned().collect(),
            paths.map(|path| PathPrefix::new(path)).collect(),
        );
        config.trusted_proxies = self.trusted_proxies.clone();
        config.cold_start_header = self.enable_cold_start_header;
        config
    }

    /// How long requests may take to end once no new ones are taken.
    #[must_use]
    pub fn drain(&self) -> Duration {
        bound(self.drain_timeout).unwrap_or(self.max_hold)
    }

    /// How operators are known, and how they know this process.
    pub(crate) fn access(&self) -> Access {
        let host = self.operators.rsplit_once(':').map(|(host, _)| host.to_owned());
        Access {
            name: self.operators_name.clone().or(host).unwrap_or_default(),
            ca_file: self.operators_ca_file.clone(),
            token_file: self.operators_token_file.clone(),
        }
    }
}

/// A value of a flag.
fn period(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok_or_else(|| format!("{text:?} is no duration: forms such as 500ms, 30s and 1m30s are accepted"))
}

/// A value of a flag that cannot do without one.
fn some_period(text: &str) -> Result<Duration, String> {
    match period(text)? {
        Duration::ZERO => Err(format!("{text:?} is no time at all: one above 0 is accepted")),
        time => Ok(time),
    }
}

/// A value of a flag.
fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err(format!(
            "{text:?} is no address: one such as operators.keda.svc:9091 is accepted"
        )),
    }
}

/// `0s` is no bound.
fn bound(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        interceptor: InterceptorArgs,
    }

    fn parse(flags: &[&str]) -> InterceptorArgs {
        let flags = ["dormouse"].iter().chain(flags);
        Cli::try_parse_from(flags).unwrap().interceptor
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_add_ons() {
        let args = parse(&[]);
        let config = args.proxy();
        assert_eq!(
            (args.proxy_port, args.admin_port, args.metrics_port),
            (8080, 9090, 2223)
        );
        assert_eq!(config.listen, "[::]:8080".parse().unwrap());
        let timeouts = config.timeouts;
        assert_eq!((timeouts.readiness, timeouts.request), (None, None));
        assert_eq!(timeouts.response_header, Some(Duration::from_secs(300)));
        assert_eq!(timeouts.connect, Duration::from_millis(500));
        assert_eq!(config.bounds.pending_per_route, 10_000);
        assert!(config.cold_start_header);
        assert_eq!(
            (args.shutdown_delay, args.drain()),
            (Duration::from_secs(5), Duration::from_secs(30))
        );
    }

    #[test]
    fn a_time_of_0_is_no_bound() {
        let args = parse(&[
            "--response-header-timeout=0s",
            "--drain-timeout=0s",
            "--max-hold=10m",
            "--readiness-timeout=1m30s",
        ]);
        let timeouts = args.proxy().timeouts;
        assert_eq!(timeouts.response_header, None);
        assert_eq!(timeouts.readiness, Some(Duration::from_secs(90)));
        assert_eq!(args.drain(), Duration::from_secs(600), "something has to end it");
        assert_eq!(parse(&["--max-idle-conns=0"]).proxy().bounds.idle, usize::MAX);
    }

    #[test]
    fn a_switch_is_spelled_as_in_go_too() {
        for (spelling, on) in [
            ("1", true),
            ("T", true),
            ("True", true),
            ("0", false),
            ("FALSE", false),
        ] {
            let args = parse(&[
                &format!("--enable-cold-start-header={spelling}"),
                &format!("--tls-skip-verify={spelling}"),
            ]);
            let read = (args.enable_cold_start_header, args.tls.tls_skip_verify);
            assert_eq!(read, (on, on), "{spelling}");
        }
    }

    #[test]
    fn a_former_name_wins_where_it_is_set() {
        let args = parse(&["--readiness-timeout=1s", "--condition-wait-timeout=2s"]);
        assert_eq!(args.proxy().timeouts.readiness, Some(Duration::from_secs(2)));
        let args = parse(&["--readiness-timeout=1s", "--condition-wait-timeout=0s"]);
        assert_eq!(args.proxy().timeouts.readiness, Some(Duration::from_secs(1)));
        let args = parse(&["--former-response-header-timeout=2s"]);
        assert_eq!(
            args.proxy().timeouts.response_header,
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn every_setting_of_the_add_on_that_there_is_has_its_name_in_the_environment() {
        let command = Cli::command();
        let names: Vec<_> = command
            .get_arguments()
            .filter_map(|flag| flag.get_env()?.to_str())
            .collect();
        for name in [
            "KEDA_CONDITION_WAIT_TIMEOUT",
            "KEDA_HTTP_ADMIN_PORT",
            "KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS",
            "KEDA_HTTP_CONNECT_TIMEOUT",
            "KEDA_HTTP_DIRECT_POD_ROUTING",
            "KEDA_HTTP_DRAIN_TIMEOUT",
            "KEDA_HTTP_ENABLE_COLD_START_HEADER",
            "KEDA_HTTP_LOG_REQUESTS",
            "KEDA_HTTP_MAX_IDLE_CONNS",
            "KEDA_HTTP_MAX_IDLE_CONNS_PER_HOST",
            "KEDA_HTTP_PROXY_PORT",
            "KEDA_HTTP_READINESS_TIMEOUT",
            "KEDA_HTTP_REQUEST_TIMEOUT",
            "KEDA_HTTP_RESPONSE_HEADER_TIMEOUT",
            "KEDA_HTTP_SHUTDOWN_DELAY",
            "KEDA_HTTP_WATCH_NAMESPACE",
            "KEDA_RESPONSE_HEADER_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TRACES_ENABLED",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_PROM_EXPORTER_PORT",
            "KEDA_HTTP_PROXY_TLS_ENABLED",
            "KEDA_HTTP_PROXY_TLS_PORT",
            "KEDA_HTTP_PROXY_TLS_CERT_PATH",
            "KEDA_HTTP_PROXY_TLS_KEY_PATH",
            "KEDA_HTTP_PROXY_TLS_CERT_STORE_PATHS",
            "KEDA_HTTP_PROXY_TLS_SKIP_VERIFY",
            "KEDA_HTTP_PROXY_TLS_MIN_VERSION",
            "KEDA_HTTP_PROXY_TLS_MAX_VERSION",
            "KEDA_HTTP_PROXY_TLS_CIPHER_SUITES",
            "KEDA_HTTP_PROXY_TLS_CURVE_PREFERENCES",
            "KEDA_HTTP_TLS_CA_DIRS",
            "KEDA_HTTP_TLS_SKIP_VERIFY",
            "KEDA_HTTP_TLS_MIN_VERSION",
            "KEDA_HTTP_TLS_MAX_VERSION",
            "KEDA_HTTP_TLS_CIPHER_SUITES",
            "KEDA_HTTP_TLS_CURVE_PREFERENCES",
            "DORMOUSE_IDLE_TIMEOUT",
            "DORMOUSE_MAX_CONNECTIONS",
            "DORMOUSE_MAX_HOLD",
            "DORMOUSE_MAX_PENDING_REQUESTS",
            "DORMOUSE_NO_WAKE_PATHS",
            "DORMOUSE_NO_WAKE_USER_AGENTS",
            "DORMOUSE_REQUEST_HEADER_TIMEOUT",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_accepted() {
        for (flag, accepted) in [
            ("--request-timeout=5", "500ms"),
            ("--operators=operators.keda.svc", "operators.keda.svc:9091"),
            ("--operators=:9091", "operators.keda.svc:9091"),
            ("--connect-timeout=0s", "above 0"),
            ("--max-hold=0s", "above 0"),
            ("--max-pending-requests=0", "1.."),
        ] {
            let error = Cli::try_parse_from(["dormouse", flag]).unwrap_err().to_string();
            assert!(error.contains(accepted), "{error}");
        }
    }

    #[test]
    fn operators_are_called_by_the_services_name_unless_told_otherwise() {
        assert_eq!(parse(&[]).access().name, "keda-operator-demand.keda.svc");
        let args = parse(&[
            "--operators=10.0.0.1:9091",
            "--operators-name=keda-operator.keda.svc",
        ]);
        assert_eq!(args.access().name, "keda-operator.keda.svc");
    }
}
