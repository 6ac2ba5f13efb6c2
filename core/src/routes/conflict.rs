//! Two routes that want the same.

use std::collections::BTreeSet;
use std::fmt;

use super::{HeaderRules, HostPattern, PathPrefix, RouteKey};

/// Requests that two routes want. The older route, the winner, gets them; both are told. Routes of one age are in the order
/// of their look-up: the last by namespace and name wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The route that gets the requests.
    pub winner: RouteKey,
    /// The route that does not.
    pub loser: RouteKey,
    /// What both want, at least one thing.
    pub over: BTreeSet<Contested>,
}

/// What two routes want.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contested {
    /// A host that a route of another namespace claims first: nothing of it is left for the loser.
    Host(HostPattern),
    /// The same host, path and headers.
    Match {
        /// The host.
        host: HostPattern,
        /// The path.
        path: PathPrefix,
        /// The headers.
        headers: HeaderRules,
    },
}

impl Conflict {
    /// A sentence for the status of the route that loses.
    #[must_use]
    pub fn told_to_loser(&self) -> String {
        format!("{} goes to the older route {}", self.subject(), self.winner)
    }

    /// A sentence for the status of the route that wins.
    #[must_use]
    pub fn told_to_winner(&self) -> String {
        format!(
            "{} is wanted by the younger route {} too",
            self.subject(),
            self.loser
        )
    }

    fn subject(&self) -> String {
        let first = self.over.first().map(ToString::to_string);
        let first = first.unwrap_or_default();
        match self.over.len() {
            0 | 1 => first,
            count => format!("{first} (with {} more)", count - 1),
        }
    }
}

impl fmt::Display for Contested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}, whose first route is in another namespace,"),
            Self::Match { host, path, headers } if headers.is_empty() => write!(f, "host {host} path {path}"),
            Self::Match { host, path, headers } => write!(f, "host {host} path {path} headers {headers}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(over: impl IntoIterator<Item = Contested>) -> Conflict {
        Conflict {
            winner: RouteKey::new("shop", "old"),
            loser: RouteKey::new("blog", "new"),
            over: over.into_iter().collect(),
        }
    }

    fn same(path: &str) -> Contested {
        Contested::Match {
            host: HostPattern::Exact("a.b".into()),
            path: PathPrefix::new(path),
            headers: HeaderRules::default(),
        }
    }

    #[test]
    fn both_sides_are_told_what_and_who() {
        let one = conflict([same("/api")]);
        assert_eq!(
            one.told_to_loser(),
            "host a.b path /api goes to the older route shop/old"
        );
        assert_eq!(
            one.told_to_winner(),
            "host a.b path /api is wanted by the younger route blog/new too"
        );
        let many = conflict([same("/c"), same("/b"), same("/a")]);
        assert_eq!(
            many.told_to_loser(),
            "host a.b path /a (with 2 more) goes to the older route shop/old"
        );
        let host = conflict([Contested::Host(HostPattern::Any), same("/")]);
        assert!(
            host.told_to_loser()
                .starts_with("host *, whose first route is in another namespace, (with 1 more) goes to")
        );
    }
}
