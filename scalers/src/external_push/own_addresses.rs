//! Which `scalerAddress` means this very process.

/// The names under which the interceptors' own scaler is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddresses {
    service: String,
    namespace: String,
    aliases: Vec<String>,
}

impl OwnAddresses {
    /// The Service `service` in `namespace`, by each name that DNS knows it by, and further addresses, with or without port.
    #[must_use]
    pub fn new(service: impl Into<String>, namespace: impl Into<String>, aliases: Vec<String>) -> Self {
        Self {
            service: service.into(),
            namespace: namespace.into(),
            aliases,
        }
    }

    /// Whether an address, with or without port, is one of them. Case does not count, nor does a dot at its end.
    #[must_use]
    pub fn contains(&self, address: &str) -> bool {
        let address = address.trim().trim_start_matches("dns:///");
        let host = without_port(address);
        let is_alias = |alias: &String| {
            [address, host]
                .iter()
                .any(|name| alias.trim().eq_ignore_ascii_case(name))
        };
        !host.is_empty() && (self.is_service(host) || self.aliases.iter().any(is_alias))
    }

    fn is_service(&self, host: &str) -> bool {
        let mut labels = host.trim_end_matches('.').split('.');
        let equal = |label: Option<&str>, expected: &str| {
            label.is_some_and(|label| label.eq_ignore_ascii_case(expected))
        };
        if !equal(labels.next(), &self.service) {
            return false;
        }
        match labels.next() {
            // Short: as seen from our own namespace, which is where KEDA resolves it.
            None => true,
            Some(namespace) if !namespace.eq_ignore_ascii_case(&self.namespace) => false,
            Some(_) => match labels.next() {
                None => true,
                // What follows is the cluster's domain, whatever that is.
                svc => equal(svc, "svc"),
            },
        }
    }
}

fn without_port(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_service_and_the_aliases() {
        let own = OwnAddresses::new(
            "keda-add-ons-http-external-scaler",
            "keda",
            vec!["scaler.example.com:9090".into(), "old-scaler".into()],
        );
        for address in [
            "keda-add-ons-http-external-scaler",
            "keda-add-ons-http-external-scaler:9090",
            "keda-add-ons-http-external-scaler.keda:9090",
            "keda-add-ons-http-external-scaler.keda.svc:9090",
            "Keda-Add-Ons-Http-External-Scaler.keda.svc.cluster.local.:9090",
            "dns:///keda-add-ons-http-external-scaler.keda.svc.corp.example:9090",
            "scaler.example.com:9090",
            "old-scaler:1234",
        ] {
            assert!(own.contains(address), "{address}");
        }
        for address in [
            "",
            ":9090",
            "keda-add-ons-http-external-scaler.other:9090",
            "keda-add-ons-http-external-scaler.keda.example.com",
            "keda-add-ons-http-external-scaler-2.keda:9090",
            "scaler.example.com:9091",
            "[::1]:9090",
        ] {
            assert!(!own.contains(address), "{address}");
        }
    }
}
