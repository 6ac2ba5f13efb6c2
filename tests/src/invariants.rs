//! What must hold of a ScaledObject whatever goes wrong around it, judged from outside: by what was asked for, what its
//! source said, what its metric was, and what became of its replicas.
//!
//! ```text
//! History<spec, mood, pause>  what the test did, each step with the time it took ─┐
//! Asked, MetricRead           what the source and the HPA's side saw ─────────────┼─> Observed::violations
//! Outage                      when the operator or its network was down ──────────┘
//! ```
//!
//! Each rule speaks only where the cause is plain: a step that was just taken gives no verdict until its time is over.

use std::fmt;
use std::time::{Duration, Instant};

use crate::fleet::Member;
use crate::metric_reads::MetricRead;
use crate::sources::{Asked, Mood};
use crate::timeline::Change;

const SECOND: Duration = Duration::from_secs(1);
/// How often the HPA controller of the test cluster looks at an HPA.
pub const HPA_SYNC: Duration = Duration::from_secs(5);
/// For how long that controller remembers a higher wish.
const STABILIZATION: Duration = Duration::from_secs(10);
/// What the test's eyes and a busy machine add.
pub const SEEN_LATE: Duration = Duration::from_secs(3);
/// The longest a source may take; then it counts as failed.
const READ: Duration = Duration::from_secs(3);

/// One step of the test: `value` holds from some time between the two moments.
#[derive(Clone, Debug)]
pub struct Step<T> {
    /// Before the step.
    pub began: Instant,
    /// After it.
    pub ended: Instant,
    /// What holds since.
    pub value: T,
}

/// Steps in their order.
#[derive(Clone, Debug)]
pub struct History<T>(Vec<Step<T>>);

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> History<T> {
    /// Adds the newest step.
    pub fn push(&mut self, began: Instant, value: T) {
        let ended = Instant::now();
        self.0.push(Step { began, ended, value });
    }

    /// The newest value.
    #[must_use]
    pub fn now(&self) -> Option<&T> {
        self.0.last().map(|step| &step.value)
    }

    /// The value, if it was the same one all the time.
    #[must_use]
    pub fn steady(&self, from: Instant, to: Instant) -> Option<&T> {
        let at = self.0.iter().rposition(|step| step.ended <= from)?;
        let next = self.0.get(at + 1);
        next.is_none_or(|next| next.began >= to)
            .then(|| &self.0[at].value)
    }

    /// Every value that may have held at some time between the two.
    pub fn within(&self, from: Instant, to: Instant) -> impl Iterator<Item = &T> {
        let first = self.0.iter().rposition(|step| step.ended <= from).unwrap_or(0);
        self.0[first..]
            .iter()
            .filter(move |step| step.began <= to)
            .map(|step| &step.value)
    }

    /// The times between steps, each with what held.
    pub fn spells(&self, end: Instant) -> impl Iterator<Item = (Instant, Instant, &T)> {
        self.0.iter().enumerate().map(move |(at, step)| {
            let until = self.0.get(at + 1).map_or(end, |next| next.began);
            (step.ended, until, &step.value)
        })
    }
}

/// What was down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The leader was killed: the lease has to run out.
    Killed,
    /// The leader was told to stop.
    Stopped,
    /// The operator and the API server could not reach each other.
    CutOff,
}

/// A time at which the operator could not do its work.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// What was down.
    pub down: Down,
    /// From when.
    pub from: Instant,
    /// Until when; later than any time if it goes on.
    pub until: Instant,
}

impl Outage {
    /// When loops tick again at the latest.
    #[must_use]
    pub fn over(&self) -> Instant {
        self.until
            + match self.down {
                Down::Killed => 16 * SECOND,
                Down::Stopped => 2 * SECOND,
                // A cut that outlasts the lease may take a whole lease more when its holder died meanwhile.
                Down::CutOff => 10 * SECOND,
            }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// When.
    pub at: Instant,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// Broken now.
    #[must_use]
    pub fn now(what: impl fmt::Display) -> Self {
        Self {
            at: Instant::now(),
            what: what.to_string(),
        }
    }
}

/// One ScaledObject, and all that was seen of it.
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its spec; `None` while it does not exist.
    pub specs: History<Option<Member>>,
    /// Its source.
    pub moods: History<Mood>,
    /// Whether it is paused.
    pub paused: History<bool>,
    /// Its target's replicas.
    pub replicas: Vec<Change<i64>>,
    /// The requests to its source.
    pub asked: Vec<Asked>,
    /// The reads of its metric.
    pub reads: Vec<MetricRead>,
}

