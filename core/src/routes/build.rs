//! From candidates to a table, and what they quarrel over.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Candidate, Conflict, Contested, HeaderRules, HostPattern, PathPrefix, RouteTable, Rule};

/// How a table is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Whether routes of several namespaces may share a host. Otherwise it belongs to the namespace of the oldest route that
    /// names it. `*`, `*.b.c` and `a.b.c` are three different hosts here, and naming none is naming `*`.
    pub hosts_across_namespaces: bool,
}

/// One way to match a route, which is named by its index. In order, all matches of a host stand together, and in those all
/// of a path; of equal ones the oldest route's comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Match {
    pub(super) host: HostPattern,
    pub(super) path: PathPrefix,
    pub(super) headers: HeaderRules,
    pub(super) route: usize,
}

impl<T> RouteTable<T> {
    /// Builds the table of all candidates, in whatever order they come, and says which of them want the same. A route that
    /// loses something keeps the rest of its rules.
    #[must_use]
    pub fn build(mut candidates: Vec<Candidate<T>>, options: BuildOptions) -> (Self, Vec<Conflict>) {
        candidates.sort_by(seniority);
        let mut register = Register {
            candidates: &candidates,
            options,
            conflicts: BTreeMap::new(),
        };
        let mut matches = register.on_hosts_of_their_namespaces();
        matches.sort_unstable();
        matches.dedup_by(|one, before| register.is_taken(one, before));
        let conflicts = register.conflicts.into_values().collect();
        let mut routes: Vec<T> = candidates.into_iter().map(|candidate| candidate.value).collect();
        // Collected in place: the room is still that of the candidates.
        routes.shrink_to_fit();
        (Self::new(routes, &matches), conflicts)
    }
}

/// The older first; of one age, the last by namespace and name.
fn seniority<T>(a: &Candidate<T>, b: &Candidate<T>) -> Ordering {
    a.created
        .cmp(&b.created)
        .then_with(|| b.key.cmp(&a.key))
        .then_with(|| b.uid.cmp(&a.uid))
}

struct Register<'c, T> {
    /// The older first.
    candidates: &'c [Candidate<T>],
    options: BuildOptions,
    /// By loser and winner.
    conflicts: BTreeMap<(usize, usize), Conflict>,
}

impl<T> Register<'_, T> {
    /// The matches of all candidates, but for those at hosts of other namespaces.
    fn on_hosts_of_their_namespaces(&mut self) -> Vec<Match> {
        let mut oldest: HashMap<&HostPattern, usize> = HashMap::new();
        let mut matches = Vec::new();
        for (route, candidate) in self.candidates.iter().enumerate() {
            let mut refused = HashSet::new();
            for host in candidate.rules.iter().flat_map(Rule::hosts) {
                let first = *oldest.entry(host).or_insert(route);
                if !self.share_hosts(first, route) {
                    self.note(route, first, Contested::Host(host.clone()));
                    refused.insert(host);
                }
            }
            for rule in &candidate.rules {
                let hosts = rule.hosts().iter().filter(|host| !refused.contains(host));
                matches.extend(hosts.flat_map(|host| {
                    rule.paths().iter().map(move |path| Match {
                        host: host.clone(),
                        path: path.clone(),
                        headers: rule.headers().clone(),
                        route,
                    })
                }));
            }
        }
        matches
    }

    fn share_hosts(&self, a: usize, b: usize) -> bool {
        self.options.hosts_across_namespaces
            || self.candidates[a].key.namespace == self.candidates[b].key.namespace
    }

    /// Whether `before` matches the same requests, and so stands in for `one`.
    fn is_taken(&mut self, one: &Match, before: &Match) -> bool {
        if (&one.host, &one.path, &one.headers) != (&before.host, &before.path, &before.headers) {
            return false;
        }
        if one.route != before.route {
            let contested = Contested::Match {
                host: one.host.clone(),
                path: one.path.clone(),
                headers: one.headers.clone(),
            };
            self.note(one.route, before.route, contested);
        }
        true
    }

    fn note(&mut self, loser: usize, winner: usize, contested: Contested) {
        let conflict = self.conflicts.entry((loser, winner)).or_insert_with(|| Conflict {
            winner: self.candidates[winner].key.clone(),
            loser: self.candidates[loser].key.clone(),
            over: Default::default(),
        });
        conflict.over.insert(contested);
    }
}
