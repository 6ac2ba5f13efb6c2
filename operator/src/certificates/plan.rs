//! What the leader does next: a pure function of what the Secret holds and of how long others have known it.

use std::time::Duration;

use jiff::Timestamp;

use super::RotationSettings;
use super::issue::backdated_by;
use super::material::{Life, Material};

/// What of the content matters for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Of the authority that signs.
    pub(crate) signer: Life,
    /// Of the serving certificate, if there is one that can be served.
    pub(crate) leaf: Option<LeafFacts>,
    /// Authorities in the bundle besides the signing one.
    pub(crate) others: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafFacts {
    pub(crate) life: Life,
    /// Whether the signing authority has signed it, and not an older one.
    pub(crate) by_signer: bool,
    /// Whether it bears every name it should.
    pub(crate) has_names: bool,
}

/// One step; after it the plan is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing to do before this moment.
    Wait(Timestamp),
    /// Put a new signing authority in front of the bundle; the serving certificate stays.
    StageAuthority,
    /// Sign a new serving certificate.
    IssueLeaf,
    /// Take the authorities that sign nothing any more out of the bundle.
    RetireAuthorities,
}

impl Facts {
    pub(crate) fn of(material: &Material, names: &[String]) -> Option<Self> {
        let signer = material.authorities.first()?.life;
        let leaf = material.leaf.as_ref().ok().map(|leaf| LeafFacts {
            life: leaf.life,
            by_signer: leaf.issuer == 0,
            has_names: names.iter().all(|name| leaf.names.contains(name)),
        });
        Some(Self {
            signer,
            leaf,
            others: material.authorities.len() - 1,
        })
    }
}

/// The next step. `published_for` is how long the signing authority has been seen in the caBundle, if it is there.
pub(crate) fn plan(
    facts: &Facts,
    now: Timestamp,
    published_for: Option<Duration>,
    settings: &RotationSettings,
) -> Step {
    let Some(leaf) = facts.leaf else {
        // Nothing is served that could break.
        return Step::IssueLeaf;
    };
    let signer_due = facts.signer.at(settings.rotate_at);
    let leaf_due = leaf.life.at(settings.rotate_at);
    let over = |moment: Timestamp| moment <= now;
    if leaf.by_signer && over(signer_due) {
        return Step::StageAuthority;
    }
    if !leaf.by_signer || !leaf.has_names || over(leaf_due) {
        let spread = published_for.map(|known| settings.propagation.saturating_sub(known));
        return match spread {
            _ if leaf.by_signer => Step::IssueLeaf,
            Some(Duration::ZERO) => Step::IssueLeaf,
            // Its time is up, so waiting for the bundle saves nothing any more.
            _ if over(leaf.life.at(0.99)) => Step::IssueLeaf,
            Some(left) => Step::Wait(after(now, left)),
            None => Step::Wait(leaf.life.at(0.99)),
        };
    }
    let next = signer_due.min(leaf_due);
    if facts.others == 0 {
        return Step::Wait(next);
    }
    let made = after(leaf.life.from, backdated_by(settings.validity));
    // Certificates know whole seconds only: it may have been made up to one later.
    let retire = after(made, settings.overlap + Duration::from_secs(1));
    if over(retire) {
        return Step::RetireAuthorities;
    }
    Step::Wait(next.min(retire))
}

fn after(moment: Timestamp, span: Duration) -> Timestamp {
    moment.saturating_add(span).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn life(from: i64, until: i64) -> Life {
        Life {
            from: at(from),
            until: at(until),
        }
    }

    fn settings() -> RotationSettings {
        RotationSettings::new("keda", Duration::from_secs(300 * 86_400))
    }

    fn facts(by_signer: bool, others: usize) -> Facts {
        Facts {
            signer: life(0, 3000 * DAY),
            leaf: Some(LeafFacts {
                life: life(0, 300 * DAY),
                by_signer,
                has_names: true,
            }),
            others,
        }
    }

    const LONG: Option<Duration> = Some(Duration::from_secs(120));

    #[test]
    fn a_serving_certificate_is_replaced_at_two_thirds_of_its_life() {
        let facts = facts(true, 0);
        assert_eq!(plan(&facts, at(0), LONG, &settings()), Step::Wait(at(200 * DAY)));
        assert_eq!(
            plan(&facts, at(200 * DAY - 1), LONG, &settings()),
            Step::Wait(at(200 * DAY))
        );
        assert_eq!(plan(&facts, at(200 * DAY), LONG, &settings()), Step::IssueLeaf);
    }

    #[test]
    fn an_authority_is_staged_at_two_thirds_and_signs_once_the_bundle_has_spread() {
        let now = at(2000 * DAY);
        let mut facts = facts(true, 0);
        facts.leaf.as_mut().unwrap().life = life(1990 * DAY, 2290 * DAY);
        assert_eq!(plan(&facts, now, LONG, &settings()), Step::StageAuthority);

        facts.signer = life(2000 * DAY, 5000 * DAY);
        facts.leaf.as_mut().unwrap().by_signer = false;
        facts.others = 1;
        let unpublished = plan(&facts, now, None, &settings());
        assert_eq!(unpublished, Step::Wait(at(1990 * DAY + 297 * DAY)));
        let spreading = plan(&facts, now, Some(Duration::from_secs(119)), &settings());
        assert_eq!(spreading, Step::Wait(at(2000 * DAY + 1)));
        assert_eq!(plan(&facts, now, LONG, &settings()), Step::IssueLeaf);
    }

    #[test]
    fn an_unpublished_authority_signs_only_when_the_old_certificate_is_about_to_end() {
        let facts = facts(false, 1);
        assert!(matches!(
            plan(&facts, at(297 * DAY - 1), None, &settings()),
            Step::Wait(_)
        ));
        assert_eq!(plan(&facts, at(297 * DAY), None, &settings()), Step::IssueLeaf);
    }

    #[test]
    fn an_old_authority_stays_for_the_overlap() {
        let facts = facts(true, 1);
        let retire = 300 + 3600 + 1;
        assert_eq!(
            plan(&facts, at(retire - 1), LONG, &settings()),
            Step::Wait(at(retire))
        );
        assert_eq!(
            plan(&facts, at(retire), LONG, &settings()),
            Step::RetireAuthorities
        );
    }

    #[test]
    fn missing_names_and_missing_certificates_are_seen_to_at_once() {
        let mut lacking = facts(true, 0);
        lacking.leaf.as_mut().unwrap().has_names = false;
        assert_eq!(plan(&lacking, at(1), None, &settings()), Step::IssueLeaf);
        lacking.leaf = None;
        assert_eq!(plan(&lacking, at(1), None, &settings()), Step::IssueLeaf);
    }
}
