//! The endpoints of one Service port, and what may be done with each of them.
//!
//! ```text
//! EndpointSlices (both families) ──> one Endpoint per pod ──> Standing ──> Ready: requests go there
//!                                                                     ├──> Starting: not ready yet, may be probed
//!                                                                     ├──> Leaving: a last resort while it still serves
//!                                                                     └──> Unusable
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The identity of a pod: a new pod of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// The namespace of the pod, and of the Service that selects it.
    pub namespace: Arc<str>,
    /// The name of the pod.
    pub name: Arc<str>,
    /// The uid of the pod.
    pub uid: Arc<str>,
}

/// The conditions of an endpoint as an EndpointSlice has them, each possibly absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// May it get new requests; absent means yes.
    pub ready: Option<bool>,
    /// Does it answer, whether or not it is terminating; absent means the same as `ready`.
    pub serving: Option<bool>,
    /// Is its pod being deleted; absent means no.
    pub terminating: Option<bool>,
}

/// One address of a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port of the application.
    pub address: SocketAddr,
    /// The pod that owns the address; `None` where the slice names none of its own namespace.
    pub pod: Option<PodKey>,
    /// Whoever lists it, a slice as a rule, says that it may get new requests.
    pub ready: bool,
    /// And that it answers.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
}

impl Endpoint {
    /// An endpoint with the API's defaults for absent conditions.
    #[must_use]
    pub fn new(address: SocketAddr, pod: Option<PodKey>, conditions: Conditions) -> Self {
        let ready = conditions.ready.unwrap_or(true);
        Self {
            address,
            pod,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        }
    }

    fn standing(&self, ready_is_always_set: bool) -> Standing {
        match self {
            Self {
                terminating: true,
                serving: true,
                ..
            } => Standing::Leaving,
            Self {
                terminating: true, ..
            } => Standing::Unusable,
            // Where not ready addresses are published `ready` says nothing; `serving` is still the pod's own condition.
            Self { serving, .. } if ready_is_always_set && *serving => Standing::Ready,
            Self { ready, .. } if !ready_is_always_set && *ready => Standing::Ready,
            Self { pod: Some(_), .. } => Standing::Starting,
            Self { pod: None, .. } => Standing::Unusable,
        }
    }
}

/// What may be done with an endpoint. The better comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Requests go there.
    Ready,
    /// Not ready, but its pod may be probed: it may answer before its slice says so.
    Starting,
    /// Terminating, but still serving: better than nothing.
    Leaving,
    /// Not to be touched.
    Unusable,
}

/// The endpoints of one Service port, each pod once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    endpoints: Vec<(Endpoint, Standing)>,
}

impl EndpointSet {
    /// Puts together the endpoints of all slices of a Service, for one of its ports.
    ///
    /// A pod that several slices list (one per address family, or twice while an endpoint moves between slices) counts
    /// once, with the address that can be used best; among equals the lowest, so that IPv4 comes before IPv6.
    ///
    /// `publishes_not_ready` is the Service's `publishNotReadyAddresses`, with which every address is called ready.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>, publishes_not_ready: bool) -> Self {
        let mut chosen: BTreeMap<Owner, (Endpoint, Standing)> = BTreeMap::new();
        for endpoint in endpoints {
            let standing = endpoint.standing(publishes_not_ready);
            let owner = endpoint
                .pod
                .clone()
                .map_or(Owner::Address(endpoint.address), Owner::Pod);
            match chosen.get_mut(&owner) {
                Some((present, other)) if (*other, present.address) <= (standing, endpoint.address) => {}
                Some(present) => *present = (endpoint, standing),
                None => {
                    chosen.insert(owner, (endpoint, standing));
                }
            }
        }
        Self {
            endpoints: chosen.into_values().collect(),
        }
    }

    /// Every endpoint with its standing, in a stable order.
    pub fn iter(&self) -> impl Iterator<Item = (&Endpoint, Standing)> {
        self.endpoints
            .iter()
            .map(|(endpoint, standing)| (endpoint, *standing))
    }

    /// The endpoints of one standing.
    pub fn with(&self, wanted: Standing) -> impl Iterator<Item = &Endpoint> {
        self.iter()
            .filter(move |(_, standing)| *standing == wanted)
            .map(|(endpoint, _)| endpoint)
    }

    /// Whether a request can be sent somewhere now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.iter()
            .any(|(_, standing)| matches!(standing, Standing::Ready | Standing::Leaving))
    }
}

