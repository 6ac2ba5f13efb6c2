//! One kind of object, and what the API server does with it.

use anyhow::{Context as _, Result, bail, ensure};
use dormouse_api::crd;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::DEADLINE;
use crate::schema::{self, Place, Violation, fields};

const SCALED_OBJECT: &str = include_str!("../../corpus/scaled_object.yaml");
const TRIGGER_AUTHENTICATION: &str = include_str!("../../corpus/trigger_authentication.yaml");
const INTERCEPTOR_ROUTE: &str = include_str!("../../corpus/interceptor_route.yaml");

/// Requests under way at once.
const CONCURRENCY: usize = 8;

pub(crate) const KINDS: [&str; 4] = [
    "ScaledObject",
    "TriggerAuthentication",
    "ClusterTriggerAuthentication",
    "InterceptorRoute",
];

/// Objects of a kind that together have every field of its schema: the first has all but those that another field
/// excludes.
pub(crate) fn corpus(kind: &str) -> Vec<Value> {
    let text = match kind {
        "ScaledObject" => SCALED_OBJECT,
        "InterceptorRoute" => INTERCEPTOR_ROUTE,
        _ => TRIGGER_AUTHENTICATION,
    };
    let mut object: Value = serde_saphyr::from_str(text).expect("YAML");
    object["kind"] = json!(kind);
    if kind != "InterceptorRoute" {
        return vec![object];
    }
    let mut other = object.clone();
    let spec = &mut other["spec"];
    spec["target"] = json!({"service": "shop", "port": 80});
    spec["coldStart"]["fallback"]["service"] = json!({"name": "sorry", "portName": "http"});
    spec["coldStart"]["placeholder"]["response"] = json!({"body": "later"});
    vec![object, other]
}

/// A kind, and the objects of it that have every field; the first is in the cluster, and goes when this goes.
pub(crate) struct Kind {
    client: Client,
    api: Api<DynamicObject>,
    resource: ApiResource,
    corpus: Vec<Value>,
}

impl Kind {
    pub(crate) fn new(client: &Client, kind: &str, namespace: &str) -> Self {
        let manifest = crd::all()
            .into_iter()
            .find(|crd| crd.spec.names.kind == kind)
            .expect("a manifest");
        let (group, version) = (&manifest.spec.group, &manifest.spec.versions[0].name);
        let resource = ApiResource {
            group: group.clone(),
            version: version.clone(),
            api_version: format!("{group}/{version}"),
            kind: kind.to_owned(),
            plural: manifest.spec.names.plural.clone(),
        };
        let mut corpus = corpus(kind);
        for object in &mut corpus {
            object["metadata"]["name"] = json!(namespace);
        }
        let api = if manifest.spec.scope == "Namespaced" {
            Api::namespaced_with(client.clone(), namespace, &resource)
        } else {
            Api::all_with(client.clone(), &resource)
        };
        Self {
            client: client.clone(),
            api,
            resource,
            corpus,
        }
    }

    fn name(&self) -> &str {
        &self.resource.kind
    }

    fn object(&self) -> &str {
        self.first()["metadata"]["name"].as_str().expect("name")
    }

    fn first(&self) -> &Value {
        &self.corpus[0]
    }

    async fn create(&self, object: &Value, dry_run: bool) -> Result<Value> {
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let parameters = PostParams {
            dry_run,
            ..Default::default()
        };
        answer(self.api.create(&parameters, &object)).await
    }

    /// What creating the object would make, under a name of its own.
    async fn rehearse(&self, object: &Value) -> Result<Value> {
        let name = json!(format!("{}-rehearsed", self.object()));
        let renamed = Place::of(&["metadata", "name"]).replaced(object, Some(name));
        self.create(&renamed, true).await
    }

    async fn write_status(&self, status: &Value, dry_run: bool) -> Result<Value> {
        let parameters = PatchParams {
            dry_run,
            ..Default::default()
        };
        let patch = Patch::Merge(json!({ "status": status }));
        answer(self.api.patch_status(self.object(), &parameters, &patch)).await
    }

