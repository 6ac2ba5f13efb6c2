//! One value from all endpoints of a Service.

use std::sync::Arc;

use futures::StreamExt;
use url::Url;

use super::{Aggregation, Source};
use crate::connect::ServiceEndpoints;
use crate::error::{ReadError, ReadErrorKind};

const AT_ONCE: usize = 5;

pub(super) struct Aggregate {
    endpoints: Arc<dyn ServiceEndpoints>,
    namespace: String,
    service: String,
    aggregation: Aggregation,
}

impl Aggregate {
    pub(super) fn new(
        endpoints: Arc<dyn ServiceEndpoints>,
        namespace: String,
        service: String,
        aggregation: Aggregation,
    ) -> Self {
        Self {
            endpoints,
            namespace,
            service,
            aggregation,
        }
    }

    /// Which Service is asked, and what is made of its endpoints' values.
    pub(super) fn place(&self) -> (&str, &str, Aggregation) {
        (&self.namespace, &self.service, self.aggregation)
    }

    pub(super) async fn read(&self, source: &Source) -> Result<f64, ReadError> {
        let ready = self.endpoints.ready(&self.namespace, &self.service).await?;
        let port = source.url.port_or_known_default().unwrap_or_default();
        let urls: Vec<Url> = ready
            .iter()
            .filter(|endpoint| endpoint.ports.contains(&port))
            .filter_map(|endpoint| at(&source.url, &endpoint.address))
            .collect();
        let asked = urls.len();
        let results: Vec<Result<f64, ReadError>> = futures::stream::iter(urls)
            .map(|url| source.read(url))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut values, mut last) = (Vec::with_capacity(asked), None);
        for result in results {
            match result {
                Ok(value) => values.push(value),
                Err(error) => last = Some(error),
            }
        }
        let place = format!("Service {}/{}", self.namespace, self.service);
        match (values.is_empty(), last) {
            (true, None) => {
                let message = format!("{place} has no ready endpoint with port {port}");
                Err(ReadError::new(ReadErrorKind::NotFound, message))
            }
            (true, Some(error)) => Err(ReadError::new(
                error.kind,
                format!("all {asked} endpoints of {place} failed, the last one with: {error}"),
            )),
            (false, last) => {
                if let Some(error) = last {
                    tracing::debug!(%place, left_out = asked - values.len(), asked, %error, "endpoints left out");
                }
                Ok(self.aggregation.of(&values))
            }
        }
    }
}

/// `url` with its host replaced by an IP address.
fn at(url: &Url, address: &str) -> Option<Url> {
    let mut url = url.clone();
    url.set_ip_host(address.parse().ok()?).ok()?;
    Some(url)
}

impl Aggregation {
    #[expect(clippy::cast_precision_loss, reason = "a Service has few endpoints")]
    fn of(self, values: &[f64]) -> f64 {
        let sum = || values.iter().sum::<f64>();
        match self {
            Self::Average => sum() / values.len() as f64,
            Self::Sum => sum(),
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_aggregation() {
        let values = [1.0, 2.5, 4.0];
        for (aggregation, expected) in [
            (Aggregation::Average, 2.5),
            (Aggregation::Sum, 7.5),
            (Aggregation::Max, 4.0),
            (Aggregation::Min, 1.0),
        ] {
            assert!(
                (aggregation.of(&values) - expected).abs() < f64::EPSILON,
                "{aggregation:?}"
            );
        }
    }

    #[test]
    fn addresses_replace_the_host_alone() {
        let url = Url::parse("http://user:pw@svc.ns:8080/a?b=c").unwrap();
        assert_eq!(
            at(&url, "10.0.0.1").unwrap().as_str(),
            "http://user:pw@10.0.0.1:8080/a?b=c"
        );
        assert_eq!(
            at(&url, "fd00::1").unwrap().as_str(),
            "http://user:pw@[fd00::1]:8080/a?b=c"
        );
        assert_eq!(at(&url, "evil.example"), None);
    }
}
