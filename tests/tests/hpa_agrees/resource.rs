//! Situations of resource metrics: pods that are not ready, not measured, not there.

use dormouse_core::hpa::HpaReason::{
    FailedGetContainerResourceMetric, FailedGetResourceMetric, ReadyForNewScale, ScaleDownStabilized,
    ScaleUpLimit, SucceededRescale, ValidMetricFound,
};
use dormouse_core::hpa::ResourceTarget;

use crate::situation::{
    ContainerPlan, Do, PodPlan, Situation, average, container, of_container, per_replica, pod, quantity,
    situation, utilization,
};

pub(crate) fn all() -> Vec<Situation> {
    [measured(), missing(), unready(), failing(), containers()]
        .into_iter()
        .flatten()
        .collect()
}

/// An HPA from 1 to 20 that keeps its pods at half of the CPU they request.
fn half(name: &'static str, wanted: u32) -> Situation {
    situation(name)
        .bounds(1, 20)
        .wanted(wanted)
        .metrics([utilization("cpu", 50)])
}

fn measured() -> Vec<Situation> {
    vec![
        half("cpu-above", 4)
            .pods(4, &pod("100m", "80m"))
            .shows([4, 7], [SucceededRescale, ValidMetricFound]),
        half("cpu-within-tolerance", 4)
            .pods(4, &pod("100m", "54m"))
            .shows([4], [ReadyForNewScale]),
        // 55.9% are 55 whole ones, and those are at the tolerance's edge.
        half("cpu-percents-are-whole", 4)
            .pods(4, &pod("1000m", "559m"))
            .shows([4], [ReadyForNewScale]),
        half("cpu-one-percent-more", 4)
            .pods(4, &pod("1000m", "560m"))
            .shows([4, 5], []),
        half("cpu-below", 4)
            .pods(4, &pod("100m", "20m"))
            .script([Do::Reaches(2)])
            .shows([4, 2], [ScaleDownStabilized]),
        half("cpu-of-unlike-pods", 3)
            .pods(2, &pod("100m", "90m"))
            .pods(1, &pod("800m", "100m"))
            .script([Do::Reaches(2)])
            .shows([3, 2], []),
        situation("cpu-average-above")
            .bounds(1, 20)
            .wanted(3)
            .metrics([average("cpu", "100m")])
            .pods(3, &pod("1", "133m"))
            .shows([3, 4], []),
        situation("memory-average-below")
            .bounds(1, 20)
            .wanted(4)
            .metrics([average("memory", "100Mi")])
            .pods(4, &memory("300Mi", "40Mi"))
            .script([Do::Reaches(2)])
            .shows([4, 2], []),
        situation("cpu-beside-an-external-metric")
            .bounds(1, 20)
            .wanted(4)
            .metrics([utilization("cpu", 50), per_replica("queue", "1")])
            .queue("6")
            .pods(4, &pod("100m", "50m"))
            .shows([4, 6], []),
        half("cpu-more-pods-than-wanted", 2)
            .pods(4, &pod("100m", "75m"))
            .script([Do::Reaches(6)])
            .shows([2, 4, 6], [ScaleUpLimit]),
    ]
}

fn memory(requests: &'static str, uses: &'static str) -> PodPlan {
    pod("1", "1").containers([ContainerPlan {
        name: "main",
        requests: vec![("memory", requests)],
        uses: vec![("memory", uses)],
    }])
}

