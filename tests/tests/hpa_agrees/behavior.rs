//! Situations with a behavior: tolerances, look-backs and policies.

use dormouse_core::hpa::HpaReason::{
    DesiredWithinRange, ReadyForNewScale, ScaleDownLimit, ScaleDownStabilized, ScaleUpLimit,
    ScaleUpStabilized, SucceededRescale, TooFewReplicas, TooManyReplicas,
};
use dormouse_core::hpa::SelectPolicy;

use crate::situation::{
    Do, Situation, at_once, disabled, percent_per, pods_per, policies, rules, select, situation, tolerance,
    window,
};

pub(crate) fn all() -> Vec<Situation> {
    [tolerances(), policies_up(), policies_down(), windows()]
        .into_iter()
        .flatten()
        .collect()
}

fn tolerances() -> Vec<Situation> {
    vec![
        situation("tolerance-none-upwards")
            .wanted(5)
            .behavior(tolerance("0"), rules())
            .queue("5001m")
            .shows([5, 6], [SucceededRescale]),
        situation("tolerance-wide-upwards")
            .wanted(4)
            .behavior(tolerance("0.5"), rules())
            .queue("6")
            .shows([4], [ReadyForNewScale]),
        situation("tolerance-wide-upwards-exceeded")
            .wanted(4)
            .behavior(tolerance("0.5"), rules())
            .queue("6001m")
            .shows([4, 7], []),
        situation("tolerance-narrow-downwards")
            .wanted(10)
            .behavior(rules(), at_once(tolerance("0.01")))
            .queue("9800m")
            .shows([10], [ReadyForNewScale]),
        situation("tolerance-narrow-downwards-exceeded")
            .wanted(10)
            .bounds(1, 20)
            .behavior(rules(), at_once(tolerance("0.01")))
            .queue("9")
            .shows([10, 9], [SucceededRescale]),
        situation("tolerance-of-the-other-direction")
            .wanted(10)
            .bounds(1, 20)
            .behavior(rules(), tolerance("0.01"))
            .queue("10500m")
            .shows([10], [ReadyForNewScale]),
    ]
}

fn policies_up() -> Vec<Situation> {
    vec![
        situation("default-rules-up")
            .wanted(1)
            .behavior(rules(), rules())
            .queue("9")
            .script([Do::Reaches(9)])
            .shows([1, 5, 9], [ScaleUpLimit]),
        situation("pods-up")
            .wanted(1)
            .behavior(policies([pods_per(1, 3)]), rules())
            .queue("4")
            .script([Do::Reaches(4)])
            .shows([1, 2, 3, 4], [ScaleUpLimit, DesiredWithinRange]),
        situation("percent-up")
            .behavior(policies([percent_per(50, 2)]), rules())
            .queue("9")
            .script([Do::Reaches(9)])
            .shows([2, 3, 5, 8, 9], [ScaleUpLimit]),
        situation("percent-up-of-few")
            .wanted(1)
            .behavior(policies([percent_per(1, 2)]), rules())
            .queue("3")
            .script([Do::Reaches(3)])
            .shows([1, 2, 3], [ScaleUpLimit]),
        situation("largest-up")
            .behavior(policies([pods_per(1, 4), percent_per(200, 4)]), rules())
            .queue("9")
            .script([Do::Reaches(9)])
            .shows([2, 6, 9], [ScaleUpLimit]),
        situation("smallest-up")
            .behavior(
                select(SelectPolicy::Min, policies([pods_per(1, 2), percent_per(200, 4)])),
                rules(),
            )
            .queue("4")
            .script([Do::Reaches(4)])
            .shows([2, 3, 4], [ScaleUpLimit]),
        situation("never-up")
            .behavior(disabled(), rules())
            .queue("9")
            .shows([2], [ScaleUpLimit]),
        situation("pods-up-to-the-maximum")
            .bounds(1, 4)
            .behavior(policies([pods_per(9, 2)]), rules())
            .queue("9")
            .shows([2, 4], [TooManyReplicas]),
        situation("two-periods-up")
            .wanted(1)
            .bounds(1, 20)
            .behavior(
                select(SelectPolicy::Min, policies([pods_per(2, 1), pods_per(3, 6)])),
                rules(),
            )
            .queue("8")
            .script([Do::Reaches(8)])
            .shows([1, 3, 4, 6, 7, 8], [ScaleUpLimit]),
    ]
}

