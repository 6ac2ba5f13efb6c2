//! Reports: what the data plane has to do, as operators are told of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_core::demand::MOST_ROUTES;
use dormouse_core::routes::RouteKey;
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
    /// The routes that had something to do by the newest report.
    busy: BTreeMap<RouteKey, RouteLoad>,
}

impl Scribe {
    /// The routes that had something to do when they were last looked at.
    pub(super) fn busy(&self) -> impl Iterator<Item = RouteKey> + '_ {
        self.busy.keys().cloned()
    }

    /// The next report, from the loads of all routes that are [busy](Self::busy) or were used since; `None` if it would say
    /// nothing new. A `whole` one is written in any case, from the loads of all routes.
    pub(super) fn write(&mut self, loads: Vec<RouteLoad>, whole: bool) -> Option<Report> {
        let was = |load: &RouteLoad| self.busy.get(&load.route);
        let is_known = loads.iter().all(|load| was(load) == Some(load));
        if !whole && self.sequence > 0 && is_known && loads.len() == self.busy.len() {
            return None;
        }
        let is_told = |load: &&RouteLoad| {
            let moved = || was(load).is_none_or(|was| was.started != load.started);
            load.is_busy() || (load.started > 0 && (whole || moved()))
        };
        let mut routes: Vec<RouteDemand> = loads.iter().filter(is_told).map(to_wire).collect();
        if routes.len() > MOST_ROUTES {
            // What is held matters most.
            routes.sort_by_key(|route| route.pending == 0 && route.in_flight == 0);
            routes.truncate(MOST_ROUTES);
        }
        let busy = loads.into_iter().filter(RouteLoad::is_busy);
        self.busy = busy.map(|load| (load.route.clone(), load)).collect();
        self.sequence += 1;
        Some(Report {
            sequence: self.sequence,
            routes,
        })
    }
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
        let mut next = |loads: &[RouteLoad]| write(&mut scribe, loads, false);
        assert_eq!(next(&[load("a", 2, 0, 2)]), Some((1, vec![entry("a", 2, 0, 2)])));
        assert_eq!(next(&[load("a", 2, 0, 2)]), None);
        assert_eq!(next(&[load("a", 0, 2, 2)]), Some((2, vec![entry("a", 0, 2, 2)])));
        assert_eq!(next(&[load("a", 0, 0, 2)]), Some((3, vec![])), "it holds nothing");
        assert_eq!(next(&[]), None, "and nobody looks at it any more");
        let came_and_went = next(&[load("a", 0, 0, 3)]);
        assert_eq!(came_and_went, Some((4, vec![entry("a", 0, 0, 3)])));
        let b = load("b", 0, 1, 1);
        assert_eq!(
            next(&[b]),
            Some((5, vec![entry("b", 0, 1, 1)])),
            "a stays as it was"
        );
        assert_eq!(next(&[]), Some((6, vec![])), "a route was removed");
    }

    #[test]
    fn those_that_hold_something_are_looked_at_again() {
        let mut scribe = Scribe::default();
        write(
            &mut scribe,
            &[load("a", 0, 0, 2), load("b", 1, 0, 1), load("c", 0, 1, 4)],
            false,
        );
        let names: Vec<_> = scribe.busy().map(|route| route.name.to_string()).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn a_whole_report_has_every_counter_that_ever_moved() {
        let mut scribe = Scribe::default();
        assert_eq!(
            write(&mut scribe, &[], false),
            Some((1, vec![])),
            "the first tells of itself"
        );
        let loads = [load("a", 0, 0, 7), load("b", 0, 0, 0)];
        assert_eq!(
            write(&mut scribe, &loads, true),
            Some((2, vec![entry("a", 0, 0, 7)]))
        );
        assert_eq!(
            write(&mut scribe, &loads, true),
            Some((3, vec![entry("a", 0, 0, 7)]))
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