fn missing() -> Vec<Situation> {
    let silent = pod("100m", "0").unmeasured();
    vec![
        half("missing-upwards-count-as-idle", 4)
            .pods(3, &pod("100m", "100m"))
            .pods(1, &silent)
            .shows([4, 6], []),
        half("missing-upwards-within-tolerance", 4)
            .pods(3, &pod("100m", "70m"))
            .pods(1, &silent)
            .shows([4], [ReadyForNewScale]),
        half("missing-upwards-would-turn", 4)
            .pods(2, &pod("100m", "80m"))
            .pods(2, &silent)
            .shows([4], [ReadyForNewScale]),
        half("missing-downwards-count-as-full", 8)
            .pods(7, &pod("100m", "10m"))
            .pods(1, &silent)
            .script([Do::Reaches(4)])
            .shows([8, 4], []),
        half("missing-downwards-would-turn", 4)
            .pods(2, &pod("100m", "20m"))
            .pods(2, &silent)
            .shows([4], [ReadyForNewScale]),
        situation("missing-downwards-beyond-hundred-percent")
            .bounds(1, 20)
            .wanted(4)
            .metrics([utilization("cpu", 200)])
            .pods(3, &pod("100m", "50m"))
            .pods(1, &silent)
            .script([Do::Reaches(2)])
            .shows([4, 2], []),
        situation("missing-downwards-at-the-average")
            .bounds(1, 20)
            .wanted(4)
            .metrics([average("cpu", "100m")])
            .pods(3, &pod("100m", "20m"))
            .pods(1, &silent)
            .script([Do::Reaches(2)])
            .shows([4, 2], []),
        situation("missing-upwards-of-an-average")
            .bounds(1, 20)
            .wanted(3)
            .metrics([average("cpu", "100m")])
            .pods(2, &pod("100m", "300m"))
            .pods(1, &silent)
            .shows([3, 6], []),
        half("missing-beside-a-steady-rest", 3)
            .pods(2, &pod("100m", "50m"))
            .pods(1, &silent)
            .shows([3], [ReadyForNewScale]),
        half("succeeded-pods-are-missing", 4)
            .pods(3, &pod("100m", "100m"))
            .pods(1, &silent.clone().phase("Succeeded"))
            .shows([4, 6], []),
        half("more-missing-than-wanted", 2)
            .pods(1, &pod("100m", "20m"))
            .pods(3, &silent)
            .shows([2], [ReadyForNewScale]),
    ]
}

fn unready() -> Vec<Situation> {
    let busy = pod("100m", "100m");
    vec![
        half("pending-upwards-count-as-idle", 4)
            .pods(3, &busy)
            .pods(1, &busy.clone().phase("Pending").unmeasured())
            .shows([4, 6], []),
        half("pending-downwards-are-left-out", 4)
            .pods(3, &pod("100m", "20m"))
            .pods(1, &busy.clone().phase("Pending").unmeasured())
            .script([Do::Reaches(2)])
            .shows([4, 2], []),
        half("pending-and-missing-upwards", 5)
            .pods(3, &busy)
            .pods(1, &busy.clone().phase("Pending"))
            .pods(1, &busy.clone().unmeasured())
            .shows([5, 6], []),
        // The flags of this test: 25 s of initialization, 10 s until the first readiness.
        half("unready-while-it-starts", 3)
            .pods(2, &busy)
            .pods(1, &busy.clone().started(4).ready("False", 3))
            .shows([3, 4], []),
        half("unready-until-its-window-is-full", 3)
            .pods(2, &busy)
            .pods(1, &busy.clone().started(4).ready("True", 3))
            .script([Do::Reaches(6)])
            .shows([3, 4, 6], []),
        half("never-ready-since-its-start", 3)
            .pods(2, &busy)
            .pods(1, &busy.clone().started(60).ready("False", 55))
            .shows([3, 4], []),
        half("unready-but-once-ready", 3)
            .pods(2, &busy)
            .pods(1, &busy.clone().started(60).ready("False", 20))
            .shows([3, 6], []),
        half("readiness-unknown", 3)
            .pods(2, &busy)
            .pods(1, &busy.clone().ready("Unknown", 55))
            .shows([3, 6], []),
        half("without-a-start-time", 3)
            .pods(2, &busy)
            .pods(
                1,
                &PodPlan {
                    started: None,
                    ..busy.clone()
                },
            )
            .shows([3, 4], []),
        half("without-a-readiness", 3)
            .pods(2, &busy)
            .pods(
                1,
                &PodPlan {
                    ready: None,
                    ..busy.clone()
                },
            )
            .shows([3, 4], []),
        situation("memory-of-unready-pods-counts")
            .bounds(1, 20)
            .wanted(3)
            .metrics([utilization("memory", 50)])
            .pods(2, &memory("100Mi", "100Mi"))
            .pods(1, &memory("100Mi", "100Mi").started(60).ready("False", 55))
            .shows([3, 6], []),
        half("failed-and-deleted-pods-are-left-out", 2)
            .pods(2, &busy)
            .pods(1, &pod("100m", "0").phase("Failed"))
            .pods(1, &pod("100m", "0").deleting())
            .shows([2, 4], []),
        situation("average-of-pending-pods")
            .metrics([average("cpu", "45m")])
            .pods(2, &busy.clone().phase("Pending"))
            .shows([2], [FailedGetResourceMetric]),
        half("all-pods-pending", 2)
            .pods(2, &busy.phase("Pending"))
            .shows([2], [FailedGetResourceMetric]),
    ]
}