/// Who an endpoint is counted for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Pod(PodKey),
    Address(SocketAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Option<PodKey> {
        Some(PodKey {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
        })
    }

    fn endpoint(address: &str, pod: Option<PodKey>, flags: &str) -> Endpoint {
        let flag = |letter| Some(flags.contains(letter));
        let conditions = Conditions {
            ready: flag('r'),
            serving: flag('s'),
            terminating: flag('t'),
        };
        Endpoint::new(address.parse().unwrap(), pod, conditions)
    }

    fn standing(endpoint: Endpoint, publishes_not_ready: bool) -> Standing {
        EndpointSet::new([endpoint], publishes_not_ready)
            .iter()
            .next()
            .unwrap()
            .1
    }

    #[test]
    fn conditions_decide_what_an_endpoint_is_good_for() {
        let cases = [
            ("rs", true, false, Standing::Ready),
            ("", true, false, Standing::Starting),
            ("", false, false, Standing::Unusable),
            ("st", true, false, Standing::Leaving),
            ("rst", true, false, Standing::Leaving),
            ("t", true, false, Standing::Unusable),
            ("rt", true, false, Standing::Unusable),
            // publishNotReadyAddresses: `ready` is always there and means nothing.
            ("r", true, true, Standing::Starting),
            ("rs", true, true, Standing::Ready),
            ("rst", true, true, Standing::Leaving),
        ];
        for (flags, of_a_pod, publishes_not_ready, expected) in cases {
            let owner = if of_a_pod { pod("a") } else { None };
            let seen = standing(endpoint("10.0.0.1:80", owner, flags), publishes_not_ready);
            assert_eq!(
                seen, expected,
                "{flags:?} of a pod: {of_a_pod}, publishes: {publishes_not_ready}"
            );
        }
    }

    #[test]
    fn absent_conditions_mean_ready() {
        let address = "10.0.0.1:80".parse().unwrap();
        assert_eq!(
            standing(Endpoint::new(address, None, Conditions::default()), false),
            Standing::Ready
        );
        let not_ready = Conditions {
            ready: Some(false),
            ..Conditions::default()
        };
        assert_eq!(
            standing(Endpoint::new(address, pod("a"), not_ready), false),
            Standing::Starting
        );
    }

    #[test]
    fn a_pod_of_two_families_counts_once() {
        let both = [
            endpoint("[fd00::1]:80", pod("a"), "rs"),
            endpoint("10.0.0.1:80", pod("a"), "rs"),
            endpoint("[fd00::2]:80", pod("b"), "rs"),
            endpoint("10.0.0.2:80", pod("b"), ""),
        ];
        let set = EndpointSet::new(both.clone(), false);
        let addresses: Vec<String> = set.with(Standing::Ready).map(|e| e.address.to_string()).collect();
        assert_eq!(
            addresses,
            ["10.0.0.1:80", "[fd00::2]:80"],
            "the usable one first, then IPv4"
        );
        assert_eq!(
            set,
            EndpointSet::new(both.into_iter().rev(), false),
            "in any order of the slices"
        );
    }

    #[test]
    fn a_pod_that_took_the_name_of_another_is_another() {
        let (mut old, new) = (
            endpoint("10.0.0.1:80", pod("a"), "st"),
            endpoint("10.0.0.2:80", pod("a"), "rs"),
        );
        old.pod.as_mut().unwrap().uid = "an older one".into();
        assert_eq!(EndpointSet::new([old, new], false).iter().count(), 2);
    }

    #[test]
    fn it_is_available_while_anything_serves() {
        let available =
            |flags| EndpointSet::new([endpoint("10.0.0.1:80", pod("a"), flags)], false).is_available();
        assert!(available("rs") && available("st"));
        assert!(!available("") && !available("t"));
        assert!(!EndpointSet::default().is_available());
    }
}
