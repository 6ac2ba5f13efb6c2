//! Answers that the interceptor gives by itself.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Destination, Rule};

/// Requests that the interceptor answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Which requests these are: those that match any of the rules.
    pub rules: Vec<Rule>,
    /// The answer.
    pub response: StaticResponse,
    /// When it is given.
    pub mode: ResponseMode,
}

/// When a static route's answer is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseMode {
    /// While there is no ready pod; a ready one answers itself.
    #[default]
    WhenUnavailable,
    /// Always.
    Always,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticResponse {
    /// Its status code: a final one, from 200 to 599.
    pub status: u16,
    /// Its body.
    pub body: ResponseBody,
    /// Its headers: names and values as they may be sent, without those that frame a message or belong to a connection.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

/// The body of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResponseBody {
    /// Nothing.
    #[default]
    Empty,
    /// This text.
    Text(Arc<str>),
    /// A value of a ConfigMap of the route's namespace.
    ConfigMap(ConfigMapBody),
}

/// Which value of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapBody {
    /// Name of the ConfigMap.
    pub name: Arc<str>,
    /// The key; without one, the request's path names it.
    pub key: Option<Arc<str>>,
}

impl ConfigMapBody {
    /// The key for a request: the configured one, else the path, and `index.html` for the root.
    #[must_use]
    pub fn key_for<'k>(&'k self, destination: &'k Destination<'_>) -> Cow<'k, str> {
        match (&self.key, destination.path()) {
            (Some(key), _) => Cow::Borrowed(key),
            (None, []) => Cow::Borrowed("index.html"),
            (None, path) => String::from_utf8_lossy(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_key_where_the_route_does_not() {
        for (key, path, expected) in [
            (Some("page.html"), "/a", "page.html"),
            (None, "/", "index.html"),
            (None, "/logo%2epng", "logo.png"),
        ] {
            let body = ConfigMapBody {
                name: "pages".into(),
                key: key.map(Into::into),
            };
            assert_eq!(body.key_for(&Destination::new("", path)), expected);
        }
    }
}