impl Observed {
    /// Every rule that was broken until `end`.
    #[must_use]
    pub fn violations(&self, outages: &[Outage], end: Instant) -> Vec<Violation> {
        let mut found = Vec::new();
        for two in self.replicas.windows(2) {
            self.change(&two[0], &two[1], outages, &mut found);
        }
        let mut patience = Duration::ZERO;
        for (from, until, mood) in self.moods.spells(end) {
            if let Some(number) = sound(mood) {
                // Who was just told to wait does not know yet that nobody minds any more.
                let from = (from + patience).min(until);
                if number > 0.0 {
                    self.wakes(from, until, outages, &mut found);
                }
                self.is_served(from, until, outages, &mut found);
            }
            patience = match mood {
                Mood::Throttles(wait) => *wait,
                _ => Duration::ZERO,
            };
        }
        for violation in &mut found {
            violation.what = format!("{}: {}", self.name, violation.what);
        }
        found
    }

    /// Bounds, pauses, failing sources and cooldowns, at a change of replicas.
    fn change(&self, old: &Change<i64>, new: &Change<i64>, outages: &[Outage], found: &mut Vec<Violation>) {
        let (at, from, to) = (new.at, old.value, new.value);
        let mut tell = |what: String| {
            found.push(Violation {
                at,
                what: format!("{from} -> {to} {what}"),
            })
        };
        // Who acts may have been cut off since before a step; what it knew then still counts.
        let knew = outages
            .iter()
            .filter(|outage| outage.from <= at && outage.over() + SEEN_LATE >= at)
            .map(|outage| outage.from)
            .fold(at, Instant::min)
            .checked_sub(3 * HPA_SYNC)
            .unwrap_or(at);
        let specs: Vec<_> = self.specs.within(knew, at).flatten().collect();
        let admitted = |spec: &&Member| (to == 0 && spec.min == 0) || (spec.min..=spec.max).contains(&to);
        if specs.is_empty() {
            tell("though no ScaledObject is there to scale it".to_owned());
        } else if !specs.iter().any(admitted) {
            tell(format!("is outside of its bounds {specs:?}"));
        }
        if self.paused.steady(knew, at) == Some(&true) {
            tell("while it is paused".to_owned());
        }
        if to >= from {
            return;
        }
        let (Some(Some(spec)), false) = (self.specs.steady(knew, at), specs.is_empty()) else {
            return;
        };
        let stale = Duration::from_secs(spec.interval) + READ + SECOND + HPA_SYNC + SEEN_LATE;
        if let Some(since) = at.checked_sub(stale)
            && let Some(mood) = self.moods.steady(since, at)
            && sound(mood).is_none()
        {
            tell(format!("while its source fails: {}", shown(mood)));
        }
        let known = at.checked_sub(SEEN_LATE / 2).unwrap_or(at);
        let active = self
            .asked
            .iter()
            .rev()
            .find(|asked| asked.at <= known && asked.said > Some(0.0));
        if to == 0
            && let Some(active) = active
            && at - active.at + SECOND < Duration::from_secs(spec.cooldown)
        {
            tell(format!(
                "{:?} after its source was active, within the cooldown of {} s",
                at - active.at,
                spec.cooldown
            ));
        }
    }

    /// A source that is active for long enough has replicas.
    fn wakes(&self, from: Instant, until: Instant, outages: &[Outage], found: &mut Vec<Violation>) {
        let Some(Some(spec)) = self.specs.steady(from, until.min(from + SECOND)) else {
            return;
        };
        let ticks = Duration::from_secs(spec.interval) + SEEN_LATE;
        let mut due = from + ticks;
        for outage in outages {
            if outage.from < due && outage.over() > from {
                due = due.max(outage.over() + ticks);
            }
        }
        let is_steady = until >= due
            && matches!(self.specs.steady(from, due), Some(Some(_)))
            && self.paused.steady(from, due) == Some(&false);
        let now = self.replicas.iter().rev().find(|change| change.at <= due);
        if is_steady && now.is_none_or(|now| now.value == 0) {
            found.push(Violation {
                at: due,
                what: format!("asleep {:?} after its source became active", due - from),
            });
        }
    }

