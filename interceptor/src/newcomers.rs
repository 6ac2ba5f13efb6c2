//! Pods that a Service selects and no EndpointSlice names yet, as operators tell them.
//!
//! ```text
//! come ──> an endpoint of its Service, ready or to be probed
//!               └──> a slice names it | it is over | the Service changes | nobody speaks of it any more: forgotten
//! ```
//!
//! What slices say always counts for more: a pod that one of them names is no newcomer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::endpoints::{Conditions, Endpoint, PodKey};
use dormouse_kubernetes::ObjectKey;
use tokio::time::Instant;

use crate::slim::{EndpointSlice, Service, ServicePort, TargetPort};

/// Newcomers of all Services. What is more has to wait for its slice.
const MOST: usize = 1000;
/// How long an operator's word counts. While requests wait and none is served, it says it again after half of that; who goes
/// unmentioned may be gone.
const LONGEST: Duration = Duration::from_secs(10);

/// A pod that no slice names yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newcomer {
    /// Which it is; its Service is of the same namespace.
    pub(crate) pod: PodKey,
    /// Its own addresses.
    pub(crate) addresses: Box<[IpAddr]>,
    /// The ports of its containers that have a name.
    pub(crate) named_ports: Box<[(Box<str>, u16)]>,
    /// The kubelet has found it ready.
    pub(crate) is_ready: bool,
}

impl Newcomer {
    /// What a slice would say of it; `None` if it has no such port, or no address of the Service's family.
    pub(crate) fn endpoint(&self, service: &Service, port: &ServicePort) -> Option<Endpoint> {
        let number = match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => {
                let mut named = self.named_ports.iter();
                named.find(|(own, _)| **own == **name)?.1
            }
        };
        // The one that is chosen among the slices of both families.
        let addresses = self.addresses.iter();
        let address = addresses
            .filter(|address| service.families.has(**address))
            .min()?;
        let conditions = Conditions {
            ready: Some(self.is_ready),
            ..Conditions::default()
        };
        let address = SocketAddr::new(*address, number);
        Some(Endpoint::new(address, Some(self.pod.clone()), conditions))
    }
}

/// The newcomers of all Services.
#[derive(Default)]
pub(crate) struct Newcomers {
    of: HashMap<ObjectKey, Vec<(Newcomer, Instant)>>,
}

impl Newcomers {
    /// Those of one Service.
    pub(crate) fn of(&self, service: &ObjectKey) -> impl Iterator<Item = &Newcomer> {
        self.of
            .get(service)
            .into_iter()
            .flatten()
            .map(|(newcomer, _)| newcomer)
    }

    /// Takes in one more of a Service, or anew. Says whether that makes a difference.
    pub(crate) fn come(&mut self, service: &ObjectKey, newcomer: Newcomer) -> bool {
        let has_room = self.of.values().map(Vec::len).sum::<usize>() < MOST;
        let mut known = self.of.get_mut(service).into_iter().flatten();
        if let Some((known, said)) = known.find(|(known, _)| known.pod == newcomer.pod) {
            if known.is_ready && !newcomer.is_ready {
                // Of two operators the slower may not have heard that it is. It keeps no word alive that nobody says any more.
                return false;
            }
            let differs = *known != newcomer;
            (*known, *said) = (newcomer, Instant::now());
            return differs;
        }
        if has_room {
            let entry = (newcomer, Instant::now());
            self.of.entry(service.clone()).or_default().push(entry);
        }
        has_room
    }

    /// Forgets those of a Service that one of its slices names.
    pub(crate) fn listed(&mut self, service: &ObjectKey, slices: &[Arc<EndpointSlice>]) {
        let Some(of) = self.of.get_mut(service) else {
            return;
        };
        of.retain(|(newcomer, _)| !is_named(newcomer, slices));
        if of.is_empty() {
            self.of.remove(service);
        }
    }

    /// Forgets a pod that is over. Gives the Services that it was of.
    pub(crate) fn go(&mut self, pod: &PodKey) -> Vec<ObjectKey> {
        self.forget(|newcomer, _| newcomer.pod == *pod)
    }

    /// Forgets those of a Service.
    pub(crate) fn clear(&mut self, service: &ObjectKey) {
        self.of.remove(service);
    }

    /// Forgets those of which nobody speaks any more. Gives the Services that they were of.
    pub(crate) fn give_up(&mut self) -> Vec<ObjectKey> {
        self.forget(|_, said| said.elapsed() >= LONGEST)
    }

    fn forget(&mut self, which: impl Fn(&Newcomer, &Instant) -> bool) -> Vec<ObjectKey> {
        let mut changed = Vec::new();
        self.of.retain(|service, of| {
            let before = of.len();
            of.retain(|(newcomer, said)| !which(newcomer, said));
            if of.len() < before {
                changed.push(service.clone());
            }
            !of.is_empty()
        });
        changed
    }
}

/// Whether one of these slices names the pod or an address of it, whatever it says of it.
pub(crate) fn is_named(newcomer: &Newcomer, slices: &[Arc<EndpointSlice>]) -> bool {
    let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints.any(|endpoint| {
        endpoint.pod.as_ref() == Some(&newcomer.pod) || newcomer.addresses.contains(&endpoint.address)
    })
}

#[cfg(test)]
mod tests {
    use dormouse_core::endpoints::{EndpointSet, Standing};
    use serde_json::{Value, json};
    use tokio::time::advance;

    use super::*;

    fn pod(uid: &str) -> PodKey {
        PodKey {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: uid.into(),
        }
    }

    fn newcomer(uid: &str) -> Newcomer {
        Newcomer {
            pod: pod(uid),
            addresses: ["fd00::7", "10.0.0.7"]
                .map(|address| address.parse().unwrap())
                .into(),
            named_ports: [("http".into(), 8080)].into(),
            is_ready: false,
        }
    }

