//! What the interceptor is told about TLS. The names in the environment are the add-on's, the later and the earlier ones.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// TLS of the interceptor.
#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    /// Take requests over TLS too.
    #[arg(long, env = "KEDA_HTTP_PROXY_TLS_ENABLED", action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub proxy_tls_enabled: bool,
    /// Port for them.
    #[arg(long, env = "KEDA_HTTP_PROXY_TLS_PORT", default_value_t = 8443)]
    pub proxy_tls_port: u16,
    /// Certificate for clients that ask for no name, or for one that no other certificate has.
    #[arg(long, env = "KEDA_HTTP_PROXY_TLS_CERT_PATH", default_value = "/certs/tls.crt")]
    pub proxy_tls_cert_path: PathBuf,
    /// Its key.
    #[arg(long, env = "KEDA_HTTP_PROXY_TLS_KEY_PATH", default_value = "/certs/tls.key")]
    pub proxy_tls_key_path: PathBuf,
    /// Directories with further certificates, separated by commas: pairs of x.crt and x.key, or of x.pem and x-key.pem.
    #[arg(long, env = "KEDA_HTTP_PROXY_TLS_CERT_STORE_PATHS", value_delimiter = ',')]
    pub proxy_tls_cert_store_paths: Vec<PathBuf>,
    /// Directories with authorities whose certificates pods may have, besides the system's; separated by commas.
    #[arg(long, env = "KEDA_HTTP_TLS_CA_DIRS", value_delimiter = ',')]
    pub tls_ca_dirs: Vec<PathBuf>,
    /// Take any certificate of a pod.
    #[arg(long, env = "KEDA_HTTP_TLS_SKIP_VERIFY", action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub tls_skip_verify: bool,
    /// The same under its former name.
    #[arg(long, env = "KEDA_HTTP_PROXY_TLS_SKIP_VERIFY", hide = true, action = ArgAction::Set, value_parser = BoolishValueParser::new(), default_value_t = false)]
    pub proxy_tls_skip_verify: bool,
    /// Oldest version of TLS: 1.2 or 1.3.
    #[arg(long, env = "KEDA_HTTP_TLS_MIN_VERSION", default_value = "")]
    pub tls_min_version: String,
    /// The same under its former name.
    #[arg(
        long,
        env = "KEDA_HTTP_PROXY_TLS_MIN_VERSION",
        hide = true,
        default_value = ""
    )]
    pub proxy_tls_min_version: String,
    /// Newest version of TLS: 1.2 or 1.3.
    #[arg(long, env = "KEDA_HTTP_TLS_MAX_VERSION", default_value = "")]
    pub tls_max_version: String,
    /// The same under its former name.
    #[arg(
        long,
        env = "KEDA_HTTP_PROXY_TLS_MAX_VERSION",
        hide = true,
        default_value = ""
    )]
    pub proxy_tls_max_version: String,
    /// Cipher suites, separated by commas; all that are sound unless given.
    #[arg(long, env = "KEDA_HTTP_TLS_CIPHER_SUITES", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// The same under its former name.
    #[arg(
        long,
        env = "KEDA_HTTP_PROXY_TLS_CIPHER_SUITES",
        hide = true,
        value_delimiter = ','
    )]
    pub proxy_tls_cipher_suites: Vec<String>,
    /// Groups for the exchange of keys, the best first, separated by commas; all unless given.
    #[arg(long, env = "KEDA_HTTP_TLS_CURVE_PREFERENCES", value_delimiter = ',')]
    pub tls_curve_preferences: Vec<String>,
    /// The same under its former name.
    #[arg(
        long,
        env = "KEDA_HTTP_PROXY_TLS_CURVE_PREFERENCES",
        hide = true,
        value_delimiter = ','
    )]
    pub proxy_tls_curve_preferences: Vec<String>,
}