    /// A source that answers gives the HPA a number at least every second sync.
    fn is_served(&self, from: Instant, until: Instant, outages: &[Outage], found: &mut Vec<Violation>) {
        let Some(Some(spec)) = self.specs.steady(from, until.min(from + SECOND)) else {
            return;
        };
        let begin = from + Duration::from_secs(spec.interval) + READ + SEEN_LATE;
        let cut = |read: &&MetricRead| {
            outages.iter().any(|outage| {
                let over = if outage.down == Down::CutOff {
                    outage.over()
                } else {
                    outage.from
                };
                read.ended >= outage.from && read.began <= over
            })
        };
        let counts = |read: &&MetricRead| {
            let lead = read.began.checked_sub(begin - from).unwrap_or(from);
            read.began >= begin
                && read.ended <= until
                && matches!(self.specs.steady(lead, read.ended), Some(Some(_)))
                && self.paused.steady(lead, read.ended) == Some(&false)
                && !cut(read)
        };
        let mut failing: Option<&MetricRead> = None;
        for read in self.reads.iter().filter(counts) {
            match (&read.failure, failing) {
                (None, _) => failing = None,
                (Some(_), None) => failing = Some(read),
                (Some(failure), Some(first)) if read.ended - first.began > 2 * HPA_SYNC => {
                    found.push(Violation {
                        at: first.began,
                        what: format!("no metric for {:?}: {failure}", read.ended - first.began),
                    });
                    return;
                }
                (Some(_), Some(_)) => {}
            }
        }
    }
}

/// The number that a source gives in time, if it does.
fn sound(mood: &Mood) -> Option<f64> {
    match mood {
        Mood::Slow(_, delay) if *delay + SECOND / 2 > READ => None,
        other => other.number(),
    }
}

fn shown(mood: &Mood) -> String {
    format!("{mood:?}").chars().take(60).collect()
}