    fn web() -> ObjectKey {
        ObjectKey::new("shop", "web")
    }

    fn count(newcomers: &Newcomers) -> usize {
        newcomers.of(&web()).count()
    }

    #[test]
    fn it_is_where_the_services_port_comes_out_in_a_family_of_the_service() {
        let endpoint = |is_ready: bool, families: &Value, port: &Value| {
            let spec = json!({"clusterIP": "None", "ipFamilies": families, "ports": [port]});
            let service: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
            let newcomer = Newcomer {
                is_ready,
                ..newcomer("1")
            };
            newcomer.endpoint(&service, &service.ports[0])
        };
        let (ipv4, ipv6) = (json!(["IPv4"]), json!(["IPv6"]));
        for (families, port, address) in [
            (
                &ipv4,
                json!({"port": 80, "targetPort": "http"}),
                Some("10.0.0.7:8080"),
            ),
            (
                &ipv4,
                json!({"port": 80, "targetPort": 9000}),
                Some("10.0.0.7:9000"),
            ),
            (&ipv4, json!({"port": 80}), Some("10.0.0.7:80")),
            (&ipv6, json!({"port": 80}), Some("[fd00::7]:80")),
            (&json!(["IPv6", "IPv4"]), json!({"port": 80}), Some("10.0.0.7:80")),
            (&ipv4, json!({"port": 80, "targetPort": "other"}), None),
            (&json!(null), json!({"port": 80}), None),
        ] {
            for (is_ready, expected) in [(false, Standing::Starting), (true, Standing::Ready)] {
                let endpoint = endpoint(is_ready, families, &port);
                let found = endpoint.as_ref().map(|endpoint| endpoint.address.to_string());
                assert_eq!(found.as_deref(), address, "{families} {port}");
                for publishes_not_ready in [false, true] {
                    let set = EndpointSet::new(endpoint.clone(), publishes_not_ready);
                    assert!(set.iter().all(|(_, standing)| standing == expected));
                }
            }
        }
    }

    #[test]
    fn one_that_a_slice_names_is_none_whatever_the_slice_says_of_it() {
        let mut newcomers = Newcomers::default();
        let elsewhere = Newcomer {
            addresses: ["10.0.0.8".parse().unwrap()].into(),
            ..newcomer("1")
        };
        assert!(newcomers.come(&web(), elsewhere.clone()) && newcomers.come(&web(), newcomer("2")));
        let slice: EndpointSlice = serde_json::from_value(json!({"endpoints": [{
            "addresses": ["10.0.0.9"], "conditions": {"ready": false, "terminating": true},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "2"},
        }]}))
        .unwrap();
        let slices = [Arc::new(slice)];
        newcomers.listed(&ObjectKey::new("shop", "other"), &slices);
        assert_eq!(count(&newcomers), 2);
        newcomers.listed(&web(), &slices);
        let left: Vec<_> = newcomers.of(&web()).map(|newcomer| &*newcomer.pod.uid).collect();
        assert_eq!(left, ["1"]);
        assert!(is_named(&newcomer("2"), &slices) && !is_named(&elsewhere, &slices));

        let nameless: EndpointSlice =
            serde_json::from_value(json!({"endpoints": [{"addresses": ["10.0.0.8"]}]})).unwrap();
        assert!(is_named(&elsewhere, &[Arc::new(nameless)]), "by its address");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_over_goes_and_so_does_one_of_which_nobody_speaks() {
        let mut newcomers = Newcomers::default();
        assert!(newcomers.come(&web(), newcomer("1")));
        assert!(!newcomers.come(&web(), newcomer("1")), "known");
        let moved = Newcomer {
            addresses: ["10.0.0.8".parse().unwrap()].into(),
            ..newcomer("1")
        };
        assert!(newcomers.come(&web(), moved));
        assert_eq!(count(&newcomers), 1, "the same pod");
        assert_eq!(newcomers.go(&pod("2")), []);
        assert_eq!(newcomers.go(&pod("1")), [web()]);
        newcomers.come(&web(), newcomer("1"));
        newcomers.come(&web(), newcomer("2"));
        advance(LONGEST / 2).await;
        assert!(!newcomers.come(&web(), newcomer("2")));
        assert_eq!(newcomers.give_up(), []);
        advance(LONGEST / 2).await;
        assert_eq!(newcomers.give_up(), [web()]);
        assert_eq!(count(&newcomers), 1, "of the other one somebody spoke again");
        newcomers.clear(&web());
        assert_eq!(count(&newcomers), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_slower_operator_does_not_unsay_that_one_is_ready_nor_keep_it_so() {
        let mut newcomers = Newcomers::default();
        let ready = Newcomer {
            is_ready: true,
            ..newcomer("1")
        };
        assert!(newcomers.come(&web(), newcomer("1")));
        assert!(newcomers.come(&web(), ready));
        for _ in 0..2 {
            advance(LONGEST / 2).await;
            assert!(!newcomers.come(&web(), newcomer("1")));
            assert!(newcomers.of(&web()).all(|newcomer| newcomer.is_ready));
        }
        assert_eq!(newcomers.give_up(), [web()]);
        assert!(newcomers.come(&web(), newcomer("1")), "it is told that it starts");
    }

    #[test]
    fn they_are_bounded_all_together() {
        let mut newcomers = Newcomers::default();
        for number in 0..MOST {
            let service = ObjectKey::new("shop", number.to_string());
            assert!(newcomers.come(&service, newcomer("1")));
        }
        assert!(!newcomers.come(&web(), newcomer("1")));
        newcomers.go(&pod("1"));
        assert!(newcomers.come(&web(), newcomer("1")));
    }
}
