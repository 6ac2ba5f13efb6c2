//! The table that requests are looked up in.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use smallvec::SmallVec;

use super::build::Match;
use super::{Destination, HeaderRules, HeaderSet, HostPattern, PathPrefix, path};

/// All routes, made for looking them up: built whole by [`RouteTable::build`], and never changed.
///
/// A look-up costs a hash of the host, and a binary search among the paths of that host. It allocates only to put a host
/// into lower case or to decode a path that has escapes.
#[derive(Debug)]
pub struct RouteTable<T> {
    routes: Vec<T>,
    exact: HashMap<Arc<str>, Paths>,
    /// By what follows the `*.`.
    wildcards: HashMap<Arc<str>, Paths>,
    /// The most labels of a key of `wildcards`.
    most_labels: usize,
    any: Paths,
}

impl<T> RouteTable<T> {
    /// The table of `routes`, named by their indices in `matches`, which are in order and all different.
    pub(super) fn new(routes: Vec<T>, matches: &[Match]) -> Self {
        let mut table = Self {
            routes,
            ..Self::default()
        };
        for at_host in matches.chunk_by(|a, b| a.host == b.host) {
            let paths = Paths::new(at_host);
            match &at_host[0].host {
                HostPattern::Any => table.any = paths,
                HostPattern::Exact(name) => {
                    table.exact.insert(Arc::clone(name), paths);
                }
                HostPattern::Wildcard(suffix) => {
                    table.most_labels = table.most_labels.max(suffix.split('.').count());
                    table.wildcards.insert(Arc::clone(suffix), paths);
                }
            }
        }
        table
    }

    /// The route of a request for `path`, as it was received and without the query, at `host`, which may have a port.
    #[must_use]
    pub fn find(&self, host: &str, path: &str, headers: &impl HeaderSet) -> Option<&T> {
        self.find_at(&Destination::new(host, path), headers)
    }

    /// The route of a request to `destination`.
    #[must_use]
    pub fn find_at(&self, destination: &Destination<'_>, headers: &impl HeaderSet) -> Option<&T> {
        let (host, path) = (destination.host(), destination.path());
        let at = |paths: &Paths| paths.find(path, headers);
        let route = self
            .exact
            .get(host)
            .and_then(at)
            .or_else(|| self.wildcards_over(host).find_map(at))
            .or_else(|| at(&self.any))?;
        self.routes.get(route)
    }

    /// The wildcards that match a host, those of the most labels first.
    fn wildcards_over(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let labels = host.split('.').count();
        host.match_indices('.')
            .skip(labels.saturating_sub(1 + self.most_labels))
            .filter(|(dot, _)| *dot > 0)
            .filter_map(move |(dot, _)| self.wildcards.get(&host[dot + 1..]))
    }

    /// All routes, the older first; also those that match nothing.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.routes.iter()
    }
}

/// No routes.
impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            exact: HashMap::new(),
            wildcards: HashMap::new(),
            most_labels: 0,
            any: Paths::default(),
        }
    }
}

/// The paths of one host in the order of [`PathPrefix`], so that all prefixes of a path are found by going up from the last
/// one that is not after it.
///
/// Most hosts have one path and most paths one route, which are part of the host's own entry then: a look-up among many
/// hosts touches as little memory as it can.
#[derive(Debug, Default)]
struct Paths(SmallVec<[Node; 1]>);

#[derive(Debug)]
struct Node {
    prefix: PathPrefix,
    /// The longest other prefix that covers this one.
    parent: Option<usize>,
    /// The more specific first.
    claims: SmallVec<[Claim; 1]>,
}

#[derive(Debug)]
struct Claim {
    headers: HeaderRules,
    route: usize,
}

impl From<&Match> for Claim {
    fn from(one: &Match) -> Self {
        Self {
            headers: one.headers.clone(),
            route: one.route,
        }
    }
}

impl Paths {
    /// The paths of matches at one host.
    fn new(matches: &[Match]) -> Self {
        let mut nodes: SmallVec<[Node; 1]> = SmallVec::new();
        for at_path in matches.chunk_by(|a, b| a.path == b.path) {
            let mut claims: SmallVec<[Claim; 1]> = at_path.iter().map(Claim::from).collect();
            claims.sort_by_key(|claim| (claim.headers.precedence(), claim.route));
            claims.shrink_to_fit();
            let prefix = at_path[0].path.clone();
            // What covers this prefix is the one before it, or covers that.
            let last = nodes.len().checked_sub(1);
            let parent = upwards(&nodes, last).find(|&node| nodes[node].prefix.covers(prefix.as_bytes()));
            nodes.push(Node {
                prefix,
                parent,
                claims,
            });
        }
        nodes.shrink_to_fit();
        Self(nodes)
    }

    /// The route of the longest path for which the headers are right too.
    fn find(&self, path: &[u8], headers: &impl HeaderSet) -> Option<usize> {
        let nodes = &self.0;
        let after = nodes.partition_point(|node| path::compare(node.prefix.as_bytes(), path).is_le());
        let nearest = after.checked_sub(1)?;
        // Those above the nearest are beginnings of it: one comparison serves for all.
        let shared = path::shared(nodes[nearest].prefix.as_bytes(), path);
        upwards(nodes, Some(nearest))
            .map(|node| &nodes[node])
            .filter(|node| node.prefix.covers_given(path, shared))
            .flat_map(|node| &node.claims)
            .find(|claim| claim.headers.match_all(headers))
            .map(|claim| claim.route)
    }
}

/// The node `first`, and all that cover it, the longest first.
fn upwards(nodes: &[Node], first: Option<usize>) -> impl Iterator<Item = usize> {
    iter::successors(first, |&node| nodes[node].parent)
}
