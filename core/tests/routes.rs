//! The table of routes: what is found for which request, and who wins.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

#[path = "routes/naive.rs"]
mod naive;

use std::collections::BTreeSet;

use dormouse_core::routes::{
    BuildOptions, Candidate, Conflict, Contested, HeaderRule, HeaderSet, HostPattern, PathPrefix, RouteKey,
    RouteTable, Rule,
};

/// Headers of a request.
struct Headers<'h>(&'h [(&'h str, &'h str)]);

impl HeaderSet for Headers<'_> {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        self.0
            .iter()
            .any(|(key, found)| *key == name && value.is_none_or(|value| value == *found))
    }
}

fn rule(hosts: &[&str], paths: &[&str], headers: &[(&str, Option<&str>)]) -> Rule {
    let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap());
    let paths = paths.iter().map(|path| PathPrefix::new(path));
    let headers = headers
        .iter()
        .map(|(name, value)| HeaderRule::new(name, *value).unwrap());
    Rule::new(hosts.collect(), paths.collect(), headers.collect())
}

/// A route `namespace/name`, whose value is its name.
fn route(key: &str, created: i64, rules: Vec<Rule>) -> Candidate<String> {
    let (namespace, name) = key.split_once('/').unwrap();
    Candidate {
        key: RouteKey::new(namespace, name),
        uid: String::new(),
        created,
        rules,
        value: key.to_owned(),
    }
}

/// Routes of one namespace, from the oldest to the youngest.
fn table(rules: &[(&str, Rule)]) -> RouteTable<String> {
    let candidates = (0..).zip(rules);
    let candidates = candidates
        .map(|(age, (name, rule))| route(&format!("n/{name}"), age, vec![rule.clone()]))
        .collect();
    RouteTable::build(candidates, BuildOptions::default()).0
}

fn find<'t>(table: &'t RouteTable<String>, host: &str, path: &str, headers: &[(&str, &str)]) -> &'t str {
    let found = table.find(host, path, &Headers(headers));
    found.map_or("none", |key| key.split_once('/').unwrap().1)
}

#[test]
fn the_most_specific_host_wins() {
    let table = table(&[
        ("any", rule(&[], &[], &[])),
        ("com", rule(&["*.com"], &[], &[])),
        ("b-com", rule(&["*.b.com"], &[], &[])),
        ("a-b-com", rule(&["a.b.com"], &[], &[])),
        ("b", rule(&["b.com"], &[], &[])),
        ("six", rule(&["[::1]"], &[], &[])),
    ]);
    for (host, expected) in [
        ("a.b.com", "a-b-com"),
        ("A.B.Com.", "a-b-com"),
        ("a.b.com:8080", "a-b-com"),
        ("a.b.com.:8080", "a-b-com"),
        ("x.b.com", "b-com"),
        ("y.x.b.com", "b-com"),
        ("x.a.b.com", "b-com"),
        ("b.com", "b"),
        ("c.com", "com"),
        ("x.c.com:1", "com"),
        ("com", "any"),
        (".com", "any"),
        ("bcom", "any"),
        ("", "any"),
        ("a.b.com.org", "any"),
        ("[::1]:8080", "six"),
        ("[0:0:0:0:0:0:0:1]", "six"),
        ("[::2]", "any"),
    ] {
        assert_eq!(find(&table, host, "/x", &[]), expected, "{host:?}");
    }
    let endless = format!("{}b.com", "x.".repeat(200));
    assert_eq!(find(&table, &endless, "/", &[]), "any");
}

