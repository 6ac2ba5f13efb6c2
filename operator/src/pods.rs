//! How many pods of a namespace have certain labels, for triggers that follow another workload; and whether one is ready.
//!
//! Whole pods are several KiB each, and only their number and nodes are wanted. So the API server is asked for the table
//! that kubectl prints, without the objects behind it, from its cache, and with those that have ended left out by a field
//! selector: some hundred bytes for each pod.

use std::collections::HashSet;

use dormouse_kubernetes::{CallError, Calls, Priority};
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{CountPods, CountedBy, ReadError};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, HeaderValue};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;

const TABLE: HeaderValue = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Pods asked for at once, where the server splits its answers.
const PAGE: u32 = 5_000;
/// Pages read at most: no namespace is larger than the largest cluster.
const MOST_PAGES: usize = 40;
/// The column of wide tables that names a pod's node.
const NODE_COLUMN: &str = "Node";
/// What stands there while a pod has none.
const NO_NODE: &str = "<none>";

/// What says of a pod that it is ready, if it is.
pub(crate) fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Counts pods when asked.
pub struct PodCounter {
    /// Client of the API server.
    pub client: Client,
    /// Its bounded calls.
    pub calls: Calls,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    metadata: TableMeta,
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Option<Vec<Row>>,
}

#[derive(Default, Deserialize)]
struct TableMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    cells: Vec<serde_json::Value>,
}

/// What the pages have shown so far.
#[derive(Default)]
struct Tally {
    pods: usize,
    nodes: HashSet<String>,
}

impl Tally {
    /// Takes in a page; with `by_node` false the nodes are not kept.
    fn add(&mut self, table: Table, by_node: bool) -> Result<(), &'static str> {
        let rows = table.rows.unwrap_or_default();
        self.pods += rows.len();
        if !by_node {
            return Ok(());
        }
        let column = table
            .column_definitions
            .iter()
            .position(|column| column.name == NODE_COLUMN)
            .ok_or("the API server's table of pods names no nodes")?;
        let nodes = rows
            .iter()
            .filter_map(|row| row.cells.get(column)?.as_str())
            .filter(|node| !node.is_empty() && *node != NO_NODE);
        self.nodes.extend(nodes.map(str::to_owned));
        Ok(())
    }

    fn count(&self, counted: CountedBy) -> u32 {
        let count = match counted {
            CountedBy::Pod => self.pods,
            CountedBy::Node => self.nodes.len(),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

impl PodCounter {
    async fn ask(&self, namespace: &str, selector: &str, counted: CountedBy) -> Result<u32, ReadError> {
        let failed = |kind, what: &dyn std::fmt::Display| {
            ReadError::new(
                kind,
                format!("{what} (pods of namespace {namespace} with {selector:?})"),
            )
        };
        let mut tally = Tally::default();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            let table = self
                .page(namespace, selector, next.as_deref())
                .await
                .map_err(|error| failed(kind_of(&error), &error))?;
            next = Some(table.metadata.next.clone()).filter(|next| !next.is_empty());
            tally
                .add(table, counted == CountedBy::Node)
                .map_err(|fault| failed(ReadErrorKind::BadAnswer, &fault))?;
            if next.is_none() {
                return Ok(tally.count(counted));
            }
        }
        Err(failed(ReadErrorKind::BadAnswer, &"too many pods to count"))
    }

    async fn page(&self, namespace: &str, selector: &str, next: Option<&str>) -> Result<Table, CallError> {
        let mut params = ListParams::default()
            .labels(selector)
            .fields(NOT_ENDED)
            .limit(PAGE);
        params = match next {
            Some(next) => params.continue_token(next),
            // Any state that the server has at hand will do, and spares it a look into its store.
            None => params.match_any(),
        };
        let request = Request::new(Pod::url_path(&(), Some(namespace)))
            .list(&params)
            .map_err(kube::Error::BuildRequest);
        let call = async {
            let mut request = request?;
            request.headers_mut().insert(ACCEPT, TABLE);
            let query = request.uri().query().unwrap_or_default();
            let uri = format!("{}?{query}&includeObject=None", request.uri().path());
            *request.uri_mut() = uri
                .parse()
                .map_err(http::Error::from)
                .map_err(kube::Error::HttpError)?;
            self.client.request::<Table>(request).await
        };
        self.calls.unary(Priority::Normal, "count pods", call).await
    }
}

fn kind_of(error: &CallError) -> ReadErrorKind {
    match error {
        CallError::Forbidden { .. } => ReadErrorKind::Denied,
        CallError::Timeout { .. } => ReadErrorKind::Timeout,
        CallError::Throttled { retry_after, .. } => ReadErrorKind::Throttled {
            retry_after: Some(*retry_after),
        },
        CallError::Other { .. } | CallError::Invalid { .. } => ReadErrorKind::BadAnswer,
        _ => ReadErrorKind::Unreachable,
    }
}

impl CountPods for PodCounter {
    fn count<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        counted: CountedBy,
    ) -> BoxFuture<'a, Result<u32, ReadError>> {
        self.ask(namespace, selector, counted).boxed()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(nodes: &[&str]) -> Table {
        let rows: Vec<_> = nodes.iter().map(|node| json!({"cells": ["pod", node]})).collect();
        let columns = json!([{"name": "Name", "type": "string"}, {"name": "Node", "type": "string"}]);
        serde_json::from_value(json!({"kind": "Table", "columnDefinitions": columns, "rows": rows})).unwrap()
    }

    #[test]
    fn pods_and_nodes_over_several_pages() {
        let mut tally = Tally::default();
        tally.add(page(&["a", "b", NO_NODE]), true).unwrap();
        tally.add(page(&["b", "", "c"]), true).unwrap();
        assert_eq!(tally.count(CountedBy::Pod), 6);
        assert_eq!(tally.count(CountedBy::Node), 3);
    }

    #[test]
    fn an_empty_table_and_one_without_nodes() {
        let empty =
            json!({"columnDefinitions": [{"name": "Name"}], "rows": null, "metadata": {"continue": "x"}});
        let table: Table = serde_json::from_value(empty.clone()).unwrap();
        assert_eq!(table.metadata.next, "x");
        let mut tally = Tally::default();
        tally.add(table, false).unwrap();
        assert_eq!(tally.count(CountedBy::Pod), 0);
        let table: Table = serde_json::from_value(empty).unwrap();
        assert!(tally.add(table, true).is_err());
        // A list of whole objects is no table.
        assert!(serde_json::from_value::<Table>(json!({"kind": "PodList", "items": []})).is_err());
    }
}
