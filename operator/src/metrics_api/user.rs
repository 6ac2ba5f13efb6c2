//! Who a caller is.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Everybody who was authenticated is in this group.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// Members of this group may do anything, without being asked about.
const MASTERS: &str = "system:masters";
const ANONYMOUS: &str = "system:anonymous";

/// A user as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// This user with the group of the authenticated, unless they are the anonymous one.
    pub(crate) fn authenticated(mut self) -> Self {
        if self.name != ANONYMOUS && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    pub(crate) fn is_master(&self) -> bool {
        self.is_in(MASTERS)
    }
}

/// How a caller proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The aggregation layer vouches for them: it has authenticated and authorised the request before us.
    FrontProxy,
    /// A certificate of the cluster's client authority.
    Certificate,
    /// A bearer token.
    Token,
}

/// A user, and how we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Shared by all requests with the same proof.
    pub(crate) user: Arc<User>,
    pub(crate) proof: Proof,
}