/// How long after its last wish an HPA may still be on its way down to it.
#[must_use]
pub fn settled(interval: u64) -> Duration {
    Duration::from_secs(interval) + STABILIZATION + 3 * HPA_SYNC + SEEN_LATE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute of an object that was made at its beginning, with what happened told in seconds.
    struct Minute(Instant);

    impl Minute {
        fn at(&self, seconds: u64) -> Instant {
            self.0 + Duration::from_secs(seconds)
        }

        fn steps<T>(&self, steps: Vec<(u64, T)>) -> History<T> {
            let step = |(seconds, value)| Step {
                began: self.at(seconds),
                ended: self.at(seconds),
                value,
            };
            History(steps.into_iter().map(step).collect())
        }

        fn broken(
            &self,
            moods: Vec<(u64, Mood)>,
            replicas: &[(u64, i64)],
            change: impl FnOnce(&mut Observed),
            outages: &[Outage],
        ) -> Vec<String> {
            let member = Member {
                cooldown: 10,
                ..Member::new("a", 2)
            };
            let said = |number: f64, second: u64| Asked {
                at: self.at(second),
                authorization: None,
                said: Some(number),
                status: 200,
            };
            let moods = self.steps(moods);
            let asked = (0..60).filter_map(|second| {
                Some(said(
                    sound(moods.steady(self.at(second), self.at(second))?)?,
                    second,
                ))
            });
            let mut observed = Observed {
                name: "a".to_owned(),
                specs: self.steps(vec![(0, Some(member))]),
                asked: asked.collect(),
                moods,
                paused: self.steps(vec![(0, false)]),
                replicas: replicas
                    .iter()
                    .map(|(at, value)| Change {
                        at: self.at(*at),
                        value: *value,
                    })
                    .collect(),
                reads: Vec::new(),
            };
            change(&mut observed);
            let found = observed.violations(outages, self.at(60));
            found.into_iter().map(|violation| violation.what).collect()
        }
    }

    fn minute() -> Minute {
        Minute(Instant::now() + Duration::from_secs(3600))
    }

    fn one(found: &[String], part: &str) {
        assert!(
            matches!(found, [only] if only.contains(part)),
            "{part}: {found:?}"
        );
    }

    #[test]
    fn a_quiet_life_breaks_nothing() {
        let moods = vec![
            (0, Mood::Value(0.0)),
            (10, Mood::Value(10.0)),
            (30, Mood::Value(0.0)),
        ];
        let found = minute().broken(moods, &[(0, 0), (12, 1), (16, 2), (42, 1), (46, 0)], |_| {}, &[]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let this = minute();
        let quiet = || vec![(0, Mood::Value(0.0))];
        one(
            &this.broken(quiet(), &[(0, 0), (20, 9)], |_| {}, &[]),
            "outside of its bounds",
        );
        one(
            &this.broken(
                quiet(),
                &[(0, 0), (20, 1)],
                |seen| seen.paused = this.steps(vec![(0, true)]),
                &[],
            ),
            "paused",
        );
        one(
            &this.broken(
                quiet(),
                &[(0, 0), (20, 1)],
                |seen| seen.specs = this.steps(vec![(0, None)]),
                &[],
            ),
            "no ScaledObject",
        );
        let fails = vec![(0, Mood::Value(10.0)), (5, Mood::Hangs)];
        one(
            &this.broken(fails, &[(0, 2), (40, 1)], |_| {}, &[]),
            "while its source fails",
        );
        let works = vec![(0, Mood::Value(10.0)), (30, Mood::Value(0.0))];
        one(
            &this.broken(works, &[(0, 2), (33, 0)], |_| {}, &[]),
            "within the cooldown",
        );
        let sleeps = || vec![(0, Mood::Value(0.0)), (20, Mood::Value(1.0))];
        one(&this.broken(sleeps(), &[(0, 0)], |_| {}, &[]), "asleep");
        one(&this.broken(sleeps(), &[(0, 0), (28, 1)], |_| {}, &[]), "asleep");
    }

    #[test]
    fn a_source_that_asked_for_patience_gets_it_after_it_forgot() {
        let this = minute();
        let moods = |before| vec![(0, before), (20, Mood::Value(1.0))];
        let late: &[_] = &[(0, 0), (27, 1)];
        let throttles = Mood::Throttles(Duration::from_secs(3));
        let found = this.broken(moods(throttles), late, |_| {}, &[]);
        assert!(found.is_empty(), "{found:?}");
        one(&this.broken(moods(Mood::Hangs), late, |_| {}, &[]), "asleep");
    }

    #[test]
    fn an_outage_excuses_what_it_explains_and_no_more() {
        let this = minute();
        let moods = || vec![(0, Mood::Value(0.0)), (20, Mood::Value(1.0))];
        let outage = |down| Outage {
            down,
            from: this.at(19),
            until: this.at(19),
        };
        let found = this.broken(moods(), &[(0, 0), (38, 1)], |_| {}, &[outage(Down::Killed)]);
        assert!(found.is_empty(), "{found:?}");
        one(
            &this.broken(moods(), &[(0, 0), (38, 1)], |_| {}, &[outage(Down::Stopped)]),
            "asleep",
        );
    }

    #[test]
    fn a_metric_may_be_missing_for_two_syncs() {
        let this = minute();
        let failing = |from: u64, to: u64| {
            let read = move |second: u64| MetricRead {
                began: this.0 + Duration::from_secs(second),
                ended: this.0 + Duration::from_secs(second),
                failure: (from..to).contains(&second).then(|| "no".to_owned()),
            };
            (0..60).map(read).collect::<Vec<_>>()
        };
        let moods = || vec![(0, Mood::Value(0.0))];
        let found = this.broken(moods(), &[(0, 0)], |seen| seen.reads = failing(20, 30), &[]);
        assert!(found.is_empty(), "{found:?}");
        one(
            &this.broken(moods(), &[(0, 0)], |seen| seen.reads = failing(20, 33), &[]),
            "no metric",
        );
        let cut = Outage {
            down: Down::CutOff,
            from: this.at(18),
            until: this.at(24),
        };
        let found = this.broken(moods(), &[(0, 0)], |seen| seen.reads = failing(20, 33), &[cut]);
        assert!(found.is_empty(), "{found:?}");
    }
}