    pub(crate) async fn every_field_survives(&self) -> Result<()> {
        let created = self.create(self.first(), false).await?;
        let written = self.write_status(&self.first()["status"], false).await?;
        ensure!(
            created.get("status").is_none(),
            "a status was taken from a write to the object: {created}"
        );
        for (index, object) in self.corpus.iter().enumerate() {
            let created = match index {
                0 => created.clone(),
                _ => self.rehearse(object).await?,
            };
            let places = fields(self.name())
                .into_iter()
                .flat_map(|field| field.places(object));
            let differing = places.filter(|place| {
                let back = if place.is_status() { &written } else { &created };
                place.get(back) != place.get(object)
            });
            let differing: Vec<_> = differing.map(|place| place.to_string()).collect();
            ensure!(
                differing.is_empty(),
                "{} came back otherwise than sent: {differing:#?}",
                self.name()
            );
        }
        Ok(())
    }

    /// The last values that the limits allow are taken.
    pub(crate) async fn limits_are_allowed(&self) -> Result<()> {
        let (min, max) = (
            Place::of(&["spec", "minReplicaCount"]),
            Place::of(&["spec", "maxReplicaCount"]),
        );
        let mut allowed = Vec::new();
        if self.name() == "ScaledObject" {
            allowed.push(min.replaced(self.first(), Some(json!(12))));
            allowed.push(max.replaced(&min.replaced(self.first(), Some(json!(100))), None));
        }
        // Out of the way of the rule that ties it to maxReplicaCount.
        let bases = if allowed.is_empty() {
            self.corpus.clone()
        } else {
            vec![min.replaced(self.first(), None)]
        };
        for (field, base) in fields(self.name())
            .iter()
            .flat_map(|field| bases.iter().map(move |base| (field, base)))
        {
            for place in field.places(base) {
                let values = field.allowed().into_iter();
                allowed.extend(values.map(|value| place.replaced(base, Some(value))));
            }
        }
        ensure!(allowed.len() > 15, "only {} objects", allowed.len());
        for object in &allowed {
            self.rehearse(object)
                .await
                .with_context(|| format!("{object:#}"))?;
        }
        Ok(())
    }

    pub(crate) async fn defaults_are_filled_in(&self) -> Result<()> {
        for field in fields(self.name()) {
            let Some(default) = field.default() else { continue };
            for place in field.places(self.first()) {
                let created = self.rehearse(&place.replaced(self.first(), None)).await?;
                ensure!(
                    *place.get(&created) == default,
                    "{place} is {}",
                    place.get(&created)
                );
            }
        }
        Ok(())
    }

    /// How many violations there are, each refused with a message that names the field.
    pub(crate) async fn violations_are_refused(&self) -> Result<usize> {
        let mut violations = self.broken_rules();
        for field in fields(self.name()) {
            violations.extend(field.violations(&self.corpus));
        }
        let complaints: Vec<String> = stream::iter(&violations)
            .map(|violation| self.refusal(violation))
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(async |complaint| Ok(complaint))
            .try_collect()
            .await?;
        let (wrong, all) = (complaints.len(), violations.len());
        ensure!(
            wrong == 0,
            "{wrong} of {all} violations of {}:\n{}",
            self.name(),
            complaints.join("\n")
        );
        Ok(all)
    }

    /// The table that `kubectl get` prints. It is asked for with a write of the status: an operator that is installed
    /// beside the test says in the status what it thinks of the object.
    pub(crate) async fn columns_show(&self, state: &str) -> Result<()> {
        let path = format!("{}/{}/status", self.api.resource_url(), self.object());
        let request = http::Request::patch(path)
            .header(
                http::header::ACCEPT,
                "application/json;as=Table;v=v1;g=meta.k8s.io",
            )
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(serde_json::to_vec(&json!({ "status": self.first()["status"] }))?)?;
        let table: Value = timeout(DEADLINE, self.client.request(request)).await??;
        let columns = table["columnDefinitions"].as_array().context("columns")?;
        let shown: Vec<_> = columns
            .iter()
            .map(|column| json!([column["name"], column["priority"]]))
            .collect();
        let expected = schema::columns(self.name())
            .into_iter()
            .map(|(name, wide)| json!([name, wide]));
        ensure!(
            shown[0] == json!(["Name", 0]) && shown[1..].iter().cloned().eq(expected),
            "{shown:?}"
        );

        let cells = table["rows"][0]["cells"].as_array().context("a row")?;
        let cells: Vec<_> = cells[1..]
            .iter()
            .map(|cell| cell.as_str().map_or(cell.to_string(), str::to_owned))
            .collect();
        ensure!(cells.join(" ").starts_with(state), "{cells:?}");
        Ok(())
    }

