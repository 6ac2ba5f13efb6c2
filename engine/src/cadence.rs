//! The moments at which a loop acts: polling ticks one interval apart, and equal steps between them of at most the awake
//! cadence, at which sources are read while replicas run.

use std::time::Duration;

use dormouse_core::ScalePolicy;
use tokio::time::Instant;

/// One such moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// Whether activity is decided then, and not only read.
    pub(crate) polling: bool,
}

/// All moments of a loop, counted from one of its polling ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cadence {
    anchor: Instant,
    interval: Duration,
    steps: u128,
}

impl Cadence {
    pub(crate) fn new(anchor: Instant, interval: Duration) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let steps = interval
            .as_nanos()
            .div_ceil(ScalePolicy::AWAKE_CADENCE.as_nanos());
        Self {
            anchor,
            interval,
            steps,
        }
    }

    /// The first moment strictly after `then`.
    pub(crate) fn after(&self, then: Instant) -> Moment {
        let interval = self.interval.as_nanos();
        let Some(anchor) = self.anchor_before(then) else {
            return Moment {
                at: self.anchor,
                polling: true,
            };
        };
        let passed = then.saturating_duration_since(anchor).as_nanos();
        let at = |step: u128| {
            let nanos = u64::try_from(interval * step / self.steps).unwrap_or(u64::MAX);
            anchor + Duration::from_nanos(nanos)
        };
        let mut step = passed * self.steps / interval + 1;
        while at(step) <= then {
            step += 1;
        }
        Moment {
            at: at(step),
            polling: step.is_multiple_of(self.steps),
        }
    }

    /// The first polling tick strictly after `then`.
    pub(crate) fn polling_after(&self, then: Instant) -> Instant {
        self.polling_from(self.after(then))
    }

    /// The first polling tick that is `moment` or comes after it.
    pub(crate) fn polling_from(&self, mut moment: Moment) -> Instant {
        while !moment.polling {
            moment = self.after(moment.at);
        }
        moment.at
    }

    /// A polling tick at or before `then`. There is none where the clock does not reach that far back.
    fn anchor_before(&self, then: Instant) -> Option<Instant> {
        let ahead = self.anchor.saturating_duration_since(then).as_nanos();
        let intervals = u32::try_from(ahead.div_ceil(self.interval.as_nanos())).ok()?;
        self.anchor.checked_sub(self.interval.checked_mul(intervals)?)
    }

    /// What comes after a moment that began at `began`, as of `now`. A polling tick that was missed meanwhile is made up
    /// for, once; a step in between that was missed is not.
    pub(crate) fn next(&self, began: Instant, now: Instant) -> Moment {
        let mut next = self.after(began);
        while !next.polling && next.at <= now {
            next = self.after(next.at);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(moments: &[(f64, bool)], start: Instant) -> Vec<Moment> {
        let moment = |&(at, polling): &(f64, bool)| Moment {
            at: start + Duration::from_secs_f64(at),
            polling,
        };
        moments.iter().map(moment).collect()
    }

    #[test]
    fn ticks_and_steps() {
        let start = Instant::now() + Duration::from_secs(1000);
        let cadence = Cadence::new(start, Duration::from_secs(40));
        let third = 40.0 / 3.0;
        let mut moments = vec![cadence.after(start)];
        for _ in 0..3 {
            moments.push(cadence.after(moments[moments.len() - 1].at));
        }
        let nearly = |moment: &Moment| (moment.at - start).as_millis();
        let expected = seconds(
            &[
                (third, false),
                (2.0 * third, false),
                (40.0, true),
                (40.0 + third, false),
            ],
            start,
        );
        assert_eq!(
            moments.iter().map(nearly).collect::<Vec<_>>(),
            expected.iter().map(nearly).collect::<Vec<_>>()
        );
        assert_eq!(
            moments.iter().map(|moment| moment.polling).collect::<Vec<_>>(),
            [false, false, true, false]
        );
    }

    #[test]
    fn a_missed_tick_is_made_up_for_once_and_a_missed_step_is_not() {
        let start = Instant::now() + Duration::from_secs(1000);
        let cadence = Cadence::new(start, Duration::from_secs(30));
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(
            cadence.next(start, at(1)),
            Moment {
                at: at(15),
                polling: false
            }
        );
        assert_eq!(
            cadence.next(start, at(16)),
            Moment {
                at: at(30),
                polling: true
            }
        );
        assert_eq!(
            cadence.next(start, at(95)),
            Moment {
                at: at(30),
                polling: true
            }
        );
        assert_eq!(
            cadence.next(at(95), at(96)),
            Moment {
                at: at(105),
                polling: false
            }
        );
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_cadence(interval in 1u64..4000, anchor in 0u64..5000, then in 0u64..20_000_000) {
            let start = Instant::now() + Duration::from_secs(1);
            let interval = Duration::from_secs(interval);
            let cadence = Cadence::new(start + Duration::from_millis(anchor), interval);
            let then = start + Duration::from_millis(then);
            let next = cadence.after(then);
            prop_assert!(next.at > then);
            prop_assert!(next.at - then <= interval.min(ScalePolicy::AWAKE_CADENCE) + Duration::from_nanos(1));
            let mut tick = next;
            while !tick.polling {
                tick = cadence.after(tick.at);
            }
            prop_assert!(tick.at - then <= interval + Duration::from_nanos(1));
        }
    }
}
