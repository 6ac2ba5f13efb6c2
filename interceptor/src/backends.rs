//! Keeps the data plane's backends current: each Service port that a route wants, from the watches of Services and
//! EndpointSlices.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::routes::settings::ServicePort;
use dormouse_kubernetes::{Change, ObjectKey, Watch};
use k8s_openapi::api::core::v1 as full;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::backend::{Backend, Unresolved, resolve};
use crate::slim::{EndpointSlice, Service};

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
    /// The Service of each slice.
    owners: HashMap<ObjectKey, ObjectKey>,
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
    pub(crate) fn follow_services(
        &self,
        watch: Watch<full::Service, Service>,
    ) -> Watch<full::Service, Service> {
        let this = self.clone();
        watch.on_change(move |key, change| this.service_changed(key, change))
    }

    /// Has a watch of EndpointSlices keep this current.
    pub(crate) fn follow_slices(
        &self,
        watch: Watch<discovery::EndpointSlice, EndpointSlice>,
    ) -> Watch<discovery::EndpointSlice, EndpointSlice> {
        let this = self.clone();
        watch.on_change(move |key, change| this.slice_changed(key, change))
    }

    fn service_changed(&self, key: &ObjectKey, change: &Change<Service>) {
        let mut book = self.lock();
        match change {
            Change::Applied(service) => book.services.insert(key.clone(), Arc::clone(service)),
            Change::Deleted(_) => book.services.remove(key),
        };
        self.tell_all(&book, key);
    }

    fn slice_changed(&self, key: &ObjectKey, change: &Change<EndpointSlice>) {
        let mut book = self.lock();
        let before = book.remove_slice(key);
        let owner = match change {
            Change::Applied(slice) => book.add_slice(key, slice),
            Change::Deleted(_) => None,
        };
        if let Some(before) = before.filter(|before| Some(before) != owner.as_ref()) {
            self.tell_all(&book, &before);
        }
        if let Some(owner) = owner {
            self.tell_all(&book, &owner);
        }
    }
}

impl Book {
    /// Gives back the slice's Service. One without belongs to somebody else and is not kept.
    fn add_slice(&mut self, key: &ObjectKey, slice: &Arc<EndpointSlice>) -> Option<ObjectKey> {
        let service = ObjectKey::new(key.namespace.clone(), slice.service.clone()?);
        let slices = self.slices.entry(service.clone()).or_default();
        slices.insert(Arc::clone(&key.name), Arc::clone(slice));
        self.owners.insert(key.clone(), service.clone());
        Some(service)
    }

    /// Gives back the Service that it was of.
    fn remove_slice(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        let service = self.owners.remove(key)?;
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use dormouse_core::routes::settings::Port;
    use serde_json::json;

    use super::*;

    /// What was told of a port: the endpoints' addresses, or why there are none.
    type Entry = (String, Result<Vec<String>, String>);
    type Told = Arc<Mutex<Vec<Entry>>>;

    fn backends() -> (Backends, Told) {
        let told = Told::default();
        let log = told.clone();
        let backends = Backends::new(Box::new(move |port, backend| {
            let addresses = backend.map(|backend| {
                let endpoints = backend.endpoints.iter();
                endpoints
                    .map(|(endpoint, _)| endpoint.address.to_string())
                    .collect()
            });
            let addresses = addresses.map_err(|error| error.to_string());
            log.lock().unwrap().push((port.to_string(), addresses));
        }));
        (backends, told)
    }

    fn port(number: u16) -> ServicePort {
        ServicePort {
            namespace: "shop".into(),
            service: "web".into(),
            port: Port::Number(NonZeroU16::new(number).unwrap()),
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn service() -> Arc<Service> {
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]},
        });
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn slice(name: &str, service: Option<&str>, address: &str) -> Change<EndpointSlice> {
        let labels = service.map(|service| json!({"kubernetes.io/service-name": service}));
        let slice = json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}],
            "endpoints": [{"addresses": [address]}],
        });
        Change::Applied(Arc::new(serde_json::from_value(slice).unwrap()))
    }

    fn taken(told: &Told) -> Vec<Entry> {
        let mut told = std::mem::take(&mut *told.lock().unwrap());
        told.sort();
        told
    }

    fn is(port: &str, addresses: &[&str]) -> Entry {
        let addresses = addresses.iter().map(|address| (*address).to_owned());
        (port.to_owned(), Ok(addresses.collect()))
    }

    #[test]
    fn a_port_is_told_when_it_is_first_wanted_and_after_each_change() {
        let (backends, told) = backends();
        backends.service_changed(&key("web"), &Change::Applied(service()));
        backends.slice_changed(&key("web-1"), &slice("web-1", Some("web"), "10.0.0.1"));
        assert_eq!(taken(&told), [], "nobody asked");
        backends.want([port(80)]);
        assert_eq!(taken(&told), [is("shop/web:80", &["10.0.0.1:8080"])]);
        backends.want([port(80), port(81)]);
        assert_eq!(
            taken(&told),
            [is("shop/web:81", &["10.0.0.1:9000"])],
            "the other is known"
        );
        backends.slice_changed(&key("web-2"), &slice("web-2", Some("web"), "10.0.0.2"));
        assert_eq!(
            taken(&told),
            [
                is("shop/web:80", &["10.0.0.1:8080", "10.0.0.2:8080"]),
                is("shop/web:81", &["10.0.0.1:9000", "10.0.0.2:9000"])
            ]
        );
        backends.want([port(81)]);
        backends.slice_changed(&key("web-1"), &slice("web-1", Some("web"), "10.0.0.3"));
        assert_eq!(
            taken(&told),
            [is("shop/web:81", &["10.0.0.2:9000", "10.0.0.3:9000"])],
            "changed, and the other port is wanted no longer"
        );
    }

    #[test]
    fn what_goes_is_told_too() {
        let (backends, told) = backends();
        backends.want([port(80)]);
        let missing = "Service \"web\" does not exist in namespace \"shop\"".to_owned();
        assert_eq!(taken(&told), [("shop/web:80".to_owned(), Err(missing.clone()))]);
        backends.service_changed(&key("web"), &Change::Applied(service()));
        assert_eq!(taken(&told), [is("shop/web:80", &[])]);
        let one = slice("web-1", Some("web"), "10.0.0.1");
        backends.slice_changed(&key("web-1"), &one);
        assert_eq!(taken(&told), [is("shop/web:80", &["10.0.0.1:8080"])]);
        backends.slice_changed(&key("web-1"), &Change::Deleted(one.object().clone()));
        assert_eq!(taken(&told), [is("shop/web:80", &[])]);
        backends.service_changed(&key("web"), &Change::Deleted(service()));
        assert_eq!(taken(&told), [("shop/web:80".to_owned(), Err(missing))]);
    }

    #[test]
    fn a_slice_is_of_the_service_that_its_label_names_now() {
        let (backends, told) = backends();
        backends.service_changed(&key("web"), &Change::Applied(service()));
        backends.want([port(80)]);
        taken(&told);
        for (owner, addresses) in [
            (Some("web"), &["10.0.0.1:8080"][..]),
            (Some("other"), &[]),
            (Some("web"), &["10.0.0.1:8080"]),
            (None, &[]),
        ] {
            backends.slice_changed(&key("web-1"), &slice("web-1", owner, "10.0.0.1"));
            assert_eq!(taken(&told), [is("shop/web:80", addresses)], "{owner:?}");
        }
        assert!(backends.lock().slices.is_empty() && backends.lock().owners.is_empty());
    }
}