fn policies_down() -> Vec<Situation> {
    vec![
        situation("default-rules-down")
            .wanted(8)
            .behavior(rules(), rules())
            .queue("2")
            .script([Do::Says(ScaleDownStabilized), Do::Reaches(2)])
            .shows([8, 2], [ScaleDownStabilized, SucceededRescale]),
        situation("pods-down")
            .wanted(5)
            .behavior(rules(), at_once(policies([pods_per(1, 3)])))
            .queue("2")
            .script([Do::Reaches(2)])
            .shows([5, 4, 3, 2], [ScaleDownLimit]),
        situation("percent-down")
            .wanted(10)
            .behavior(rules(), at_once(policies([percent_per(50, 2)])))
            .queue("0")
            .script([Do::Reaches(1)])
            .shows([10, 5, 2, 1], [ScaleDownLimit, TooFewReplicas]),
        situation("percent-down-of-few")
            .wanted(4)
            .behavior(rules(), at_once(policies([percent_per(10, 2)])))
            .queue("2")
            .script([Do::Reaches(2)])
            .shows([4, 3, 2], [ScaleDownLimit]),
        situation("largest-down")
            .wanted(9)
            .behavior(
                rules(),
                at_once(policies([pods_per(1, 600), percent_per(60, 600)])),
            )
            .queue("1")
            .shows([9, 3], [ScaleDownLimit]),
        situation("smallest-down")
            .wanted(9)
            .behavior(
                rules(),
                at_once(select(
                    SelectPolicy::Min,
                    policies([pods_per(1, 600), percent_per(60, 600)]),
                )),
            )
            .queue("1")
            .shows([9, 8], [ScaleDownLimit]),
        situation("never-down")
            .wanted(9)
            .behavior(rules(), at_once(disabled()))
            .queue("1")
            .shows([9], [ScaleDownLimit]),
        situation("up-and-down-within-a-period")
            .wanted(4)
            .bounds(1, 20)
            .behavior(
                policies([pods_per(4, 600)]),
                at_once(policies([pods_per(3, 600)])),
            )
            .queue("12")
            .script([
                Do::Reaches(8),
                Do::Says(ScaleUpLimit),
                Do::Set("queue", "1"),
                Do::Reaches(1),
            ])
            .shows([4, 8, 1], [ScaleUpLimit]),
        situation("down-and-up-within-a-period")
            .wanted(8)
            .bounds(1, 30)
            .behavior(
                policies([pods_per(2, 600)]),
                at_once(policies([pods_per(5, 600)])),
            )
            .queue("1")
            .script([
                Do::Reaches(3),
                Do::Says(ScaleDownLimit),
                Do::Set("queue", "30"),
                Do::Reaches(10),
            ])
            .shows([8, 3, 10], [ScaleDownLimit, ScaleUpLimit]),
    ]
}

fn windows() -> Vec<Situation> {
    vec![
        situation("window-up")
            .behavior(window(8), rules())
            .queue("2")
            .script([
                Do::Says(ReadyForNewScale),
                Do::Set("queue", "5"),
                Do::Says(ScaleUpStabilized),
                Do::Reaches(5),
            ])
            .shows([2, 5], [ScaleUpStabilized, SucceededRescale]),
        situation("window-up-forgets-a-peak")
            .behavior(window(8), rules())
            .queue("2")
            .script([
                Do::Says(ReadyForNewScale),
                Do::Set("queue", "8"),
                Do::Says(ScaleUpStabilized),
                Do::Set("queue", "2"),
                Do::Seconds(10),
            ])
            .shows([2], [ScaleUpStabilized]),
        situation("window-down-of-nothing")
            .wanted(9)
            .behavior(rules(), at_once(rules()))
            .queue("1")
            .shows([9, 1], [SucceededRescale]),
        situation("window-down-longer-than-the-flag")
            .wanted(6)
            .behavior(rules(), window(12))
            .queue("1")
            .script([Do::Says(ScaleDownStabilized), Do::Reaches(1)])
            .shows([6, 1], [ScaleDownStabilized]),
        situation("windows-both-ways")
            .wanted(4)
            .bounds(1, 20)
            .behavior(window(6), window(12))
            .queue("4")
            .script([
                Do::Says(ReadyForNewScale),
                Do::Set("queue", "8"),
                Do::Says(ScaleUpStabilized),
                Do::Reaches(8),
                Do::Set("queue", "2"),
                Do::Says(ScaleDownStabilized),
                Do::Set("queue", "6"),
                Do::Reaches(6),
            ])
            .shows([4, 8, 6], [ScaleUpStabilized, ScaleDownStabilized]),
        situation("window-and-policy-down")
            .wanted(9)
            .behavior(
                rules(),
                dormouse_core::hpa::Rules {
                    policies: Some(vec![pods_per(3, 3)]),
                    ..window(6)
                },
            )
            .queue("1")
            .script([Do::Says(ScaleDownStabilized), Do::Reaches(1)])
            .shows([9, 6, 3, 1], [ScaleDownStabilized, ScaleDownLimit]),
        situation("above-the-maximum-with-behavior")
            .wanted(14)
            .behavior(disabled(), disabled())
            .queue("1")
            .script([Do::Reaches(10)])
            .shows([14, 10], [SucceededRescale, ScaleDownLimit]),
    ]
}
