//! Situations of external metrics, bounds and limits without a behavior.

use dormouse_core::hpa::HpaReason::{
    DesiredWithinRange, FailedGetExternalMetric, FailedGetScale, InvalidSelector, NotScaledToZero,
    ReadyForNewScale, ScaleDownStabilized, ScaleUpLimit, ScaledToZero, ScalingDisabled, SucceededRescale,
    TooFewReplicas, TooManyReplicas, ValidMetricFound,
};

use crate::situation::{Do, Situation, in_all, of_series, per_replica, pod, situation};

pub(crate) fn all() -> Vec<Situation> {
    [averages(), steps(), failures(), bounds(), totals()]
        .into_iter()
        .flatten()
        .collect()
}

fn averages() -> Vec<Situation> {
    let two_and_a_bit = |name, value| situation(name).wanted(10).bounds(1, 20).queue(value);
    vec![
        situation("average-at-target")
            .queue("2")
            .shows([2], [ReadyForNewScale, DesiredWithinRange]),
        situation("average-above")
            .queue("3")
            .shows([2, 3], [SucceededRescale, ValidMetricFound]),
        two_and_a_bit("average-upper-edge", "11").shows([10], [ReadyForNewScale]),
        two_and_a_bit("average-beyond-upper-edge", "11001m").shows([10, 12], [SucceededRescale]),
        two_and_a_bit("average-lower-edge", "9").shows([10], [ReadyForNewScale]),
        two_and_a_bit("average-beyond-lower-edge", "8999m")
            .script([Do::Reaches(9)])
            .shows([10, 9], [ScaleDownStabilized, SucceededRescale]),
        situation("average-of-fractions")
            .metrics([per_replica("queue", "333m")])
            .queue("1500m")
            .script([Do::Reaches(5)])
            .shows([2, 4, 5], [ScaleUpLimit]),
        situation("average-of-binary-quantities")
            .metrics([per_replica("queue", "1Ki")])
            .queue("3500")
            .shows([2, 4], []),
        situation("average-of-nothing")
            .queue("0")
            .script([Do::Reaches(1)])
            .shows([2, 1], [TooFewReplicas]),
        // A number below 0 is taken for one that is too large.
        situation("average-negative")
            .queue("-3")
            .script([Do::Reaches(10)])
            .shows([2, 4, 8, 10], [TooManyReplicas]),
        situation("average-negative-in-part")
            .series("a", "-3")
            .series("b", "5")
            .script([Do::Reaches(10)])
            .shows([2, 4, 8, 10], [TooManyReplicas]),
        situation("average-overflowing")
            .series("a", "9000T")
            .series("b", "9000T")
            .script([Do::Reaches(10)])
            .shows([2, 4, 8, 10], [TooManyReplicas]),
        situation("average-huge")
            .queue("3G")
            .script([Do::Reaches(10)])
            .shows([2, 4, 8, 10], [ScaleUpLimit, TooManyReplicas]),
        situation("average-beyond-32-bits")
            .queue("5G")
            .script([Do::Reaches(10)])
            .shows([2, 4, 8, 10], [TooManyReplicas]),
        situation("series-are-added-up")
            .series("a", "1700m")
            .series("b", "2100m")
            .shows([2, 4], [ValidMetricFound]),
        situation("series-by-label")
            .metrics([of_series("b")])
            .series("a", "1700m")
            .series("b", "2800m")
            .shows([2, 3], [ValidMetricFound]),
        situation("running-lag-behind")
            .wanted(4)
            .running(2)
            .queue("4")
            .shows([4], [ReadyForNewScale]),
        situation("running-lag-within-tolerance")
            .wanted(4)
            .running(3)
            .queue("3")
            .script([Do::Reaches(3)])
            .shows([4, 3], []),
        situation("none-running")
            .wanted(3)
            .running(0)
            .queue("4")
            .shows([3, 4], [SucceededRescale]),
    ]
}

