//! From the probes of a pod, as an operator tells them, to the data plane's.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use dormouse_core::endpoints::PodKey;
use dormouse_kubernetes::ObjectKey;
use dormouse_proxy::{Check, HttpCheck, Probe, ProbeSpec, Proxy, Scheme};
use dormouse_wire::demand::{self as wire, PodProbe, ProbeSpecs, probe};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backends::Backends;
use crate::newcomers::Newcomer;

/// Pods that are known before they are wanted.
const MOST_AHEAD: usize = 1000;
/// How long one of them may take to be wanted: longer than operators take it to be known here.
const AHEAD: Duration = Duration::from_secs(60);

/// The pods of which operators told before any slice named them.
#[derive(Default)]
pub(super) struct Ahead {
    told: Mutex<HashMap<PodKey, Instant>>,
}

impl Ahead {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a pod, if there is room.
    fn note(&self, pod: &PodKey) -> bool {
        let mut told = self.lock();
        let has_room = told.len() < MOST_AHEAD || told.contains_key(pod);
        if has_room {
            told.insert(pod.clone(), Instant::now());
        }
        has_room
    }

    /// Those that nobody came to want; they are forgotten here, as are those that are wanted by now.
    pub(super) fn sweep(&self, wanted: &BTreeSet<PodKey>) -> Vec<PodKey> {
        let mut told = self.lock();
        told.retain(|pod, _| !wanted.contains(pod));
        let old = told.extract_if(|_, at| at.elapsed() >= AHEAD);
        old.map(|(pod, _)| pod).collect()
    }
}

/// Has the data plane probe these pods while requests wait for them. Those of which a Service is told, and which no slice may
/// name yet, go to `newcomers`.
pub(super) fn learn(
    proxy: &Proxy,
    newcomers: Option<&Backends>,
    wanted: &watch::Receiver<BTreeSet<PodKey>>,
    ahead: &Ahead,
    specs: &ProbeSpecs,
) {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    // Held to the end: a pod that is wanted no longer is forgotten by the data plane under the same lock.
    let wanted = wanted.borrow();
    for told in &specs.pods {
        let pod = told.pod.clone().unwrap_or_default();
        let pod = PodKey {
            namespace: pod.namespace.into(),
            name: pod.name.into(),
            uid: pod.uid.into(),
        };
        if told.addresses.is_empty() {
            // What is known of its probes stays: there may be slices that name it.
            newcomers.inspect(|newcomers| newcomers.go(&pod));
            continue;
        }
        let spec = spec(told, since_1970);
        if wanted.contains(&pod) || (spec.is_some() && ahead.note(&pod)) {
            proxy.set_probe(&pod, spec);
        }
        if let Some(newcomers) = newcomers.filter(|_| !told.service.is_empty()) {
            let service = ObjectKey::new(Arc::clone(&pod.namespace), told.service.as_str());
            newcomers.come(&service, newcomer(pod, told));
        }
    }
}

fn newcomer(pod: PodKey, told: &PodProbe) -> Newcomer {
    let ports = told.named_ports.iter();
    Newcomer {
        pod,
        addresses: addresses(told).collect(),
        named_ports: ports
            .filter_map(|named| Some((named.name.as_str().into(), port(named.port)?)))
            .collect(),
        is_ready: told.ready,
    }
}

fn addresses(told: &PodProbe) -> impl Iterator<Item = IpAddr> {
    told.addresses.iter().filter_map(|address| address.parse().ok())
}

/// The spec of a pod, at this time. `None` if the kubelet decides: there is no readiness probe, or a part of it makes no
/// sense, or it is not known yet when a delay began.
fn spec(told: &PodProbe, now: Duration) -> Option<ProbeSpec> {
    let started = u64::try_from(told.container_started_millis)
        .ok()
        .filter(|at| *at > 0);
    let running_for = started.map(|at| now.saturating_sub(Duration::from_millis(at)));
    let probe = |told: &wire::Probe| probe(told, running_for);
    Some(ProbeSpec {
        addresses: addresses(told).collect(),
        startup: match &told.startup {
            Some(startup) => Some(probe(startup)?),
            None => None,
        },
        readiness: Some(probe(told.readiness.as_ref()?)?),
    })
}

fn probe(told: &wire::Probe, running_for: Option<Duration>) -> Option<Probe> {
    let check = match told.check.as_ref()? {
        probe::Check::Tcp(tcp) => Check::Tcp {
            port: port(tcp.port)?,
        },
        probe::Check::Http(http) => Check::Http(HttpCheck {
            port: port(http.port)?,
            scheme: if http.tls { Scheme::Https } else { Scheme::Http },
            path: path(&http.path)?,
            headers: http.headers.iter().map(header).collect::<Option<_>>()?,
        }),
    };
    let delay = Duration::from_millis(told.initial_delay_millis.into());
    let delay = match running_for {
        Some(running_for) => delay.saturating_sub(running_for),
        None if delay.is_zero() => delay,
        None => return None,
    };
    Some(Probe {
        check,
        delay,
        timeout: Duration::from_millis(told.timeout_millis.into()),
    })
}

fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

