//! An operator of its own, whose rights are taken away one by one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dormouse_tests::audit::AuditLog;
use dormouse_tests::install::UninstallGuard;
use dormouse_tests::{Cluster, Installation, Namespace, Upstream, until};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::audit::shows_refusal;
use crate::permission::{FOLLOWED, Right, Role};
use crate::tour::Tour;

/// Until a refusal must have been seen; most are seen at once.
const SEEN: Duration = Duration::from_secs(45);

/// The audit policy of the test cluster notes everything that service accounts of these namespaces do.
const HOME: &str = "dormouse-rbac";

/// What the name of an interceptor has after the operator's.
const INTERCEPTOR: &str = "-interceptor";

pub(crate) struct Lane {
    cluster: Cluster,
    number: usize,
    installation: Installation,
    watched: Namespace,
    _guard: UninstallGuard,
}

impl Lane {
    /// Installs an operator whose own namespace is not the one it watches: no right has two sources.
    pub(crate) async fn open(cluster: &Cluster, number: usize) -> Result<Self> {
        let watched = Namespace::create(cluster, &format!("rbac-{number}")).await?;
        let home = format!("{HOME}-{number}");
        let metrics = number == 0;
        let mut installation = Installation::within(&home)
            .set(format!("watchNamespace={}", watched.name()))
            .set(format!("watchLabelSelectorForTriggerauth=lane={number}"))
            .set("rbac.enabledCustomScaledRefKinds=false")
            .set("interceptor.enabled=true")
            .set(format!("interceptor.name=operator-{home}{INTERCEPTOR}"));
        if metrics {
            installation = installation.set("metricsServer.enabled=true");
        }
        if number == FOLLOWED {
            installation = installation.replicas(2);
        }
        let guard = installation.guard();
        installation.install(cluster).await?;
        Ok(Self {
            cluster: cluster.clone(),
            number,
            installation,
            watched,
            _guard: guard,
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.installation.name()
    }

    /// The name of whom a right is for: his ServiceAccount's, and his pods' label.
    fn holder(&self, right: &Right) -> String {
        let suffix = if right.role == INTERCEPTOR {
            INTERCEPTOR
        } else {
            ""
        };
        format!("{}{suffix}", self.installation.name())
    }

    /// The rights of all roles that the chart made for this operator.
    pub(crate) async fn rights(&self) -> Result<Vec<Right>> {
        let mut rights = Vec::new();
        for role in self.roles() {
            let object = self.get(&role).await?;
            rights.extend(Right::all_of(&self.label(&role), &object.data["rules"])?);
        }
        Ok(rights)
    }

    fn roles(&self) -> Vec<Role> {
        let name = self.installation.name();
        let namespaced = |namespace: &str, name: String| Role::Namespaced {
            namespace: namespace.to_owned(),
            name,
        };
        vec![
            Role::Cluster(name.to_owned()),
            Role::Cluster(format!("{name}-cluster")),
            Role::Cluster(format!("{name}{INTERCEPTOR}")),
            namespaced("default", format!("{name}-api-server")),
            namespaced(self.installation.namespace(), name.to_owned()),
        ]
    }

    /// What its name ends with after the operator's, and where it counts if that is not everywhere.
    fn label(&self, role: &Role) -> String {
        let suffix = |name: &str| {
            let suffix = name.strip_prefix(self.installation.name());
            suffix.unwrap_or(name).to_owned()
        };
        match role {
            Role::Cluster(name) => suffix(name),
            Role::Namespaced { name, .. } => format!("{} in one namespace", suffix(name)),
        }
    }

    fn api(&self, role: &Role) -> (Api<DynamicObject>, String) {
        let resource =
            |kind| ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
        match role {
            Role::Cluster(name) => (
                Api::all_with(self.cluster.client(), &resource("ClusterRole")),
                name.clone(),
            ),
            Role::Namespaced { namespace, name } => (
                Api::namespaced_with(self.cluster.client(), namespace, &resource("Role")),
                name.clone(),
            ),
        }
    }

    async fn get(&self, role: &Role) -> Result<DynamicObject> {
        let (api, name) = self.api(role);
        api.get(&name)
            .await
            .with_context(|| format!("reading role {name}"))
    }

    async fn set_rules(&self, role: &Role, rules: Value) -> Result<()> {
        let (api, name) = self.api(role);
        let patch = Patch::Merge(json!({"rules": rules}));
        api.patch(&name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("writing role {name}"))
            .map(drop)
    }

    /// Takes each of `share` away, shows that it is missed, and gives it back.
    pub(crate) async fn try_without_each(&self, share: Vec<Right>, upstream: &Upstream) -> Result<()> {
        let mut kept = Vec::new();
        for (number, right) in share.iter().enumerate() {
            let began = Instant::now();
            if self.is_missed(right, number, upstream).await? {
                eprintln!("{right}: missed after {:.1} s", began.elapsed().as_secs_f64());
            } else {
                kept.push(right.to_string());
            }
        }
        ensure!(
            kept.is_empty(),
            "nothing is refused to an operator that lacks these rights, so that they are too many: {kept:?}"
        );
        Ok(())
    }

    async fn is_missed(&self, right: &Right, number: usize, upstream: &Upstream) -> Result<bool> {
        let (role, all) = self.role_with(right).await?;
        let rest: Vec<Value> = all
            .iter()
            .filter(|other| *other != right)
            .map(Right::rule)
            .collect();
        ensure!(
            rest.len() + 1 == all.len(),
            "{right} is granted twice by one role"
        );
        let audit = AuditLog::from_now()?;
        self.set_rules(&role, json!(rest)).await?;
        let tour = Tour {
            cluster: &self.cluster,
            home: self.installation.namespace(),
            watched: &self.watched,
            lane: self.number,
            name: format!("t{number}"),
            upstream,
        };
        if right.is_asked_for_at_the_start() {
            tour.forget_what_was_kept(right).await?;
            self.restart(&self.holder(right)).await?;
        }
        let user = format!(
            "system:serviceaccount:{}:{}",
            self.installation.namespace(),
            self.holder(right)
        );
        let seen = until("the refusal", SEEN, async || {
            ensure!(shows_refusal(&audit, &user, right)?, "none yet");
            Ok(())
        });
        let missed = tokio::select! {
            seen = seen => seen.is_ok(),
            failed = tour.go_round() => match failed {
                Ok(never) => match never {},
                Err(error) => bail!("the tour without {right}: {error:#}"),
            },
        };
        let whole: Vec<Value> = all.iter().map(Right::rule).collect();
        self.set_rules(&role, json!(whole)).await?;
        tour.clean_up().await?;
        Ok(missed)
    }

    async fn role_with(&self, right: &Right) -> Result<(Role, Vec<Right>)> {
        for role in self.roles() {
            let object = self.get(&role).await?;
            let all = Right::all_of(&self.label(&role), &object.data["rules"])?;
            if all.contains(right) {
                return Ok((role, all));
            }
        }
        bail!("no role of {} grants {right}", self.name())
    }

    async fn restart(&self, holder: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), self.installation.namespace());
        let ours = ListParams::default().labels(&format!("app={holder}"));
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ours)
            .await
            .with_context(|| format!("restarting {holder}"))?;
        Ok(())
    }

    /// Waits until the operator is whole again, so that what it owns can be removed.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<()> {
        self.restart(self.installation.name()).await?;
        let rollout = format!("deployment/{}", self.installation.name());
        let timeout = format!("--timeout={}s", deadline.as_secs());
        let arguments = [
            "--namespace",
            self.installation.namespace(),
            "rollout",
            "status",
            &rollout,
            &timeout,
        ];
        self.cluster.kubectl(&arguments).await.map(drop)
    }
}
