//! Keeps the data plane's backends current: each Service port that a route wants, from the watches of Services and
//! EndpointSlices, and from what operators tell of pods before those.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::endpoints::PodKey;
use dormouse_core::routes::settings::ServicePort;
use dormouse_kubernetes::{Change, ObjectKey, Watch};
use k8s_openapi::api::core::v1 as full;
use k8s_openapi::api::discovery::v1 as discovery;
use tokio::time::sleep;

use crate::backend::{Backend, Unresolved, resolve};
use crate::newcomers::{Newcomer, Newcomers, is_named};
use crate::slim::{EndpointSlice, Service};

/// How often pods are looked for that nobody speaks of any more.
const GIVE_UP: Duration = Duration::from_secs(1);

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
    services: HashMap<ObjectKey, Entry>,
    /// By their own names; those without a Service belong to somebody else and are not here.
    slices: HashMap<ObjectKey, Arc<EndpointSlice>>,
    newcomers: Newcomers,
}

/// What there is of one name, and what is wanted of it.
#[derive(Default)]
struct Entry {
    service: Option<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    wanted: Vec<ServicePort>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty() && self.wanted.is_empty()
    }
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
        let mut wanted: HashMap<ObjectKey, Vec<ServicePort>> = HashMap::new();
        for port in ports {
            let key = ObjectKey::new(Arc::clone(&port.namespace), Arc::clone(&port.service));
            // Most have one port, and no Service has many.
            let ports = wanted.entry(key).or_insert_with(|| Vec::with_capacity(1));
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let mut guard = self.lock();
        let book = &mut *guard;
        book.services.retain(|key, entry| {
            let ports = wanted.remove(key).unwrap_or_default();
            let before = std::mem::replace(&mut entry.wanted, ports);
            let new = entry.wanted.iter().filter(|port| !before.contains(*port));
            new.for_each(|port| self.tell(entry, book.newcomers.of(key), port));
            !entry.is_empty()
        });
        for (key, wanted) in wanted {
            book.services.entry(key.clone()).or_default().wanted = wanted;
            self.tell_all(book, &key);
        }
    }

    /// A pod of a Service that no slice may name yet. Where nobody wants the Service it is passed over.
    pub(crate) fn come(&self, service: &ObjectKey, newcomer: Newcomer) {
        let mut book = self.lock();
        let is_news = |entry: &Entry| !entry.wanted.is_empty() && !is_named(&newcomer, &entry.slices);
        if book.services.get(service).is_some_and(is_news) && book.newcomers.come(service, newcomer) {
            self.tell_all(&book, service);
        }
    }

    /// A pod is over, whether or not a slice ever named it.
    pub(crate) fn go(&self, pod: &PodKey) {
        self.without(|newcomers| newcomers.go(pod));
    }

    /// Forgets the pods that no slice names and nobody speaks of any more, for as long as it runs.
    pub(crate) async fn give_up(&self) {
        loop {
            sleep(GIVE_UP).await;
            self.without(Newcomers::give_up);
        }
    }

    fn without(&self, forget: impl FnOnce(&mut Newcomers) -> Vec<ObjectKey>) {
        let mut book = self.lock();
        for service in forget(&mut book.newcomers) {
            self.tell_all(&book, &service);
        }
    }

    fn tell<'n>(&self, entry: &Entry, newcomers: impl Iterator<Item = &'n Newcomer>, port: &ServicePort) {
        let backend = resolve(port, entry.service.as_deref(), &entry.slices, newcomers);
        (self.shared.publish)(port, backend);
    }

    fn tell_all(&self, book: &Book, key: &ObjectKey) {
        let Some(entry) = book.services.get(key) else {
            return;
        };
        let ports = entry.wanted.iter();
        ports.for_each(|port| self.tell(entry, book.newcomers.of(key), port));
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

    pub(crate) fn service_changed(&self, key: &ObjectKey, change: &Change<Service>) {
        let service = match change {
            Change::Applied(service) => Some(Arc::clone(service)),
            Change::Deleted(_) => None,
        };
        let mut book = self.lock();
        let before = book.services.get(key).and_then(|entry| entry.service.as_deref());
        if before.is_some() && before != service.as_deref() {
            // It may select other pods now.
            book.newcomers.clear(key);
        }
        self.change(&mut book, key, |entry| entry.service = service);
    }

    fn slice_changed(&self, key: &ObjectKey, change: &Change<EndpointSlice>) {
        let now = match change {
            Change::Applied(slice) => Some(slice).filter(|slice| slice.service.is_some()),
            Change::Deleted(_) => None,
        };
        let mut book = self.lock();
        let before = match now {
            Some(slice) => book.slices.insert(key.clone(), Arc::clone(slice)),
            None => book.slices.remove(key),
        };
        let owner = |slice: Option<&Arc<EndpointSlice>>| {
            let service = slice?.service.clone()?;
            Some(ObjectKey::new(key.namespace.clone(), service))
        };
        let (was_of, is_of) = (owner(before.as_ref()), owner(now));
        let take_out = |entry: &mut Entry| {
            let is_other = |slice: &Arc<_>| !before.as_ref().is_some_and(|before| Arc::ptr_eq(slice, before));
            entry.slices.retain(is_other);
        };
        if let Some(was_of) = was_of.filter(|was_of| Some(was_of) != is_of.as_ref()) {
            self.change(&mut book, &was_of, take_out);
        }
        if let Some((is_of, slice)) = is_of.zip(now) {
            self.change(&mut book, &is_of, |entry| {
                take_out(entry);
                // Most Services have one.
                entry.slices.reserve_exact(1);
                entry.slices.push(Arc::clone(slice));
            });
        }
    }

    /// Changes what there is of one name, and tells whoever wants it.
    fn change(&self, book: &mut Book, key: &ObjectKey, change: impl FnOnce(&mut Entry)) {
        let entry = book.services.entry(key.clone()).or_default();
        change(entry);
        book.newcomers.listed(key, &entry.slices);
        let is_empty = entry.is_empty();
        self.tell_all(book, key);
        if is_empty {
            book.services.remove(key);
        }
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
            "spec": {
                "selector": {"colour": "blue"}, "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}],
            },
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

    fn newcomer(name: &str, address: &str) -> Newcomer {
        Newcomer {
            pod: PodKey {
                namespace: "shop".into(),
                name: name.into(),
                uid: name.into(),
            },
            addresses: [address.parse().unwrap()].into(),
            named_ports: [].into(),
            is_ready: false,
        }
    }

    #[test]
    fn a_pod_is_there_before_any_slice_names_it_and_until_one_does_or_it_is_over() {
        let (backends, told) = backends();
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        backends.service_changed(&key("web"), &Change::Applied(service()));
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        backends.want([port(80)]);
        assert_eq!(
            taken(&told),
            [is("shop/web:80", &[])],
            "nobody wanted it when it came"
        );
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        assert_eq!(taken(&told), [is("shop/web:80", &["10.0.0.1:80"])]);
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        assert_eq!(taken(&told), [], "known");
        backends.come(&key("web"), newcomer("web-2", "10.0.0.2"));
        assert_eq!(taken(&told), [is("shop/web:80", &["10.0.0.1:80", "10.0.0.2:80"])]);
        backends.want([port(80), port(81)]);
        assert_eq!(taken(&told), [is("shop/web:81", &["10.0.0.1:81", "10.0.0.2:81"])]);
        backends.want([port(80)]);

        let named = json!({
            "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{
                "addresses": ["10.0.0.1"], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "web-1"},
            }],
        });
        let slice = Arc::new(serde_json::from_value(named).unwrap());
        backends.slice_changed(&key("web-x"), &Change::Applied(Arc::clone(&slice)));
        let both = is("shop/web:80", &["10.0.0.1:8080", "10.0.0.2:80"]);
        assert_eq!(taken(&told), [both], "a slice counts for more");
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        assert_eq!(taken(&told), [], "it is named");
        backends.go(&newcomer("web-2", "10.0.0.2").pod);
        assert_eq!(taken(&told), [is("shop/web:80", &["10.0.0.1:8080"])]);
        backends.slice_changed(&key("web-x"), &Change::Deleted(slice));
        assert_eq!(taken(&told), [is("shop/web:80", &[])], "it does not come back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_no_slice_comes_to_name_goes() {
        let (backends, told) = backends();
        backends.service_changed(&key("web"), &Change::Applied(service()));
        backends.want([port(80)]);
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        taken(&told);
        let two_minutes = tokio::time::timeout(Duration::from_secs(120), backends.give_up());
        assert!(two_minutes.await.is_err(), "it runs on");
        assert_eq!(taken(&told), [is("shop/web:80", &[])], "once");
    }

    #[test]
    fn a_service_that_changes_may_select_others() {
        let (backends, told) = backends();
        backends.service_changed(&key("web"), &Change::Applied(service()));
        backends.want([port(80)]);
        backends.come(&key("web"), newcomer("web-1", "10.0.0.1"));
        taken(&told);
        backends.service_changed(&key("web"), &Change::Applied(service()));
        assert_eq!(
            taken(&told),
            [is("shop/web:80", &["10.0.0.1:80"])],
            "it is the same"
        );
        let green: Service = serde_json::from_value(json!({"spec": {
            "selector": {"colour": "green"}, "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80}],
        }}))
        .unwrap();
        backends.service_changed(&key("web"), &Change::Applied(Arc::new(green)));
        assert_eq!(taken(&told), [is("shop/web:80", &[])]);
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
        assert!(backends.lock().slices.is_empty());
        let services = &backends.lock().services;
        assert!(services.values().all(|entry| entry.slices.is_empty()) && services.len() == 1);
    }
}