fn steps() -> Vec<Situation> {
    vec![
        situation("doubling")
            .wanted(1)
            .bounds(1, 30)
            .queue("25")
            .script([Do::Reaches(25)])
            .shows([1, 4, 8, 16, 25], [ScaleUpLimit, DesiredWithinRange]),
        situation("up-to-the-maximum")
            .bounds(1, 3)
            .queue("9")
            .shows([2, 3], [TooManyReplicas]),
        situation("down-to-the-minimum")
            .wanted(5)
            .bounds(3, 10)
            .queue("1")
            .script([Do::Reaches(3)])
            .shows([5, 3], [ScaleDownStabilized, TooFewReplicas]),
        situation("down-in-steps-of-the-past")
            .wanted(4)
            .bounds(1, 30)
            .queue("8")
            .script([
                Do::Reaches(8),
                Do::Set("queue", "5"),
                Do::Says(ScaleDownStabilized),
                Do::Seconds(3),
                Do::Set("queue", "2"),
                Do::Reaches(2),
            ])
            .shows([4, 8, 5, 2], [ScaleDownStabilized]),
        situation("up-again-while-held")
            .wanted(4)
            .queue("4")
            .script([
                Do::Says(ReadyForNewScale),
                Do::Set("queue", "1"),
                Do::Says(ScaleDownStabilized),
                Do::Set("queue", "6"),
                Do::Reaches(6),
                Do::Set("queue", "5"),
                Do::Reaches(5),
            ])
            .shows([4, 6, 5], [ScaleDownStabilized]),
        situation("somebody-else-scales")
            .queue("2")
            .script([Do::Says(ReadyForNewScale), Do::Want(7), Do::Reaches(2)])
            .shows([2, 7, 2], [SucceededRescale]),
    ]
}

fn failures() -> Vec<Situation> {
    let two = |name| situation(name).metrics([of_series("queue"), of_series("lag")]);
    vec![
        situation("no-series").shows([2], [FailedGetExternalMetric]),
        situation("no-such-metric")
            .metrics([per_replica("absent", "1")])
            .shows([2], [FailedGetExternalMetric]),
        situation("failing-and-back")
            .wanted(5)
            .queue("5")
            .script([
                Do::Says(ReadyForNewScale),
                Do::Remove("queue"),
                Do::Says(FailedGetExternalMetric),
                Do::Seconds(11),
                Do::Set("queue", "3"),
                Do::Reaches(3),
            ])
            .shows([5, 3], [FailedGetExternalMetric, SucceededRescale]),
        two("the-larger-of-two")
            .queue("3")
            .series("lag", "4")
            .shows([2, 4], [ValidMetricFound]),
        two("one-fails-the-other-asks-for-more")
            .queue("4")
            .shows([2, 4], [ValidMetricFound, SucceededRescale]),
        two("one-fails-the-other-asks-for-less")
            .wanted(5)
            .queue("1")
            .script([Do::Seconds(11)])
            .shows([5], [FailedGetExternalMetric]),
        two("one-fails-the-other-asks-for-the-same")
            .queue("2")
            .shows([2], [ValidMetricFound]),
        two("one-fails-the-other-is-zero")
            .series("lag", "0")
            .script([Do::Seconds(11)])
            .shows([2], [FailedGetExternalMetric]),
        two("both-fail").shows([2], [FailedGetExternalMetric]),
        two("one-fails-while-held")
            .wanted(4)
            .queue("4")
            .series("lag", "4")
            .script([
                Do::Says(ReadyForNewScale),
                Do::Remove("lag"),
                Do::Seconds(2),
                Do::Set("queue", "1"),
                Do::Says(FailedGetExternalMetric),
                Do::Seconds(11),
                Do::Set("lag", "2"),
                Do::Reaches(2),
            ])
            .shows([4, 2], [FailedGetExternalMetric]),
        situation("no-selector")
            .without_selector()
            .queue("5")
            .shows([2], [InvalidSelector]),
        situation("no-target")
            .without_target()
            .queue("5")
            .script([Do::Says(FailedGetScale)])
            .shows([], [FailedGetScale]),
        situation("target-comes-later")
            .without_target()
            .queue("5")
            .script([Do::Says(FailedGetScale), Do::Create, Do::Reaches(5)])
            .shows([2, 4, 5], [FailedGetScale, SucceededRescale]),
    ]
}

