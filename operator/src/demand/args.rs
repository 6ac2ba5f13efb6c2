//! What the operator is told about interceptors.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use crate::args::BindAddress;

/// Where interceptors report, and which they are.
#[derive(Args, Clone, Debug)]
pub struct DemandArgs {
    /// Where interceptors report their demand; without it, none can.
    #[arg(long)]
    pub demand_bind_address: Option<BindAddress>,
    /// ConfigMap in the operator's namespace that is made to hold the authorities of the operator's certificate, for
    /// interceptors to trust.
    #[arg(long, default_value = "kedaorg-ca")]
    pub ca_config_map_name: String,
    /// Where KEDA's protocol for external scalers is served, in the clear; without it, it is not.
    #[arg(long)]
    pub external_scaler_bind_address: Option<BindAddress>,
    /// Label selector of the interceptors' pods, in the operator's namespace.
    #[arg(long, default_value = "app.kubernetes.io/component=interceptor")]
    pub interceptor_selector: String,
    /// Service account that interceptors run as, in the operator's namespace; may be given more than once.
    #[arg(
        long = "interceptor-service-account",
        default_value = "keda-add-ons-http-interceptor"
    )]
    pub interceptor_service_accounts: Vec<String>,
    /// Name of the Service that ScaledObjects give as scalerAddress, in the operator's namespace.
    #[arg(long, default_value = "keda-add-ons-http-external-scaler")]
    pub external_scaler_service: String,
    /// Further addresses that ScaledObjects may give instead, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub external_scaler_aliases: Vec<String>,
    /// Routes of several namespaces may share a host, as the interceptors are told by the flag of this name.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub hosts_across_namespaces: bool,
}
