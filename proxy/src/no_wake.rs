//! Requests that must not wake an application: what looks at it from outside, and nobody waits for.

use dormouse_core::routes::{Destination, PathPrefix, Rule};
use http::header::USER_AGENT;
use http::request;

use crate::inbound;
use crate::route::Headers;

/// Which requests wake nothing. One that matches goes to an application that is awake, and gets its static route or 503 from
/// one that sleeps; it is never counted.
#[derive(Clone, Debug, Default)]
pub struct NoWake {
    user_agents: Vec<String>,
    paths: Option<Rule>,
}

impl NoWake {
    /// Those whose `User-Agent` begins with one of `user_agents`, in whatever case, and those whose path is one of `paths` or
    /// lies below it.
    #[must_use]
    pub fn new(user_agents: Vec<String>, paths: Vec<PathPrefix>) -> Self {
        let is_any = !paths.is_empty();
        Self {
            user_agents,
            paths: is_any.then(|| Rule::new(Vec::new(), paths, Vec::new())),
        }
    }

    /// Whether a normalised request is one of them.
    pub(crate) fn matches(&self, head: &request::Parts) -> bool {
        self.is_of_agent(head) || self.is_at_path(head)
    }

    fn is_of_agent(&self, head: &request::Parts) -> bool {
        if self.user_agents.is_empty() {
            return false;
        }
        let agent = head.headers.get(USER_AGENT).map(|agent| agent.as_bytes());
        let agent = agent.unwrap_or_default();
        let begins = |prefix: &String| {
            let start = agent.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        self.user_agents.iter().any(begins)
    }

    fn is_at_path(&self, head: &request::Parts) -> bool {
        self.paths.as_ref().is_some_and(|paths| {
            let destination = Destination::new(inbound::host_of(&head.headers), head.uri.path());
            paths.matches(&destination, &Headers(&head.headers))
        })
    }
}
