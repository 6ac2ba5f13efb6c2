//! What is measured on pods, some of which are not there, not ready or not measured yet.

use super::*;

/// A pod with one container that requests 100m and has been ready for an hour.
fn pod(name: &str) -> Pod {
    Pod {
        name: name.into(),
        phase: PodPhase::Running,
        deleting: false,
        started: Some(at(-3600)),
        ready: Some(PodReadiness {
            status: Some(true),
            since: at(-3600),
        }),
        requests: vec![(
            "main".into(),
            BTreeMap::from([("cpu".to_owned(), quantity("100m"))]),
        )],
    }
}

/// Pods `p0`, `p1`... by what they use of CPU; `None` is not measured.
fn measured(uses: &[Option<&str>]) -> (Vec<Pod>, Result<HpaReading, String>) {
    let pods = (0..uses.len()).map(|index| pod(&format!("p{index}"))).collect();
    let usage = uses.iter().enumerate().filter_map(|(index, cpu)| {
        let used = BTreeMap::from([("cpu".to_owned(), quantity((*cpu)?))]);
        let usage = PodUsage {
            taken: at(-5),
            window: Duration::from_secs(30),
            containers: BTreeMap::from([("main".to_owned(), used)]),
        };
        Some((format!("p{index}"), usage))
    });
    (pods, Ok(HpaReading::Pods(usage.collect())))
}

/// The replicas, from as many as there are pods, at half of the requested CPU.
fn at_half(pods: Vec<Pod>, reading: Result<HpaReading, String>) -> u32 {
    let spec = HpaSpec {
        metrics: vec![cpu(50)],
        ..with_behavior(Rules::default(), at_once(Rules::default()))
    };
    let mut played = Played::from(u32::try_from(pods.len()).unwrap(), spec);
    played.see(vec![reading], pods, 0);
    played.replicas
}

#[test]
fn utilization_counts_whole_percents() {
    let of = |cpu: &str| {
        let (pods, reading) = measured(&[Some(cpu); 4]);
        at_half(pods, reading)
    };
    assert_eq!(
        [of("55m"), of("55999u"), of("56m"), of("45m"), of("44m")],
        [4, 5, 5, 4, 4]
    );
    assert_eq!(of("20m"), 2);
}

#[test]
fn pods_without_metrics_weaken_a_change_and_never_turn_it() {
    // (uses, replicas from as many)
    let cases: [(&[Option<&str>], u32); 6] = [
        (&[Some("100m"), Some("100m"), Some("100m"), None], 6),
        (&[Some("80m"), Some("80m"), None, None], 4),
        (
            &[
                Some("10m"),
                Some("10m"),
                Some("10m"),
                Some("10m"),
                Some("10m"),
                Some("10m"),
                None,
            ],
            4,
        ),
        (&[Some("20m"), Some("20m"), None, None], 4),
        (&[Some("50m"), Some("50m"), None], 3),
        (&[None, None], 2),
    ];
    for (uses, expected) in cases {
        let (pods, reading) = measured(uses);
        assert_eq!(at_half(pods, reading), expected, "{uses:?}");
    }
}

#[test]
fn cpu_of_a_pod_that_warms_up_does_not_count() {
    let ready = |status, since| {
        Some(PodReadiness {
            status,
            since: at(since),
        })
    };
    // (start, readiness, whether it counts); a pod counts as initializing for 300 s.
    let cases = [
        (-3600, ready(Some(true), -3600), true),
        (-3600, None, false),
        (-200, ready(Some(false), -190), false),
        (-200, ready(Some(true), -36), true),
        (-200, ready(Some(true), -34), false),
        (-300, ready(Some(false), -269), true),
        (-300, ready(Some(false), -271), false),
        (-299, ready(Some(false), -100), false),
        (-3600, ready(None, -3600), true),
    ];
    for (started, ready, counts) in cases {
        let (mut pods, reading) = measured(&[Some("100m"), Some("100m"), Some("100m")]);
        (pods[2].started, pods[2].ready) = (Some(at(started)), ready);
        let expected = if counts { 6 } else { 4 };
        assert_eq!(at_half(pods, reading), expected, "{started} {ready:?}");
    }
}

#[test]
fn pods_that_go_or_failed_are_left_out_and_pending_ones_only_weaken_growth() {
    let uses = [Some("100m"), Some("100m"), Some("0")];
    let with = |change: fn(&mut Pod)| {
        let (mut pods, reading) = measured(&uses);
        change(&mut pods[2]);
        at_half(pods, reading)
    };
    assert_eq!(with(|pod| pod.deleting = true), 4);
    assert_eq!(with(|pod| pod.phase = PodPhase::Failed), 4);
    assert_eq!(with(|pod| pod.phase = PodPhase::Pending), 4);
    let (mut pods, reading) = measured(&[Some("20m"), Some("20m"), Some("100m")]);
    pods[2].phase = PodPhase::Pending;
    assert_eq!(at_half(pods, reading), 1);
}

#[test]
fn what_makes_a_utilization_unknown_is_said() {
    let failure = |pods: Vec<Pod>, reading: Result<HpaReading, String>, metric: HpaMetric| {
        let mut played = Played::from(
            2,
            HpaSpec {
                metrics: vec![metric],
                ..spec()
            },
        );
        let evaluation = played.see(vec![reading], pods, 0);
        assert_eq!(evaluation.rescale, None);
        played.history.conditions.scaling_active.unwrap().message
    };
    let (mut pods, reading) = measured(&[Some("80m"), Some("80m")]);
    pods[1].requests[0].1.clear();
    assert!(failure(pods, reading, cpu(50)).contains("missing request for cpu in container main of Pod p1"));

    let (_, reading) = measured(&[Some("80m")]);
    assert!(failure(Vec::new(), reading, cpu(50)).contains("no pods returned by selector"));

    let other = HpaMetric::Resource {
        resource: "cpu".into(),
        container: Some("other".into()),
        target: ResourceTarget::Utilization(50),
    };
    let (mut pods, mut reading) = measured(&[Some("80m"), Some("80m")]);
    assert!(failure(pods.clone(), reading.clone(), other.clone()).contains("did not receive metrics"));
    pods[0].requests[0].0 = "other".into();
    if let Ok(HpaReading::Pods(usage)) = &mut reading {
        let used = usage["p0"].containers["main"].clone();
        usage
            .get_mut("p0")
            .unwrap()
            .containers
            .insert("other".into(), used);
    }
    assert_eq!(
        failure(pods, reading, other),
        "the HPA was unable to compute the replica count: failed to get cpu utilization: container other not found \
         in Pod p1"
    );
}

#[test]
fn a_total_grows_the_ready_pods_by_its_ratio() {
    let total = HpaSpec {
        metrics: vec![queue(ExternalTarget::Value(quantity("10")))],
        ..with_behavior(Rules::default(), at_once(Rules::default()))
    };
    let play = |replicas, value: &str, ready: usize, waiting: usize| {
        let (mut pods, _) = measured(&vec![None; ready + waiting]);
        for pod in &mut pods[ready..] {
            pod.ready = None;
        }
        let mut played = Played::from(replicas, total.clone());
        played.see(vec![series(value)], pods, 0);
        played.replicas
    };
    assert_eq!(play(4, "25", 2, 2), 5);
    assert_eq!(play(4, "5", 4, 0), 2);
    assert_eq!(play(4, "10500m", 1, 0), 4);
    assert_eq!(play(4, "25", 0, 0), 4, "without pods nothing is known");
    assert_eq!(play(4, "25", 0, 2), 1);
}
