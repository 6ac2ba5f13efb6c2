//! Fixtures of the unit tests.

use std::sync::Arc;
use std::time::Duration;

use crate::clients::{Clients, ClientsConfig, EgressRules};
use crate::connect::{AuthParams, Connect, TriggerParams};
use crate::sensitive::Sensitive;

/// Parameters of a trigger with these metadata and authentication parameters.
pub(crate) fn params(trigger_type: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerParams {
    TriggerParams {
        trigger_type: trigger_type.to_owned(),
        metadata: metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        auth: AuthParams {
            params: auth
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Sensitive::new(*v)))
                .collect(),
            ..AuthParams::default()
        },
        ..TriggerParams::default()
    }
}

/// The surroundings of a scaler in no cluster.
pub(crate) fn context(params: TriggerParams) -> Connect {
    Connect {
        namespace: "default".to_owned(),
        default_deadline: Duration::from_secs(3),
        clients: Arc::new(Clients::new(ClientsConfig {
            egress: EgressRules::with_loopback(),
            ..ClientsConfig::default()
        })),
        endpoints: None,
        pods: None,
        demand: None,
        params,
    }
}
