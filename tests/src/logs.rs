//! What the operator wrote, and what must never be in it.

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::install::Installation;

/// Everything the operator's present pods have logged.
///
/// # Errors
/// When kubectl cannot read the logs.
pub async fn of_operator(cluster: &Cluster, installation: &Installation) -> Result<String> {
    let selector = format!("app={}", installation.name());
    let arguments = [
        "logs",
        "--namespace",
        installation.namespace(),
        "--selector",
        &selector,
    ];
    let rest = [
        "--all-containers",
        "--prefix",
        "--tail=-1",
        "--max-log-requests=20",
    ];
    cluster
        .kubectl(&[&arguments[..], &rest[..]].concat())
        .await
        .context("reading the operator's logs")
}

/// Fails if one of `canaries` can be read in the operator's logs, or in anything people and other programs see of
/// `namespace`: its Events, its ScaledObjects, its authentications' status, its HPAs, the operator's metrics.
///
/// # Errors
/// When one is found (the error names the place, not the canary), or a place cannot be read.
pub async fn assert_no_canary(
    cluster: &Cluster,
    installation: &Installation,
    namespace: &str,
    canaries: &[&str],
) -> Result<()> {
    let logs = of_operator(cluster, installation).await?;
    ensure!(
        !logs.trim().is_empty(),
        "the operator has logged nothing, so that nothing can be said of its logs"
    );
    let mut places = vec![("the operator's logs".to_owned(), logs)];
    for kinds in [
        "events.events.k8s.io",
        "scaledobjects",
        "triggerauthentications",
        "horizontalpodautoscalers",
    ] {
        let text = cluster
            .kubectl(&["get", kinds, "--namespace", namespace, "--output", "yaml"])
            .await?;
        places.push((kinds.to_owned(), text));
    }
    let metrics = format!(
        "/api/v1/namespaces/{}/services/{}:metrics/proxy/metrics",
        installation.namespace(),
        installation.name()
    );
    places.push((
        "the operator's metrics".to_owned(),
        cluster.kubectl(&["get", "--raw", &metrics]).await?,
    ));
    for (place, text) in places {
        for (index, canary) in canaries.iter().enumerate() {
            ensure!(!text.contains(canary), "canary {index} is in {place}");
        }
    }
    Ok(())
}

/// Fails if the API server refused the operator a right, by what the operator logged.
///
/// # Errors
/// When it did; with the first such line.
pub async fn assert_nothing_denied(cluster: &Cluster, installation: &Installation) -> Result<()> {
    let logs = of_operator(cluster, installation).await?;
    let user = format!("system:serviceaccount:{}:", installation.namespace());
    let denied = logs
        .lines()
        .find(|line| line.contains("is forbidden") && line.contains(&user));
    ensure!(
        denied.is_none(),
        "the chart grants too little: {}",
        denied.unwrap_or_default()
    );
    Ok(())
}
