//! Everything else that a token can come from, seen at the far end: in the requests that the operator makes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::stage::{Leftover, podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, manifest};
use kube::api::{DeleteParams, DynamicObject};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::{authentication, config_map, first_use, nothing_failed, secret};

/// How every token here begins.
pub(crate) const CANARY: &str = "CANARY-TOKEN-";
/// More than are watched one by one.
const MANY: usize = 20;

fn token(round: usize) -> String {
    format!("{CANARY}{round}")
}

/// One object that shows its token to a server of its own; it is read every 30 s at most.
pub(crate) struct Bearer<'a> {
    stage: &'a Stage,
    name: String,
    upstream: Upstream,
    scaled: Scaled<'a>,
}

impl<'a> Bearer<'a> {
    async fn new(stage: &'a Stage, name: &str, reference: Value, target: Value) -> Result<Self> {
        let upstream = Upstream::start(Answer::value(1.0)).await?;
        let scaled = Scaled::watch(stage, name);
        stage.apply(target).await?;
        stage.apply(scaled_object(name, json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": 30, "maxReplicaCount": 1,
            "triggers": [{
                "type": "metrics-api", "authenticationRef": reference,
                "metadata": {"url": upstream.url("/"), "valueLocation": "value", "targetValue": "5", "authMode": "bearer"},
            }],
        })))
        .await?;
        Ok(Self {
            stage,
            name: name.to_owned(),
            upstream,
            scaled,
        })
    }

    async fn settle(stage: &'a Stage, name: &str, reference: Value, target: Value) -> Result<Self> {
        let this = Self::new(stage, name, reference, target).await?;
        this.scaled.is_ready().await?;
        this.shows(0, Instant::now()).await?;
        Ok(this)
    }

    /// A new token is shown in time after `changed`.
    async fn shows(&self, round: usize, changed: Instant) -> Result<()> {
        let wanted = format!("Bearer {}", token(round));
        let used = || {
            let seen = self.upstream.seen();
            let found = seen.iter().find(|seen| {
                seen.headers
                    .get("authorization")
                    .is_some_and(|header| header.as_bytes() == wanted.as_bytes())
            });
            found.map(|seen| seen.at)
        };
        let what = format!("token {round} of {}", self.name);
        let took = first_use(&what, changed, used).await?;
        eprintln!("{what}: in use after {took:?}");
        Ok(())
    }

    async fn nothing_failed(&self) -> Result<()> {
        nothing_failed(self.stage, &self.name).await
    }

    /// How often it was asked.
    fn reads(&self) -> usize {
        self.upstream.seen().len()
    }
}

fn from_secret(name: &str) -> Value {
    json!({"secretTargetRef": [{"parameter": "bearerToken", "name": name, "key": "token"}]})
}

fn keys(name: &str, round: usize) -> Value {
    secret(name, json!({"token": token(round)}))
}

pub(crate) async fn from_a_config_map(stage: &Stage) -> Result<()> {
    let name = "config-map";
    let map = |round| config_map(name, json!({"token": token(round)}));
    stage.apply(map(0)).await?;
    let spec = json!({"configMapTargetRef": [{"parameter": "bearerToken", "name": name, "key": "token"}]});
    stage
        .apply(authentication("TriggerAuthentication", name, spec))
        .await?;
    let bearer = Bearer::settle(stage, name, json!({"name": name}), podless(name, 1)).await?;
    let changed = Instant::now();
    stage.apply(map(1)).await?;
    bearer.shows(1, changed).await?;
    bearer.nothing_failed().await
}

pub(crate) async fn by_another_authentication(stage: &Stage) -> Result<()> {
    let name = "authentication";
    stage.apply(keys("authentication-0", 0)).await?;
    stage.apply(keys("authentication-1", 1)).await?;
    let of = |secret: &str| authentication("TriggerAuthentication", name, from_secret(secret));
    stage.apply(of("authentication-0")).await?;
    let bearer = Bearer::settle(stage, name, json!({"name": name}), podless(name, 1)).await?;
    let changed = Instant::now();
    stage.apply(of("authentication-1")).await?;
    bearer.shows(1, changed).await?;
    // The Secret that is referred to only now is followed as the first one was.
    let changed = Instant::now();
    stage.apply(keys("authentication-1", 2)).await?;
    bearer.shows(2, changed).await?;
    bearer.nothing_failed().await
}

pub(crate) async fn cluster_wide(stage: &Stage) -> Result<()> {
    let name = format!("{}-wide", stage.namespace.name());
    let home = stage.installation.namespace();
    let second = format!("{name}-second");
    let kind = "ClusterTriggerAuthentication";
    let _leftovers = [
        Leftover::new(&stage.cluster, "clustertriggerauthentication", &name, home),
        Leftover::new(&stage.cluster, "secret", &name, home),
        Leftover::new(&stage.cluster, "secret", &second, home),
    ];
    manifest::apply_value(&stage.cluster, home, keys(&name, 0)).await?;
    manifest::apply_value(&stage.cluster, home, keys(&second, 2)).await?;
    stage
        .apply(authentication(kind, &name, from_secret(&name)))
        .await?;
    let reference = json!({"name": name, "kind": kind});
    let bearer = Bearer::settle(stage, "cluster-wide", reference, podless("cluster-wide", 1)).await?;
    let changed = Instant::now();
    manifest::apply_value(&stage.cluster, home, keys(&name, 1)).await?;
    bearer.shows(1, changed).await?;
    let changed = Instant::now();
    stage
        .apply(authentication(kind, &name, from_secret(&second)))
        .await?;
    bearer.shows(2, changed).await?;
    bearer.nothing_failed().await
}

