//! Keeps the data plane's backends current: each Service port that a route wants, from the watches of Services and
//! EndpointSlices.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::routes::settings::ServicePort;
use dormouse_kubernetes::{Change, ObjectKey, Watch};

use crate::backend::{Backend, Unresolved, resolve};
use crate::slim::{EndpointSlice, Service};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Who is told about each wanted port, whenever it may have changed.
pub(crate) type Publish = Box<dyn Fn(&ServicePort, Result<Backend, Unresolved>) + Send + Sync>;

/// The Service ports that routes want. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backends {
    shared: Arc<Shared>,
}

struct Shared {
    // Held while a port is resolved and told, so that an older state of it never follows a newer one; never over an await.
    book: Mutex<Book>,
    publish: Publish,
}

#[derive(Default)]
struct Book {
    services: HashMap<ObjectKey, Arc<Service>>,
    /// By Service, and by their own names.
    slices: HashMap<ObjectKey, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    wanted: HashMap<ObjectKey, HashSet<ServicePort>>,
}

impl Backends {
    /// Nothing is wanted yet.
    pub(crate) fn new(publish: Publish) -> Self {
        Self {
            shared: Arc::new(Shared {
                book: Mutex::default(),
                publish,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on exactly these ports are wanted; those that are new are told at once.
    pub(crate) fn want(&self, ports: impl IntoIterator<Item = ServicePort>) {
        let mut wanted: HashMap<ObjectKey, HashSet<ServicePort>> = HashMap::new();
        for port in ports {
            let key = ObjectKey::new(&*port.namespace, &*port.service);
            wanted.entry(key).or_default().insert(port);
        }
        let mut book = self.lock();
        let before = std::mem::replace(&mut book.wanted, wanted);
        for (key, ports) in &book.wanted {
            let known = before.get(key);
            let new = ports
                .iter()
                .filter(|port| known.is_none_or(|known| !known.contains(*port)));
            new.for_each(|port| self.tell(&book, key, port));
        }
    }

    fn tell(&self, book: &Book, key: &ObjectKey, port: &ServicePort) {
        let slices: Vec<_> = book
            .slices
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect();
        let service = book.services.get(key).map(Arc::as_ref);
        (self.shared.publish)(port, resolve(port, service, &slices));
    }

    fn tell_all(&self, book: &Book, key: &ObjectKey) {
        let ports = book.wanted.get(key).into_iter().flatten();
        ports.for_each(|port| self.tell(book, key, port));
    }

    /// Has a watch of Services keep this current.
    pub(crate) fn follow_services(&self, watch: Watch<Service>) -> Watch<Service> {
        let this = self.clone();
        watch.on_change(move |key, change| {
            let mut book = this.lock();
            match change {
                Change::Applied(service) => book.services.insert(key.clone(), Arc::clone(service)),
                Change::Deleted(_) => book.services.remove(key),
            };
            this.tell_all(&book, key);
        })
    }

    /// Has a watch of EndpointSlices keep this current.
    pub(crate) fn follow_slices(&self, watch: Watch<EndpointSlice>) -> Watch<EndpointSlice> {
        let this = self.clone();
        watch.on_change(move |key, change| this.slice_changed(key, change))
    }

    fn slice_changed(&self, key: &ObjectKey, change: &Change<EndpointSlice>) {
        let slice = change.object();
        let labels = slice.metadata.labels.as_ref();
        // One without a Service belongs to somebody else.
        let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
            return;
        };
        let service = ObjectKey::new(&*key.namespace, service.as_str());
        let mut book = self.lock();
        match change {
            Change::Applied(slice) => {
                let own = book.slices.entry(service.clone()).or_default();
                own.insert(Arc::clone(&key.name), Arc::clone(slice));
            }
            Change::Deleted(_) => {
                if let Some(own) = book.slices.get_mut(&service) {
                    own.remove(&key.name);
                    if own.is_empty() {
                        book.slices.remove(&service);
                    }
                }
            }
        }
        self.tell_all(&book, &service);
    }
}
