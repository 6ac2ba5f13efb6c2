//! Which route a request belongs to, by its host, its path and its headers.
//!
//! ```text
//! Candidate (route + rules) ─┐                          ┌─ exact host ──┐
//! Candidate                 ─┼─> RouteTable::build() ─> ├─ *.b.c, *.c ──┼─> paths, longest first ─> headers, most first
//! Candidate                 ─┘            │             └─ any host ────┘
//!                                         └─> Conflict: two routes that want the same, or a host of another namespace
//! ```
//!
//! Of all rules that match a request wholly, the one with the most specific host wins, then the longest path, then the most
//! headers, then the most headers with a value, then the older route, then the *last* by namespace and name (as in the
//! add-on). So a route whose headers do not match hides nothing: the next shorter path is tried, then the next wider host.
//!
//! Hosts are compared without case, port and trailing dot; paths in whole segments after percent-decoding, with dot
//! segments kept and slashes at both ends ignored.

mod build;
mod conflict;
mod destination;
mod headers;
mod host;
mod path;
mod rule;
pub mod settings;
mod table;

use std::fmt;
use std::sync::Arc;

pub use build::BuildOptions;
pub use conflict::{Conflict, Contested};
pub use destination::Destination;
pub use headers::{HeaderNameError, HeaderRule, HeaderRules, HeaderSet, is_token};
pub use host::{HostPattern, HostPatternError};
pub use path::PathPrefix;
pub use rule::{MOST_MATCHES, Rule};
pub use settings::RouteSettings;
pub use table::RouteTable;

/// A route's name, as in `shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name within the namespace.
    pub name: Arc<str>,
}

impl RouteKey {
    /// The key of the route `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A route that wants to be in the table.
#[derive(Clone, Debug)]
pub struct Candidate<T> {
    /// Its name.
    pub key: RouteKey,
    /// Its uid. It decides between routes of one name and one age, which are objects of different kinds.
    pub uid: String,
    /// When it was made, in seconds of Unix time.
    pub created: i64,
    /// What it matches: a request that matches any of them. Without rules it matches nothing. Whoever makes these keeps to
    /// [`MOST_MATCHES`].
    pub rules: Vec<Rule>,
    /// What a look-up gives back.
    pub value: T,
}