#[test]
fn the_longest_path_wins() {
    let table = table(&[
        ("root", rule(&["h"], &["/"], &[])),
        ("api", rule(&["h"], &["/api"], &[])),
        ("v1", rule(&["h"], &["/api/v1/"], &[])),
        ("dots", rule(&["h"], &["/api/../v1"], &[])),
        ("space", rule(&["h"], &["/a b"], &[])),
    ]);
    for (path, expected) in [
        ("/", "root"),
        ("", "root"),
        ("*", "root"),
        ("/ap", "root"),
        ("/apis", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("//api", "api"),
        ("/api/v", "api"),
        ("/api/v10", "api"),
        ("/api//v1", "api"),
        ("/api/v1", "v1"),
        ("/api/v1/x", "v1"),
        ("/%61pi/v1", "v1"),
        ("/api%2Fv1", "v1"),
        ("/api/v1%20", "api"),
        ("/api/../v1/x", "dots"),
        ("/api/%2e%2e/v1", "dots"),
        ("/API", "root"),
        ("/a%20b/c", "space"),
        ("/a+b", "root"),
        ("/api/%ff", "api"),
        ("/%", "root"),
    ] {
        assert_eq!(find(&table, "h", path, &[]), expected, "{path:?}");
    }
}

#[test]
fn the_most_headers_win() {
    let table = table(&[
        ("none", rule(&["h"], &[], &[])),
        ("present", rule(&["h"], &[], &[("X-A", None)])),
        ("valued", rule(&["h"], &[], &[("x-a", Some("1"))])),
        ("younger", rule(&["h"], &[], &[("x-c", None)])),
        ("both", rule(&["h"], &[], &[("x-a", None), ("x-b", None)])),
    ]);
    for (headers, expected) in [
        (&[][..], "none"),
        (&[("x-b", "1")], "none"),
        (&[("x-a", "2")], "present"),
        (&[("x-a", "1")], "valued"),
        (&[("x-a", "2"), ("x-a", "1")], "valued"),
        (&[("x-a", "1"), ("x-b", "")], "both"),
        (&[("x-a", "2"), ("x-c", "")], "present"),
    ] {
        assert_eq!(find(&table, "h", "/", headers), expected, "{headers:?}");
    }
}

#[test]
fn a_miss_goes_on_to_shorter_paths_and_then_to_wider_hosts() {
    let needs = [("x-a", None)];
    let table = table(&[
        ("any", rule(&[], &["/p"], &[])),
        ("com", rule(&["*.com"], &["/p"], &[])),
        ("b-com", rule(&["*.b.com"], &["/p/q"], &needs)),
        ("exact", rule(&["a.b.com"], &["/p"], &[])),
        ("deep", rule(&["a.b.com"], &["/p/q/r"], &needs)),
        ("deeper", rule(&["a.b.com"], &["/p/q/r/s"], &needs)),
    ]);
    for (host, path, with, without) in [
        ("a.b.com", "/p/q/r/s/t", "deeper", "exact"),
        ("a.b.com", "/p/q/r/t", "deep", "exact"),
        ("a.b.com", "/p/q", "exact", "exact"),
        ("a.b.com", "/x", "none", "none"),
        ("x.b.com", "/p/q", "b-com", "com"),
        ("x.b.com", "/p", "com", "com"),
        ("a.org", "/p/q", "any", "any"),
    ] {
        assert_eq!(find(&table, host, path, &[("x-a", "1")]), with, "{host}{path}");
        assert_eq!(find(&table, host, path, &[]), without, "{host}{path}");
    }
}

#[test]
fn without_rules_nothing_matches_and_an_empty_rule_matches_all() {
    let silent = route("n/silent", 0, Vec::new());
    let (table, conflicts) = RouteTable::build(vec![silent.clone()], BuildOptions::default());
    assert_eq!(find(&table, "h", "/", &[]), "none");
    assert_eq!((table.iter().count(), conflicts), (1, Vec::new()));
    let open = route("n/open", 1, vec![rule(&[], &[], &[])]);
    let (table, _) = RouteTable::build(vec![open, silent], BuildOptions::default());
    assert_eq!(find(&table, "h", "/", &[]), "open");
    assert_eq!(table.iter().collect::<Vec<_>>(), ["n/silent", "n/open"]);
    assert_eq!(find(&RouteTable::default(), "h", "/", &[]), "none");
}

#[test]
fn a_route_is_in_no_conflict_with_itself() {
    let twice = vec![
        rule(&["H", "h:80"], &["/a", "a/"], &[]),
        rule(&["h."], &["/a"], &[]),
    ];
    let (table, conflicts) = RouteTable::build(vec![route("n/r", 0, twice)], BuildOptions::default());
    assert_eq!((find(&table, "h", "/a", &[]), conflicts), ("r", Vec::new()));
}

fn same(host: &str, path: &str, headers: &[(&str, Option<&str>)]) -> Contested {
    let rule = rule(&[host], &[path], headers);
    Contested::Match {
        host: rule.hosts()[0].clone(),
        path: rule.paths()[0].clone(),
        headers: rule.headers().clone(),
    }
}

fn conflict(winner: &str, loser: &str, over: impl IntoIterator<Item = Contested>) -> Conflict {
    let key = |key: &str| route(key, 0, Vec::new()).key;
    Conflict {
        winner: key(winner),
        loser: key(loser),
        over: over.into_iter().collect::<BTreeSet<_>>(),
    }
}

#[test]
fn of_routes_that_match_the_same_the_older_wins() {
    let beta = [("X-Beta", None)];
    let candidates = vec![
        route("n/young", 9, vec![rule(&["h"], &["/a", "/b", "/c"], &[])]),
        route(
            "n/old",
            1,
            vec![rule(&["H:80"], &["/a/", "b"], &[]), rule(&["h"], &["/c"], &beta)],
        ),
        route("n/middle", 5, vec![rule(&["h"], &["/a"], &[])]),
        route("n/aside", 0, vec![rule(&["h"], &["/a"], &beta)]),
    ];
    let (table, conflicts) = RouteTable::build(candidates, BuildOptions::default());
    let expected = [
        conflict("n/old", "n/middle", [same("h", "/a", &[])]),
        conflict("n/old", "n/young", [same("h", "/a", &[]), same("h", "/b", &[])]),
    ];
    assert_eq!(conflicts, expected);
    for (path, expected) in [("/a", "old"), ("/b", "old"), ("/c", "young")] {
        assert_eq!(find(&table, "h", path, &[]), expected, "{path:?}");
    }
    assert_eq!(find(&table, "h", "/a", &[("x-beta", "")]), "aside");
    assert_eq!(find(&table, "h", "/c", &[("x-beta", "")]), "old");
}

#[test]
fn of_one_age_the_last_by_namespace_and_name_wins() {
    let open = BuildOptions {
        hosts_across_namespaces: true,
    };
    let keys = ["a/z", "b/a", "b/b"];
    let candidates = |order: [usize; 3]| {
        order
            .map(|index| route(keys[index], 7, vec![rule(&["h"], &[], &[])]))
            .to_vec()
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let (table, conflicts) = RouteTable::build(candidates(order), open);
        assert_eq!(table.find("h", "/", &Headers(&[])).unwrap(), "b/b");
        let losers: Vec<_> = conflicts
            .iter()
            .map(|conflict| conflict.loser.to_string())
            .collect();
        assert_eq!(losers, ["b/a", "a/z"]);
    }
    // Objects of two kinds may have one name.
    let mut twins = [0, 1].map(|value| Candidate {
        key: RouteKey::new("n", "twin"),
        uid: format!("uid-{value}"),
        created: 0,
        rules: vec![rule(&[], &[], &[])],
        value,
    });
    for _ in 0..2 {
        let (table, _) = RouteTable::build(twins.to_vec(), BuildOptions::default());
        assert_eq!(table.find("h", "/", &Headers(&[])), Some(&1));
        twins.reverse();
    }
}

#[test]
fn a_host_belongs_to_the_namespace_that_names_it_first() {
    let candidates = vec![
        route(
            "blog/new",
            5,
            vec![
                rule(&["shop.example", "blog.example"], &["/blog"], &[]),
                rule(&["shop.example", "*.shop.example"], &["/"], &[("x-a", None)]),
            ],
        ),
        route("shop/first", 1, vec![rule(&["shop.example"], &["/shop"], &[])]),
        route("shop/second", 9, vec![rule(&["shop.example"], &["/blog"], &[])]),
        route("shop/any", 2, vec![rule(&[], &["/shop"], &[])]),
        route("blog/any", 3, vec![rule(&["*"], &["/blog"], &[])]),
    ];
    let (table, conflicts) = RouteTable::build(candidates.clone(), BuildOptions::default());
    let host = |name: &str| Contested::Host(HostPattern::parse(name).unwrap());
    let expected = [
        conflict("shop/any", "blog/any", [host("*")]),
        conflict("shop/first", "blog/new", [host("shop.example")]),
    ];
    assert_eq!(conflicts, expected);
    for (host, path, expected) in [
        ("shop.example", "/blog", "second"),
        ("shop.example", "/shop", "first"),
        ("blog.example", "/blog", "new"),
        ("www.shop.example", "/", "new"),
        ("other", "/blog", "none"),
    ] {
        assert_eq!(find(&table, host, path, &[("x-a", "")]), expected, "{host}{path}");
    }

    let open = BuildOptions {
        hosts_across_namespaces: true,
    };
    let (table, conflicts) = RouteTable::build(candidates, open);
    let expected = [conflict(
        "blog/new",
        "shop/second",
        [same("shop.example", "/blog", &[])],
    )];
    assert_eq!(conflicts, expected);
    assert_eq!(find(&table, "shop.example", "/blog", &[]), "new");
    assert_eq!(find(&table, "other", "/blog", &[]), "any");
}
