//! Rules: hosts, paths and headers together.

use super::{Destination, HeaderRule, HeaderRules, HeaderSet, HostPattern, PathPrefix};

/// How many pairs of host and path the rules of one route may come to. A table holds each of them, so that a short text of
/// many hosts and many paths must not be allowed to multiply.
pub const MOST_MATCHES: usize = 4096;

/// Matches a request to one of the hosts, below one of the paths, with all of the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    hosts: Vec<HostPattern>,
    paths: Vec<PathPrefix>,
    headers: HeaderRules,
}

impl Rule {
    /// A rule of these parts. No hosts are all hosts, no paths are all paths.
    #[must_use]
    pub fn new(hosts: Vec<HostPattern>, paths: Vec<PathPrefix>, headers: Vec<HeaderRule>) -> Self {
        Self {
            hosts: distinct(hosts, HostPattern::Any),
            paths: distinct(paths, PathPrefix::default()),
            headers: HeaderRules::new(headers),
        }
    }

    /// Its hosts, each once; there is at least one.
    #[must_use]
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// Its paths, each once; there is at least one.
    #[must_use]
    pub fn paths(&self) -> &[PathPrefix] {
        &self.paths
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderRules {
        &self.headers
    }

    /// How many pairs of host and path it comes to: see [`MOST_MATCHES`].
    #[must_use]
    pub fn matches_count(&self) -> usize {
        self.hosts.len().saturating_mul(self.paths.len())
    }

    /// Whether it matches a request, by looking at one part after the other; many routes go into a
    /// [`RouteTable`](super::RouteTable).
    #[must_use]
    pub fn matches(&self, destination: &Destination<'_>, headers: &impl HeaderSet) -> bool {
        self.hosts.iter().any(|host| host.matches(destination.host()))
            && self.paths.iter().any(|prefix| prefix.covers(destination.path()))
            && self.headers.match_all(headers)
    }
}

fn distinct<T: Ord>(mut values: Vec<T>, without: T) -> Vec<T> {
    if values.is_empty() {
        return vec![without];
    }
    values.sort();
    values.dedup();
    values
}