/// A variable from a Secret, whose content changes; then the pod template itself names another one, then a plain value.
pub(crate) async fn environment(stage: &Stage) -> Result<()> {
    let name = "environment";
    let map = |round| config_map("environment-2", json!({"token": token(round)}));
    stage.apply(keys("environment-0", 0)).await?;
    stage.apply(map(2)).await?;
    let target = |variable: Value| {
        let mut target = podless(name, 1);
        let container = &mut target["spec"]["template"]["spec"]["containers"][0];
        match variable {
            Value::Array(sources) => container["envFrom"] = json!(sources),
            variable => container["env"] = json!([variable]),
        }
        target
    };
    let of_secret =
        json!({"name": "token", "valueFrom": {"secretKeyRef": {"name": "environment-0", "key": "token"}}});
    let spec = json!({"env": [{"parameter": "bearerToken", "name": "token"}]});
    stage
        .apply(authentication("TriggerAuthentication", name, spec))
        .await?;
    let bearer = Bearer::settle(stage, name, json!({"name": name}), target(of_secret)).await?;
    let changed = Instant::now();
    stage.apply(keys("environment-0", 1)).await?;
    bearer.shows(1, changed).await?;
    let changed = Instant::now();
    stage
        .apply(target(json!([{"configMapRef": {"name": "environment-2"}}])))
        .await?;
    bearer.shows(2, changed).await?;
    let changed = Instant::now();
    stage.apply(map(3)).await?;
    bearer.shows(3, changed).await?;
    let changed = Instant::now();
    stage
        .apply(target(json!({"name": "token", "value": token(4)})))
        .await?;
    bearer.shows(4, changed).await?;
    bearer.nothing_failed().await
}

/// A Secret that is missing at first, and one that goes: what runs goes on, and the status says what is missing.
pub(crate) async fn appears(stage: &Stage) -> Result<()> {
    let name = "appears";
    stage
        .apply(authentication("TriggerAuthentication", name, from_secret(name)))
        .await?;
    let bearer = Bearer::new(stage, name, json!({"name": name}), podless(name, 1)).await?;
    let missing = "bearer token=<empty> is required when bearer auth is enabled";
    bearer.scaled.is_refused(missing).await?;
    // Longer than any retry's delay so far: only the Secret's arrival can be the reason.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let created = Instant::now();
    stage.apply(keys(name, 0)).await?;
    bearer.shows(0, created).await?;
    bearer.scaled.is_ready().await?;

    let secrets = ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
    let secrets: kube::Api<DynamicObject> = stage.dynamic(&secrets);
    secrets.delete(name, &DeleteParams::default()).await?;
    bearer.scaled.is_refused(missing).await?;
    let created = Instant::now();
    stage.apply(keys(name, 1)).await?;
    bearer.shows(1, created).await?;
    bearer.scaled.is_ready().await?;
    bearer.nothing_failed().await
}

/// More Secrets than are watched one by one; each change reaches the one object that it concerns.
pub(crate) async fn many(stage: &Stage) -> Result<()> {
    let name = |index: usize| format!("many-{index}");
    let settle = |index: usize| async move {
        let name = name(index);
        stage.apply(keys(&name, 0)).await?;
        stage
            .apply(authentication("TriggerAuthentication", &name, from_secret(&name)))
            .await?;
        Bearer::settle(stage, &name, json!({"name": name}), podless(&name, 1)).await
    };
    let all = futures::future::try_join_all((0..MANY).map(settle)).await?;
    let reads: Vec<usize> = all.iter().map(Bearer::reads).collect();
    let began = Instant::now();
    let changed = Instant::now();
    stage.apply(keys(&name(0), 1)).await?;
    all[0].shows(1, changed).await?;
    // Whoever is applied anew is read at once; the others are read when they are due, every 15 s at most.
    let due = 1 + usize::try_from(began.elapsed().as_secs() / 15)?;
    for (bearer, before) in all.iter().zip(reads).skip(1) {
        let more = bearer.reads() - before;
        ensure!(more <= due, "{} was read {more} times", bearer.name);
    }
    let changed = Instant::now();
    let rewrites = (0..MANY).map(|index| stage.apply(keys(&name(index), 2)));
    futures::future::try_join_all(rewrites).await?;
    futures::future::try_join_all(all.iter().map(|bearer| bearer.shows(2, changed))).await?;
    for bearer in &all {
        bearer.nothing_failed().await?;
    }
    Ok(())
}
