//! What interceptors are told of pods that do not start. No network is in it: time is a test's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::{DemandReport, PodStage, RouteDemand, RouteKey};
use dormouse_engine::DemandHub;
use dormouse_scalers::{OwnAddresses, RouteScaling};
use dormouse_wire::demand::FromOperator;
use dormouse_wire::demand::from_operator::Message;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::fixture::{Pods, selection, web};
use crate::demand::obstacles::Obstacles;
use crate::demand::sessions::{Opened, Sessions};
use crate::leadership::tests::Leads;

/// An operator that knows of one interceptor, and of a pod whose image cannot be pulled.
struct Stage {
    hub: DemandHub,
    told: mpsc::Receiver<Result<FromOperator, Status>>,
    sequence: u64,
    _session: Opened,
    _follow: AbortOnDropHandle<()>,
}

impl Stage {
    fn set(leads: bool) -> Self {
        let sessions = Sessions::default();
        let hub = DemandHub::new(
            OwnAddresses::new("scaler", "keda", Vec::new()),
            Arc::new(sessions.clone()),
        );
        let concurrency = RouteScaling {
            concurrency: Some(10),
            rate: None,
        };
        hub.set_route(web(), concurrency);
        hub.listed([("pod-a".into(), PodStage::Staying)].into());
        let pods = Pods::default();
        pods.set(json!({
            "metadata": {"name": "web-1"},
            "status": {"phase": "Pending", "containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff"}},
            }]},
        }));
        let (outbox, told) = mpsc::channel(16);
        let session = sessions.open("pod-a".into(), outbox).unwrap();
        let obstacles = Obstacles {
            hub: hub.clone(),
            sessions,
            pods: Arc::new(pods),
            selector: Arc::new(|route: &RouteKey| Some(selection(route))),
            leadership: Arc::new(Leads::always(leads)),
        };
        Self {
            hub,
            told,
            sequence: 0,
            _session: session,
            _follow: AbortOnDropHandle::new(tokio::spawn(obstacles.follow())),
        }
    }

    fn report(&mut self, pending: u32, in_flight: u32) {
        self.sequence += 1;
        let demand = RouteDemand {
            pending,
            in_flight,
            started: 1,
        };
        self.hub.apply(DemandReport {
            reporter: "pod-a".into(),
            session: 1,
            sequence: self.sequence,
            routes: BTreeMap::from([(web(), demand)]),
            goodbye: false,
        });
    }

    /// What was told in the seconds that follow, with the second.
    async fn seconds(&mut self, seconds: u64) -> Vec<(u64, String)> {
        let mut told = Vec::new();
        for second in 1..=seconds {
            sleep(Duration::from_secs(1)).await;
            assert!(self.hub.heartbeat("pod-a", 1, self.sequence));
            while let Ok(message) = self.told.try_recv() {
                match message.unwrap().message {
                    Some(Message::Obstacle(obstacle)) => {
                        assert_eq!(obstacle.route.unwrap().name, "web");
                        told.push((second, obstacle.what));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        told
    }
}

#[tokio::test(start_paused = true)]
async fn what_keeps_pods_from_starting_is_told_while_requests_wait_for_it() {
    let mut stage = Stage::set(true);
    stage.report(0, 0);
    assert!(stage.seconds(10).await.is_empty(), "nobody waits");
    stage.report(1, 0);
    let told = stage.seconds(15).await;
    let [(second, what)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(
        (2..=4).contains(second) && what == "its image cannot be pulled",
        "{told:?}"
    );
    assert_eq!(stage.seconds(15).await.len(), 1, "and again, as it lasts");
    stage.report(0, 1);
    let told = stage.seconds(5).await;
    assert_eq!(told.iter().map(|(_, what)| &**what).collect::<Vec<_>>(), [""]);
}

#[tokio::test(start_paused = true)]
async fn one_who_does_not_lead_says_nothing() {
    let mut stage = Stage::set(false);
    stage.report(1, 0);
    assert!(stage.seconds(10).await.is_empty());
}