    /// Violations of the rules that span fields.
    fn broken_rules(&self) -> Vec<Violation> {
        match self.name() {
            "ScaledObject" => self.broken_bounds(),
            "InterceptorRoute" => self.broken_choices(),
            _ => vec![],
        }
    }

    /// Violations of the rules of an InterceptorRoute about what may be left out, and what excludes what.
    fn broken_choices(&self) -> Vec<Violation> {
        let both_ports = json!({"service": "a", "name": "a", "port": 1, "portName": "a"});
        let no_port = json!({"service": "a", "name": "a"});
        let both_bodies = json!({"body": "", "bodyFromConfigMap": {"name": "a"}});
        let cold_start = ["spec", "coldStart"];
        let fallback = [&cold_start[..], &["fallback", "service"]].concat();
        let placeholder = [&cold_start[..], &["placeholder", "response"]].concat();
        let broken = [
            (&["spec", "target"][..], both_ports.clone()),
            (&["spec", "target"], no_port.clone()),
            (&["spec", "scalingMetric"], json!({})),
            (&cold_start, json!({})),
            (
                &cold_start,
                json!({"maxPendingRequests": 1, "overflow": "Placeholder"}),
            ),
            (&fallback, both_ports),
            (&fallback, no_port),
            (&placeholder, both_bodies),
        ];
        let violation = |(keys, value): (&[&str], Value)| {
            let field = Place::of(keys);
            Violation {
                rule: format!("{field} is {value}"),
                object: field.replaced(self.first(), Some(value)),
                field,
            }
        };
        broken.map(violation).into()
    }

    /// Violations of the rule that ties the bounds of a ScaledObject together.
    fn broken_bounds(&self) -> Vec<Violation> {
        let [min, max] =
            [["spec", "minReplicaCount"], ["spec", "maxReplicaCount"]].map(|keys| Place::of(&keys));
        let above_max = min.replaced(self.first(), Some(json!(13)));
        let above_default = max.replaced(&min.replaced(self.first(), Some(json!(101))), None);
        let broken = [
            ("min above max", above_max),
            ("min above the default of max", above_default),
        ];
        let violation = |(rule, object)| Violation {
            rule: String::from(rule),
            field: Place::of(&["spec"]),
            object,
        };
        broken.map(violation).into()
    }

    /// What is wrong with the answer to a violation; nothing, if it is refused and the refusal names the field.
    async fn refusal(&self, violation: &Violation) -> Result<Option<String>> {
        let Violation { rule, field, object } = violation;
        let answer = if field.is_status() {
            self.write_status(&object["status"], true).await
        } else {
            self.rehearse(object).await
        };
        let Err(error) = answer else {
            return Ok(Some(format!("{rule}: taken")));
        };
        match error.downcast::<kube::Error>()? {
            kube::Error::Api(status) if status.is_invalid() => {
                let named = field.names().iter().any(|name| status.message.contains(name));
                Ok((!named).then(|| format!("{rule}: {field} is not named in: {}", status.message)))
            }
            other => bail!("{rule}: {other}"),
        }
    }
}

async fn answer(request: impl Future<Output = kube::Result<DynamicObject>>) -> Result<Value> {
    let object = timeout(DEADLINE, request).await??;
    Ok(serde_json::to_value(object)?)
}

impl Drop for Kind {
    fn drop(&mut self) {
        let parameters = DeleteParams::default();
        let delete = self.api.delete(self.object(), &parameters);
        let deleted = tokio::task::block_in_place(|| Handle::current().block_on(timeout(DEADLINE, delete)));
        if !matches!(deleted, Ok(Ok(_))) {
            eprintln!("{} {} may stay: {deleted:?}", self.name(), self.object());
        }
    }
}