fn bounds() -> Vec<Situation> {
    vec![
        situation("asleep")
            .wanted(0)
            .queue("5")
            .script([Do::Says(ScalingDisabled)])
            .shows([0], [ScalingDisabled]),
        situation("asleep-and-woken")
            .wanted(0)
            .queue("3")
            .script([Do::Says(ScalingDisabled), Do::Want(1), Do::Reaches(3)])
            .shows([0, 1, 3], [ScalingDisabled, ValidMetricFound]),
        situation("put-to-sleep-by-somebody")
            .queue("2")
            .script([Do::Says(ReadyForNewScale), Do::Want(0), Do::Says(ScalingDisabled)])
            .shows([2, 0], [ScalingDisabled]),
        situation("above-the-maximum")
            .wanted(12)
            .queue("10")
            .script([Do::Reaches(10)])
            .shows([12, 10], [SucceededRescale]),
        situation("below-the-minimum")
            .bounds(4, 10)
            .queue("4")
            .script([Do::Reaches(4)])
            .shows([2, 4], [SucceededRescale]),
        situation("below-the-minimum-without-metrics")
            .bounds(4, 10)
            .script([Do::Reaches(4)])
            .shows([2, 4], [FailedGetExternalMetric]),
        situation("asleep-with-a-minimum-of-zero")
            .bounds(0, 10)
            .wanted(0)
            .queue("3")
            .shows([0], [ScalingDisabled]),
        situation("to-zero-and-back")
            .bounds(0, 10)
            .queue("0")
            .script([
                Do::Reaches(0),
                Do::Seconds(3),
                Do::Set("queue", "3"),
                Do::Reaches(3),
            ])
            .shows([2, 0, 3], [ScaledToZero, NotScaledToZero]),
        situation("to-zero-and-back-and-put-to-sleep")
            .bounds(0, 10)
            .queue("0")
            .script([
                Do::Reaches(0),
                Do::Set("queue", "2"),
                Do::Reaches(2),
                Do::Says(NotScaledToZero),
                Do::Want(0),
                Do::Says(ScalingDisabled),
            ])
            .shows([2, 0, 2, 0], [ScaledToZero, ScalingDisabled]),
    ]
}

fn totals() -> Vec<Situation> {
    let ready = pod("100m", "50m");
    vec![
        situation("total-above")
            .metrics([in_all("queue", "10")])
            .queue("25")
            .pods(2, &ready)
            .script([Do::Reaches(5)])
            .shows([2, 4, 5], [ScaleUpLimit]),
        situation("total-counts-ready-pods")
            .wanted(4)
            .metrics([in_all("queue", "10")])
            .queue("25")
            .pods(2, &ready)
            .pods(1, &ready.clone().ready("False", 60))
            .pods(1, &ready.clone().phase("Pending"))
            .shows([4, 5], []),
        situation("total-below")
            .wanted(4)
            .metrics([in_all("queue", "10")])
            .queue("5")
            .pods(4, &ready)
            .script([Do::Reaches(2)])
            .shows([4, 2], [ScaleDownStabilized]),
        situation("total-within-tolerance")
            .metrics([in_all("queue", "10")])
            .queue("10500m")
            .shows([2], [ReadyForNewScale]),
        situation("total-without-pods")
            .metrics([in_all("queue", "10")])
            .queue("25")
            .shows([2], [FailedGetExternalMetric]),
        situation("total-without-ready-pods")
            .wanted(3)
            .metrics([in_all("queue", "10")])
            .queue("25")
            .pods(2, &ready.clone().phase("Pending"))
            .script([Do::Reaches(1)])
            .shows([3, 1], [TooFewReplicas]),
        situation("total-to-zero-and-back")
            .bounds(0, 10)
            .metrics([in_all("queue", "10")])
            .queue("0")
            .pods(2, &ready)
            .script([Do::Reaches(0), Do::Set("queue", "25"), Do::Reaches(5)])
            .shows([2, 0, 3, 5], [ScaledToZero]),
        situation("total-negative")
            .wanted(4)
            .metrics([in_all("queue", "10")])
            .series("a", "-30")
            .series("b", "20")
            .pods(2, &ready)
            .script([Do::Reaches(1)])
            .shows([4, 1], [TooFewReplicas]),
    ]
}
