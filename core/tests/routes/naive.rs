//! The table against a matcher that looks at every rule of every route, and knows nothing of tables.

use dormouse_core::routes::{BuildOptions, Candidate, RouteTable};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{Headers, route, rule};

const HOSTS: [&str; 12] = [
    "*", "a.b", "A.B:80", "x.a.b", "x.a.b.", "*.b", "*.a.b", "*.x.a.b", "b", "y.b", "[::1]", "*.c",
];
const PATHS: [&str; 12] = [
    "/", "/a", "/a/", "/a/b", "a/b/c", "/a.b", "/a b", "/ab", "/b", "/a/../b", "/a//b", "/%61",
];
const HEADERS: [(&str, Option<&str>); 5] = [
    ("X-A", None),
    ("x-a", Some("1")),
    ("x-a", Some("2")),
    ("x-b", None),
    ("X-B", Some("1")),
];

const REQUEST_HOSTS: [&str; 13] = [
    "a.b",
    "A.b:8080",
    "a.b.",
    "x.a.b",
    "y.x.a.b",
    "z.y.x.A.B.:1",
    "b",
    "y.b",
    "c",
    "z.c",
    "[0::1]:80",
    "",
    ".b",
];
const REQUEST_PATHS: [&str; 16] = [
    "/", "", "/a", "/a/", "/%61/b", "/a%2fb", "/a/b/c/d", "/a.b", "/a%20b", "/ab", "/abc", "/b/a", "/a/../b",
    "/a//b", "/%2561", "/a/c",
];
const REQUEST_HEADERS: [(&str, &str); 4] = [("x-a", "1"), ("x-a", "2"), ("x-b", "1"), ("x-b", "0")];

/// A rule as it is written.
#[derive(Clone, Debug)]
struct Written {
    hosts: Vec<&'static str>,
    paths: Vec<&'static str>,
    headers: Vec<(&'static str, Option<&'static str>)>,
}

/// A route as it is written.
#[derive(Clone, Debug)]
struct Route {
    namespace: &'static str,
    name: String,
    created: i64,
    rules: Vec<Written>,
}

#[derive(Clone, Debug)]
struct Request {
    host: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl Route {
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// More is older.
    fn age(&self) -> impl Ord + use<> {
        (-self.created, self.namespace, self.name.clone())
    }

    fn candidate(&self) -> Candidate<String> {
        let rules = self.rules.iter();
        let rules = rules.map(|written| rule(&written.hosts, &written.paths, &written.headers));
        route(&self.key(), self.created, rules.collect())
    }
}

fn or<T: Clone>(values: &[T], default: T) -> Vec<T> {
    if values.is_empty() {
        vec![default]
    } else {
        values.to_vec()
    }
}

fn plain_host(host: &str) -> String {
    if host.starts_with('[') {
        return "::1".into();
    }
    let host = host.split(':').next().unwrap().to_lowercase();
    host.strip_suffix('.').unwrap_or(&host).into()
}

/// How specific a host pattern is, if it matches.
fn host_rank(pattern: &str, host: &str) -> Option<usize> {
    let pattern = plain_host(pattern);
    if pattern == "*" {
        return Some(0);
    }
    if let Some(suffix) = pattern.strip_prefix('*') {
        let longer = host.len() > suffix.len() && host.ends_with(suffix);
        return longer.then(|| suffix.matches('.').count());
    }
    (pattern == host).then_some(usize::MAX)
}

fn segments(path: &str) -> Vec<&str> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        Vec::new()
    } else {
        path.split('/').collect()
    }
}

fn path_rank(prefix: &str, path: &str) -> Option<usize> {
    let prefix = segments(prefix);
    segments(path).starts_with(&prefix).then_some(prefix.len())
}

/// How many headers are asked for and how many values, if they are all there.
fn header_rank(asked: &[(&str, Option<&str>)], sent: &[(&str, &str)]) -> Option<(usize, usize)> {
    let mut asked: Vec<_> = asked
        .iter()
        .map(|(name, value)| (name.to_lowercase(), *value))
        .collect();
    let all = asked.clone();
    asked.retain(|(name, value)| {
        value.is_some() || !all.iter().any(|(other, value)| other == name && value.is_some())
    });
    let met = asked.iter().all(|(name, value)| {
        sent.iter()
            .any(|(key, found)| key == name && value.is_none_or(|value| value == *found))
    });
    let valued = asked.iter().filter(|(_, value)| value.is_some()).count();
    met.then_some((asked.len(), valued))
}