fn failing() -> Vec<Situation> {
    let nothing = pod("100m", "80m").containers([
        container("main", "100m", "80m"),
        ContainerPlan {
            name: "helper",
            requests: Vec::new(),
            uses: vec![("cpu", "10m")],
        },
    ]);
    let half_measured = pod("100m", "80m").containers([
        container("main", "100m", "80m"),
        ContainerPlan {
            name: "helper",
            requests: vec![("cpu", "100m")],
            uses: vec![("memory", "10Mi")],
        },
    ]);
    vec![
        half("no-pods", 2).shows([2], [FailedGetResourceMetric]),
        half("no-metrics", 2)
            .pods(2, &pod("100m", "0").unmeasured())
            .shows([2], [FailedGetResourceMetric]),
        half("no-request", 2)
            .pods(1, &pod("100m", "80m"))
            .pods(1, &nothing)
            .shows([2], [FailedGetResourceMetric]),
        half("average-without-request", 2)
            .metrics([average("cpu", "45m")])
            .pods(2, &nothing)
            .shows([2, 4], [SucceededRescale]),
        half("half-measured-pods-are-missing", 4)
            .pods(2, &pod("100m", "90m"))
            .pods(2, &half_measured)
            .shows([4], [ReadyForNewScale]),
        half("cpu-fails-beside-a-larger-queue", 2)
            .metrics([utilization("cpu", 50), per_replica("queue", "1")])
            .queue("4")
            .shows([2, 4], [ValidMetricFound]),
        half("cpu-fails-beside-a-smaller-queue", 4)
            .metrics([utilization("cpu", 50), per_replica("queue", "1")])
            .queue("2")
            .script([Do::Seconds(11)])
            .shows([4], [FailedGetResourceMetric]),
    ]
}

fn containers() -> Vec<Situation> {
    let two = pod("0", "0").containers([
        container("main", "100m", "100m"),
        container("helper", "400m", "40m"),
    ]);
    let half_of = |name, chosen| {
        situation(name)
            .bounds(1, 20)
            .metrics([of_container(chosen, ResourceTarget::Utilization(50))])
    };
    vec![
        half_of("container-above", "main")
            .pods(2, &two)
            .shows([2, 4], [SucceededRescale]),
        half_of("container-below", "helper")
            .wanted(4)
            .pods(4, &two)
            .script([Do::Reaches(1)])
            .shows([4, 1], []),
        situation("container-average")
            .bounds(1, 20)
            .metrics([of_container(
                "main",
                ResourceTarget::AverageValue(quantity("70m")),
            )])
            .pods(2, &two)
            .shows([2, 3], []),
        half("all-containers-together", 2).pods(2, &two).shows([2], []),
        half_of("container-unknown", "other")
            .pods(2, &two)
            .shows([2], [FailedGetContainerResourceMetric]),
        half_of("container-missing-in-some-pods", "helper")
            .pods(1, &two)
            .pods(1, &pod("100m", "80m"))
            .shows([2], [FailedGetContainerResourceMetric]),
    ]
}
