//! Reads metrics through the API server over and over, as the HPA controller would, and remembers when that failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Cluster;

const DEADLINE: Duration = Duration::from_secs(10);
/// Reads kept per object.
const KEPT: usize = 5_000;

/// One read.
#[derive(Clone, Debug)]
pub struct MetricRead {
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What the HPA would have been told instead of a number.
    pub failure: Option<String>,
}

/// Reads until it goes.
pub struct MetricReads {
    book: Book,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

// Held for a look or an entry only, never over an await.
type Book = Arc<Mutex<BTreeMap<String, Vec<MetricRead>>>>;

impl MetricReads {
    /// Reads the metric `metric` of each of these ScaledObjects, each `every` so often.
    #[must_use]
    pub fn start(
        cluster: &Cluster,
        namespace: &str,
        objects: &[String],
        metric: &str,
        every: Duration,
    ) -> Self {
        let book = Book::default();
        let reader = |name: &String| {
            let path = format!(
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}\
                 ?labelSelector=scaledobject.keda.sh%2Fname%3D{name}"
            );
            let (client, book, name) = (cluster.client(), book.clone(), name.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let began = Instant::now();
                    let failure = match http::Request::get(&path).body(Vec::new()) {
                        Ok(request) => {
                            match tokio::time::timeout(DEADLINE, client.request_text(request)).await {
                                Ok(Ok(_)) => None,
                                Ok(Err(error)) => Some(error.to_string()),
                                Err(_) => Some(format!("no answer within {DEADLINE:?}")),
                            }
                        }
                        Err(error) => Some(error.to_string()),
                    };
                    let ended = Instant::now();
                    note(
                        &book,
                        &name,
                        MetricRead {
                            began,
                            ended,
                            failure,
                        },
                    );
                    tokio::time::sleep(every.saturating_sub(began.elapsed())).await;
                }
            }))
        };
        let tasks = objects.iter().map(reader).collect();
        Self { book, _tasks: tasks }
    }

    /// All reads of one object, oldest first.
    #[must_use]
    pub fn of(&self, object: &str) -> Vec<MetricRead> {
        lock(&self.book).get(object).cloned().unwrap_or_default()
    }

    /// The failed reads of all objects.
    #[must_use]
    pub fn failed(&self) -> Vec<MetricRead> {
        let all = lock(&self.book);
        let failed = all.values().flatten().filter(|read| read.failure.is_some());
        failed.cloned().collect()
    }

    /// How many reads there were in all.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.book).values().map(Vec::len).sum()
    }

    /// For each object the longest time from a good read, or the first one, to the next good read or now.
    #[must_use]
    pub fn longest_gaps(&self) -> BTreeMap<String, Duration> {
        let longest = |reads: &Vec<MetricRead>| {
            let first = reads.first().map(|read| read.began);
            let good = reads
                .iter()
                .filter(|read| read.failure.is_none())
                .map(|read| read.ended);
            let times: Vec<_> = first.into_iter().chain(good).chain([Instant::now()]).collect();
            times
                .windows(2)
                .map(|two| two[1].saturating_duration_since(two[0]))
                .max()
                .unwrap_or_default()
        };
        lock(&self.book)
            .iter()
            .map(|(name, reads)| (name.clone(), longest(reads)))
            .collect()
    }
}

fn note(book: &Book, name: &str, read: MetricRead) {
    let mut all = lock(book);
    let reads = all.entry(name.to_owned()).or_default();
    if reads.len() < KEPT {
        reads.push(read);
    }
}

fn lock(book: &Book) -> MutexGuard<'_, BTreeMap<String, Vec<MetricRead>>> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