fn decoded(path: &str) -> String {
    let path = path.replace("%61", "a").replace("%2f", "/").replace("%20", " ");
    path.replace("%25", "%")
}

/// Whether a host is another namespace's.
fn is_foreign(routes: &[Route], route: &Route, host: &str) -> bool {
    let names = |other: &&Route| {
        let mut hosts = other.rules.iter().flat_map(|written| or(&written.hosts, "*"));
        hosts.any(|other| plain_host(other) == plain_host(host))
    };
    let first = routes.iter().filter(names).max_by_key(|other| other.age());
    first.is_some_and(|first| first.namespace != route.namespace)
}

/// Of all rules that match wholly, the route of the most specific one.
fn naive(routes: &[Route], request: &Request, shared: bool) -> Option<String> {
    let (host, path) = (plain_host(request.host), decoded(request.path));
    let mut found = Vec::new();
    for route in routes {
        for written in &route.rules {
            let Some(headers) = header_rank(&written.headers, &request.headers) else {
                continue;
            };
            for pattern in or(&written.hosts, "*") {
                if !shared && is_foreign(routes, route, pattern) {
                    continue;
                }
                let ranks = or(&written.paths, "/").into_iter();
                let ranks = ranks.filter_map(|prefix| path_rank(prefix, &path));
                if let (Some(host), Some(path)) = (host_rank(pattern, &host), ranks.max()) {
                    found.push((host, path, headers, route.age(), route.key()));
                }
            }
        }
    }
    found.into_iter().max().map(|(.., key)| key)
}

prop_compose! {
    fn any_rule()(
        hosts in subsequence(HOSTS.to_vec(), 0..3),
        paths in subsequence(PATHS.to_vec(), 0..4),
        headers in subsequence(HEADERS.to_vec(), 0..3),
    ) -> Written {
        Written { hosts, paths, headers }
    }
}

fn any_routes() -> impl Strategy<Value = Vec<Route>> {
    let rules = proptest::collection::vec(any_rule(), 0..4);
    let routes = proptest::collection::vec((select(vec!["m", "n"]), 0i64..4, rules), 0..12);
    routes.prop_map(|routes| {
        let routes = routes.into_iter().enumerate();
        let named = routes.map(|(index, (namespace, created, rules))| Route {
            namespace,
            name: format!("r{index}"),
            created,
            rules,
        });
        named.collect()
    })
}

prop_compose! {
    fn any_request()(
        host in select(REQUEST_HOSTS.to_vec()),
        path in select(REQUEST_PATHS.to_vec()),
        headers in subsequence(REQUEST_HEADERS.to_vec(), 0..=4),
    ) -> Request {
        Request { host, path, headers }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_finds_what_looking_at_every_rule_finds(
        routes in any_routes(),
        requests in proptest::collection::vec(any_request(), 16),
        shared in any::<bool>(),
    ) {
        let candidates = routes.iter().map(Route::candidate).collect();
        let (table, _) = RouteTable::build(candidates, BuildOptions { hosts_across_namespaces: shared });
        for request in requests {
            let found = table.find(request.host, request.path, &Headers(&request.headers));
            prop_assert_eq!(found.cloned(), naive(&routes, &request, shared), "{:?}", request);
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        (routes, shuffled) in any_routes().prop_flat_map(|routes| (Just(routes.clone()), Just(routes).prop_shuffle())),
        request in any_request(),
        shared in any::<bool>(),
    ) {
        let options = BuildOptions { hosts_across_namespaces: shared };
        let build = |routes: &[Route]| RouteTable::build(routes.iter().map(Route::candidate).collect(), options);
        let ((one, conflicts), (other, same_conflicts)) = (build(&routes), build(&shuffled));
        let headers = Headers(&request.headers);
        prop_assert_eq!(
            one.find(request.host, request.path, &headers),
            other.find(request.host, request.path, &headers)
        );
        prop_assert_eq!(&conflicts, &same_conflicts);
        for conflict in conflicts {
            prop_assert!(!conflict.over.is_empty());
            prop_assert_ne!(conflict.winner, conflict.loser);
        }
    }

    #[test]
    fn any_text_is_looked_up_without_a_fault(host in ".{0,40}", path in ".{0,40}", routes in any_routes()) {
        let candidates = routes.iter().map(Route::candidate).collect();
        let (table, _) = RouteTable::build(candidates, BuildOptions::default());
        let _ = table.find(&host, &path, &Headers(&[]));
    }
}
