//! The custom resources on a real API server: every field survives, every limit is held.

#[path = "crds/kind.rs"]
mod kind;
#[path = "crds/manifests.rs"]
mod manifests;
#[path = "crds/schema.rs"]
mod schema;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::{Cluster, Namespace, until};
use kube::Client;
use serde_json::json;
use tokio::time::timeout;

use crate::kind::{KINDS, Kind, corpus};
use crate::manifests::Manifests;
use crate::schema::{Field, fields};

/// For each request.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn the_corpus_has_every_field() {
    for kind in KINDS {
        let (objects, fields) = (corpus(kind), fields(kind));
        assert!(fields.len() > 70, "{kind} has only {} lines", fields.len());
        let is_absent = |field: &&Field| objects.iter().all(|object| field.places(object).is_empty());
        let absent = fields.iter().filter(is_absent);
        let absent: Vec<_> = absent.map(|field| field.line).collect();
        assert!(absent.is_empty(), "{kind}: not in the corpus: {absent:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_keeps_every_field_and_holds_every_limit() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let _manifests = Manifests::apply(&cluster).await?;
    let namespace = Namespace::create(&cluster, "crds").await?;
    for name in KINDS {
        let kind = Kind::new(&cluster.client(), name, namespace.name());
        kind.every_field_survives().await?;
        kind.defaults_are_filled_in().await?;
        kind.limits_are_allowed().await?;
        let refused = kind.violations_are_refused().await?;
        println!("{name}: {refused} violations refused");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_the_state_and_explains_the_fields() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let _manifests = Manifests::apply(&cluster).await?;
    let namespace = Namespace::create(&cluster, "crds").await?;
    for (name, shown) in [
        (
            "ScaledObject",
            "apps/v1.StatefulSet orders 2 12 True True False False aws-sqs-queue,cron aws",
        ),
        (
            "TriggerAuthentication",
            "aws aws USERNAME https://vault.example.com:8200 orders,invoices reports",
        ),
        (
            "ClusterTriggerAuthentication",
            "aws aws USERNAME orders/credentials.json https://vault.example.com:8200 orders,invoices reports",
        ),
        ("InterceptorRoute", "shop False"),
    ] {
        let kind = Kind::new(&cluster.client(), name, namespace.name());
        kind.every_field_survives().await?;
        kind.columns_show(shown).await?;
    }
    until("discovery of the short names", DEADLINE, async || {
        short_names_are_known(&cluster.client()).await
    })
    .await?;
    for (field, told) in [
        ("so.spec.cooldownPeriod", "Seconds that pass"),
        ("ta.spec.secretTargetRef.key", "Key within the Secret"),
        ("cta.spec.oauth2.scopes", "Scopes to ask for"),
        ("interceptorroutes.spec.rules.hosts", "Hosts, one of which"),
    ] {
        until("the published schema", DEADLINE, async || {
            let explained = cluster.kubectl(&["explain", field]).await?;
            ensure!(explained.contains(told), "{explained}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn short_names_are_known(client: &Client) -> Result<()> {
    let list = timeout(DEADLINE, client.list_api_group_resources("keda.sh/v1alpha1")).await??;
    for (plural, short_names) in [
        ("scaledobjects", json!(["so"])),
        ("triggerauthentications", json!(["ta", "triggerauth"])),
        (
            "clustertriggerauthentications",
            json!(["cta", "clustertriggerauth"]),
        ),
    ] {
        let found = list
            .resources
            .iter()
            .find(|resource| resource.name == plural)
            .context(plural)?;
        ensure!(
            json!(found.short_names) == short_names,
            "{plural}: {:?}",
            found.short_names
        );
    }
    Ok(())
}