fn path(text: &str) -> Option<PathAndQuery> {
    // As the kubelet has it.
    let text = if text.starts_with('/') {
        text.to_owned()
    } else {
        format!("/{text}")
    };
    text.parse().ok()
}

fn header(header: &wire::Header) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(&header.value).ok()?;
    value.set_sensitive(true);
    Some((header.name.parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use dormouse_wire::demand::{Header, TcpCheck};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn http(path: &str) -> wire::Probe {
        let header = Header {
            name: "X-Key".to_owned(),
            value: "secret".to_owned(),
        };
        wire::Probe {
            check: Some(probe::Check::Http(wire::HttpCheck {
                port: 8080,
                path: path.to_owned(),
                tls: true,
                headers: vec![header],
            })),
            initial_delay_millis: 5_000,
            timeout_millis: 1_000,
        }
    }

    fn tcp(port: u32) -> wire::Probe {
        wire::Probe {
            check: Some(probe::Check::Tcp(TcpCheck { port })),
            initial_delay_millis: 0,
            timeout_millis: 1_000,
        }
    }

    /// A pod whose container was started so long ago.
    fn pod(ago: Option<Duration>, startup: Option<wire::Probe>, readiness: Option<wire::Probe>) -> PodProbe {
        let started = ago.map_or(0, |ago| (NOW - ago).as_millis());
        PodProbe {
            pod: None,
            startup,
            readiness,
            container_started_millis: i64::try_from(started).unwrap(),
            addresses: vec!["10.0.0.7".to_owned(), "nowhere".to_owned(), "fd00::7".to_owned()],
            ..PodProbe::default()
        }
    }

    #[test]
    fn a_spec_is_taken_over_with_what_is_left_of_its_delay() {
        let told = pod(
            Some(Duration::from_secs(3)),
            Some(tcp(9000)),
            Some(http("ready?full")),
        );
        let spec = spec(&told, NOW).unwrap();
        let addresses: Vec<_> = spec.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.7", "fd00::7"]);
        let startup = spec.startup.unwrap();
        assert_eq!(
            (startup.check, startup.delay),
            (Check::Tcp { port: 9000 }, Duration::ZERO)
        );
        let readiness = spec.readiness.unwrap();
        assert_eq!(readiness.delay, Duration::from_secs(2));
        assert_eq!(readiness.timeout, Duration::from_secs(1));
        let Check::Http(check) = readiness.check else {
            unreachable!("{readiness:?}")
        };
        assert_eq!(
            (check.port, check.scheme, check.path.as_str()),
            (8080, Scheme::Https, "/ready?full")
        );
        assert_eq!(check.headers[0].0, "x-key");
        assert!(check.headers[0].1.is_sensitive());
    }

    #[test]
    fn a_delay_that_is_over_is_none() {
        let told = pod(Some(Duration::from_secs(60)), None, Some(http("/")));
        assert_eq!(spec(&told, NOW).unwrap().readiness.unwrap().delay, Duration::ZERO);
        let ahead = NOW + Duration::from_secs(60);
        let mut told = told;
        told.container_started_millis = i64::try_from(ahead.as_millis()).unwrap();
        assert_eq!(
            spec(&told, NOW).unwrap().readiness.unwrap().delay,
            Duration::from_secs(5),
            "never longer than it is, whatever the clocks say"
        );
    }

    #[test]
    fn what_cannot_be_probed_is_left_to_the_kubelet() {
        let started = Some(Duration::from_secs(3));
        for (why, told) in [
            ("no readiness probe", pod(started, Some(tcp(80)), None)),
            ("not started, and a delay", pod(None, None, Some(http("/")))),
            ("no port", pod(started, None, Some(tcp(0)))),
            ("a port too high", pod(started, None, Some(tcp(65_536)))),
            ("no path", pod(started, None, Some(http("/a b")))),
            (
                "an unknown check",
                pod(started, None, Some(wire::Probe::default())),
            ),
            ("a bad startup probe", pod(started, Some(tcp(0)), Some(tcp(80)))),
        ] {
            assert_eq!(spec(&told, NOW), None, "{why}");
        }
        assert!(
            spec(&pod(None, None, Some(tcp(80))), NOW).is_some(),
            "no delay to wait out"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_ahead_is_kept_until_it_is_wanted_or_for_a_minute() {
        let pod = |number: usize| PodKey {
            namespace: "shop".into(),
            name: "web".into(),
            uid: number.to_string().into(),
        };
        let ahead = Ahead::default();
        assert!((0..MOST_AHEAD).all(|number| ahead.note(&pod(number))));
        assert!(
            !ahead.note(&pod(MOST_AHEAD)) && ahead.note(&pod(0)),
            "those only that are there"
        );
        let wanted = BTreeSet::from([pod(7)]);
        assert_eq!(ahead.sweep(&wanted), []);
        tokio::time::advance(AHEAD).await;
        let gone = ahead.sweep(&BTreeSet::new());
        assert_eq!(gone.len(), MOST_AHEAD - 1);
        assert!(!gone.contains(&pod(7)), "it is no longer its own");
        assert!(ahead.note(&pod(MOST_AHEAD)), "there is room again");
    }
}
