//! `/debug/objects`: why each object sleeps, wakes or stays, from this process's memory.
//!
//! Everything on it is also in a status, an Event or a metric, or follows from them; parameters and credentials of triggers
//! are not, and nothing is asked of a source or of the API server to show it.

mod page;

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dormouse_engine::ObjectKey;
use serde::Deserialize;

use crate::context::{Context, engine_key};
use page::{ObjectPage, Objects};

/// Objects on one page unless `limit` asks for fewer or more.
const PAGE: usize = 100;
/// The most objects on one page.
const LONGEST_PAGE: usize = 500;

/// The page, which can be asked for before there is anything to show.
#[derive(Clone, Default)]
pub struct DebugPage {
    cx: Arc<OnceLock<Arc<Context>>>,
}

/// What a caller may ask for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    namespace: Option<String>,
    name: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    after: Option<String>,
}

impl DebugPage {
    /// Shows the objects of `cx` from here on.
    pub fn open(&self, cx: Arc<Context>) {
        // A second call would change nothing, and there is none.
        let _ = self.cx.set(cx);
    }

    /// `GET /debug/objects?namespace=&name=&limit=&continue=`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/debug/objects", get(answer))
            .with_state(self.clone())
    }
}

async fn answer(State(page): State<DebugPage>, wish: Result<Query<Wish>, QueryRejection>) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(rejection) => {
            let text = format!(
                "{}: namespace, name, limit (a number) and continue are accepted\n",
                rejection.body_text()
            );
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    if wish.limit == Some(0) {
        let text = format!("limit must be from 1 to {LONGEST_PAGE}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let Some(cx) = page.cx.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    };
    Json(objects(cx, &wish)).into_response()
}

fn objects(cx: &Context, wish: &Wish) -> Objects {
    let matches = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    let keys = cx
        .stores
        .scaled_objects
        .list()
        .into_iter()
        .map(|object| (engine_key(&dormouse_kubernetes::ObjectKey::of(&*object)), object));
    let keys =
        keys.filter(|(key, _)| matches(&wish.namespace, &key.namespace) && matches(&wish.name, &key.name));
    let limit = wish.limit.unwrap_or(PAGE).min(LONGEST_PAGE);
    let (chosen, after) = page_of(keys.collect(), wish.after.as_deref(), limit);
    Objects {
        version: crate::context::VERSION,
        leader: cx.leadership.is_leader(),
        items: chosen
            .iter()
            .map(|(key, object)| ObjectPage::of(key, object, cx.engine.view(key)))
            .collect(),
        after,
    }
}

/// One page of `all` in the order of their keys, behind the key `after`; and where the next one begins, if there is one.
fn page_of<T>(
    mut all: Vec<(ObjectKey, T)>,
    after: Option<&str>,
    limit: usize,
) -> (Vec<(ObjectKey, T)>, Option<String>) {
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some((namespace, name)) = after.and_then(|after| after.split_once('/')) {
        let after = ObjectKey::new(namespace, name);
        all.retain(|(key, _)| *key > after);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(|(key, _)| key.to_string());
    (all, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap_or_an_overlap() {
        let mut all: Vec<_> = (0..25)
            .map(|number| {
                (
                    ObjectKey::new(format!("ns-{}", number % 3), format!("o-{number:02}")),
                    (),
                )
            })
            .collect();
        all.reverse();
        let (mut seen, mut after) = (Vec::new(), None);
        let mut pages = 0;
        loop {
            let (page, next) = page_of(all.clone(), after.as_deref(), 10);
            assert!(page.len() <= 10);
            seen.extend(page.into_iter().map(|(key, ())| key));
            pages += 1;
            after = next;
            if after.is_none() {
                break;
            }
        }
        let mut expected: Vec<_> = all.into_iter().map(|(key, ())| key).collect();
        expected.sort();
        assert_eq!((seen, pages), (expected, 3));
    }

    #[tokio::test]
    async fn wrong_questions_are_answered_with_what_is_accepted() {
        use tower::ServiceExt as _;
        for (query, status) in [
            ("?limit=many", StatusCode::BAD_REQUEST),
            ("?limit=0", StatusCode::BAD_REQUEST),
            ("?nmae=x", StatusCode::BAD_REQUEST),
            ("?name=x", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let request = http::Request::get(format!("/debug/objects{query}"))
                .body(axum::body::Body::empty())
                .unwrap();
            let answer = DebugPage::default().router().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{query}");
        }
    }
}
