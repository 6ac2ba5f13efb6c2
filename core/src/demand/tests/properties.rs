//! What holds whatever the network does to reports.

use proptest::prelude::*;

use super::*;

const PODS: usize = 3;

fn pod(index: usize) -> Arc<str> {
    format!("pod-{index}").into()
}

/// What one interceptor says over time; its counter grows with each report.
fn any_history() -> impl Strategy<Value = Vec<(u32, u32, u64)>> {
    proptest::collection::vec((0u32..50, 0u32..50, 0u64..20), 1..12).prop_map(|mut history| {
        let mut started = 0;
        for entry in &mut history {
            started += entry.2;
            entry.2 = started;
        }
        history
    })
}

/// Reports of all interceptors.
fn any_reports() -> impl Strategy<Value = Vec<Vec<DemandReport>>> {
    proptest::collection::vec(any_history(), PODS).prop_map(|histories| {
        let numbered = |(index, history): (usize, Vec<(u32, u32, u64)>)| {
            let reports = (1..).zip(history);
            reports
                .map(|(sequence, (pending, in_flight, started))| {
                    report(&pod(index), sequence, pending, in_flight, started)
                })
                .collect()
        };
        histories.into_iter().enumerate().map(numbered).collect()
    })
}

/// What the network makes of it: the first report of each comes first, as a stream brings it, then any of them in any
/// order and number, and somewhere among them the newest.
fn any_delivery() -> impl Strategy<Value = (Vec<Vec<DemandReport>>, Vec<DemandReport>)> {
    any_reports().prop_flat_map(|reports| {
        let all: Vec<DemandReport> = reports.concat();
        let newest: Vec<DemandReport> = reports
            .iter()
            .filter_map(|of_one| of_one.last().cloned())
            .collect();
        let first: Vec<DemandReport> = reports
            .iter()
            .filter_map(|of_one| of_one.first().cloned())
            .collect();
        let some = proptest::collection::vec(proptest::sample::select(all), 0..40);
        some.prop_flat_map(move |mut delivered| {
            delivered.extend(newest.iter().cloned());
            let first = first.clone();
            Just(delivered)
                .prop_shuffle()
                .prop_map(move |rest| [first.clone(), rest].concat())
        })
        .prop_map(move |delivered| (reports.clone(), delivered))
    })
}

fn book(now: Instant) -> DemandBook {
    let mut book = DemandBook::new();
    book.listed(
        (0..PODS).map(|number| (pod(number), PodStage::Staying)).collect(),
        now,
    );
    book.follow(web(), Some(RateWindow::new(seconds(60.0), seconds(1.0))), now);
    book
}

proptest! {
    #[test]
    fn lost_doubled_and_late_reports_change_nothing_once_the_newest_have_come((reports, delivered) in any_delivery()) {
        let now = Instant::now();
        let (mut ideal, mut real) = (book(now), book(now));
        for report in reports.concat() {
            ideal.apply(report, now);
        }
        for report in delivered {
            real.apply(report, now);
        }
        let counted = |book: &DemandBook| match book.totals(&web(), now) {
            Demand::Known(totals) => Some((totals.pending, totals.in_flight, totals.rate)),
            Demand::Unknown { .. } => None,
        };
        prop_assert!(counted(&ideal).is_some());
        prop_assert_eq!(counted(&ideal), counted(&real));
    }

    #[test]
    fn no_demand_is_ever_known_to_be_less_than_what_the_newest_reports_hold(
        (_, delivered) in any_delivery(),
        steps in proptest::collection::vec(0u64..1500, 1..60),
    ) {
        let mut now = Instant::now();
        let mut book = book(now);
        let mut newest: BTreeMap<Arc<str>, DemandReport> = BTreeMap::new();
        for (report, step) in delivered.into_iter().zip(steps.into_iter().cycle()) {
            now += Duration::from_millis(step);
            book.apply(report.clone(), now);
            let known = newest.entry(report.reporter.clone()).or_insert_with(|| report.clone());
            if report.sequence > known.sequence {
                *known = report;
            }
            if let Demand::Known(totals) = book.totals(&web(), now) {
                let held: u64 = newest.values().map(|report| report.routes[&web()].held()).sum();
                prop_assert_eq!(totals.held(), held);
                prop_assert!(totals.rate.is_some_and(|rate| rate.is_finite() && rate >= held as f64));
            }
        }
    }

    #[test]
    fn every_edge_is_looked_at((_, delivered) in any_delivery()) {
        let now = Instant::now();
        let mut book = book(now);
        let held = |book: &DemandBook| match book.totals(&web(), now) {
            Demand::Known(totals) | Demand::Unknown { at_least: totals, .. } => totals.held(),
        };
        for report in delivered {
            let before = held(&book);
            let look_at = book.apply(report, now);
            if before == 0 && held(&book) > 0 {
                prop_assert_eq!(look_at, vec![web()]);
            }
        }
    }
}
