//! Reports: what the data plane has to do, as operators are told of it.

use std::sync::Arc;

use dormouse_core::demand::MOST_ROUTES;
use dormouse_proxy::RouteLoad;
use dormouse_wire::demand::{Report, Route, RouteDemand};

/// The newest report, for all sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Bulletin {
    /// Number 0 and without routes before the first.
    pub(super) report: Arc<Report>,
    /// Every counter is in it, not only those that moved since the report before.
    pub(super) whole: bool,
    /// There will be none after it.
    pub(super) last: bool,
}

/// Writes the reports of one process.
#[derive(Debug, Default)]
pub(super) struct Scribe {
    sequence: u64,
    /// What the newest report was made of, in the order of the routes' keys.
    told: Vec<RouteLoad>,
}

impl Scribe {
    /// The next report, from a snapshot in the order of the routes' keys; `None` if it would say nothing new. A `whole` one is
    /// written in any case.
    pub(super) fn write(&mut self, loads: Vec<RouteLoad>, whole: bool) -> Option<Report> {
        if !whole && loads == self.told {
            return None;
        }
        let mut routes: Vec<RouteDemand> = loads
            .iter()
            .enumerate()
            .filter(|(index, load)| {
                let moved = || load.started != self.counter_told(*index, load);
                holds(load) || (load.started > 0 && (whole || moved()))
            })
            .map(|(_, load)| to_wire(load))
            .collect();
        if routes.len() > MOST_ROUTES {
            // What is held matters most.
            routes.sort_by_key(|route| route.pending == 0 && route.in_flight == 0);
            routes.truncate(MOST_ROUTES);
        }
        self.told = loads;
        self.sequence += 1;
        Some(Report {
            sequence: self.sequence,
            routes,
        })
    }

    /// What was last told of the counter of the route that is at `index` by now.
    fn counter_told(&self, index: usize, load: &RouteLoad) -> u64 {
        // Routes come and go seldom.
        let same_place = self.told.get(index).filter(|told| told.route == load.route);
        let told = same_place.or_else(|| {
            let found = self.told.binary_search_by(|told| told.route.cmp(&load.route));
            self.told.get(found.ok()?)
        });
        told.map_or(0, |told| told.started)
    }
}

fn holds(load: &RouteLoad) -> bool {
    load.pending > 0 || load.in_flight > 0
}

fn to_wire(load: &RouteLoad) -> RouteDemand {
    RouteDemand {
        route: Some(Route {
            namespace: load.route.namespace.to_string(),
            name: load.route.name.to_string(),
        }),
        pending: load.pending,
        in_flight: load.in_flight,
        started: load.started,
    }
}

#[cfg(test)]
mod tests {
    use dormouse_core::routes::RouteKey;

    use super::*;

    fn load(name: &str, pending: u32, in_flight: u32, started: u64) -> RouteLoad {
        RouteLoad {
            route: RouteKey::new("shop", name),
            pending,
            in_flight,
            started,
        }
    }

    /// Name, pending, in flight, started.
    type Entry = (String, u32, u32, u64);

    /// The report of a snapshot: its number, and what it says of each route.
    fn write(scribe: &mut Scribe, loads: &[RouteLoad], whole: bool) -> Option<(u64, Vec<Entry>)> {
        let report = scribe.write(loads.to_vec(), whole)?;
        let routes = report.routes.into_iter().map(|demand| {
            let name = demand.route.unwrap().name;
            (name, demand.pending, demand.in_flight, demand.started)
        });
        Some((report.sequence, routes.collect()))
    }

    fn entry(name: &str, pending: u32, in_flight: u32, started: u64) -> Entry {
        (name.to_owned(), pending, in_flight, started)
    }

    #[test]
    fn a_report_has_the_routes_that_hold_something_or_were_used_since_the_one_before() {
        let mut scribe = Scribe::default();
        let idle = load("idle", 0, 0, 0);
        let seen = write(&mut scribe, &[load("a", 2, 0, 2), idle.clone()], false);
        assert_eq!(seen, Some((1, vec![entry("a", 2, 0, 2)])));
        let seen = write(&mut scribe, &[load("a", 0, 2, 2), idle.clone()], false);
        assert_eq!(seen, Some((2, vec![entry("a", 0, 2, 2)])));
        let seen = write(&mut scribe, &[load("a", 0, 0, 3), idle.clone()], false);
        assert_eq!(
            seen,
            Some((3, vec![entry("a", 0, 0, 3)])),
            "it came and went in between"
        );
        let b = load("b", 0, 1, 1);
        let seen = write(&mut scribe, &[load("a", 0, 0, 3), b.clone(), idle.clone()], false);
        assert_eq!(seen, Some((4, vec![entry("b", 0, 1, 1)])), "a stays as it was");
        let seen = write(&mut scribe, &[b, idle], false);
        assert_eq!(seen, Some((5, vec![entry("b", 0, 1, 1)])), "a route was removed");
    }

    #[test]
    fn nothing_new_is_no_report_unless_a_whole_one_is_asked_for() {
        let mut scribe = Scribe::default();
        let loads = [load("a", 0, 0, 7), load("b", 0, 0, 0)];
        assert!(write(&mut scribe, &loads, false).is_some());
        assert_eq!(write(&mut scribe, &loads, false), None);
        assert_eq!(
            write(&mut scribe, &loads, true),
            Some((2, vec![entry("a", 0, 0, 7)])),
            "with every counter that ever moved"
        );
    }

    #[test]
    fn a_report_is_bounded_and_what_is_held_goes_first() {
        let mut scribe = Scribe::default();
        let mut loads: Vec<_> = (0..MOST_ROUTES)
            .map(|number| load(&format!("{number:06}"), 0, 0, 1))
            .collect();
        loads.push(load("z", 1, 0, 1));
        let (_, routes) = write(&mut scribe, &loads, true).unwrap();
        assert_eq!((routes.len(), &*routes[0].0), (MOST_ROUTES, "z"));
    }
}
