//! The way of a request: route -> admit -> endpoint -> forward -> in flight until the response has ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dormouse_core::routes::Destination;
use dormouse_core::routes::settings::{StaticResponse, StaticRoute};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::sleep;

use crate::admit::{Admission, Passage, Turned};
use crate::body::{Flight, ResponseBody};
use crate::client::Client;
use crate::exchange::Exchange;
use crate::failure::{Failure, Speaks};
use crate::forward::{Answer, Limits, Unanswered, forward};
use crate::outbound::Outbound;
use crate::route::{Headers, Route};
use crate::upgrade::Tunnel;
use crate::{answers, headers, inbound};

/// How often a request is sent again that an endpoint may have seen.
const MOST_REPEATS: u32 = 7;
/// Before the first of them, where the endpoint is at fault; each next pause is twice as long, to about a second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The client left: there is nobody to answer.
#[derive(Debug, thiserror::Error)]
#[error("the client left")]
pub(crate) struct ClientLeft;

/// Answers one request.
///
/// # Errors
/// There is nobody to answer: the connection ends.
pub(crate) async fn serve(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, ClientLeft> {
    let (head, body) = request.into_parts();
    let mut exchange = Exchange::begin(Rc::clone(&client), &head);
    let speaks = Speaks::of(head.version, &head.headers);
    let response = match answer(&client, head, body, &mut exchange).await {
        Ok(response) => {
            exchange.answered(response.status());
            response
        }
        Err(Failure::ClientGone) => return Err(ClientLeft),
        Err(failure) => {
            tracing::debug!(client = %client.address, failure = %failure, "request not passed on");
            exchange.failed(&failure);
            let mut response = failure.response(speaks);
            exchange.tell_cold(response.headers_mut());
            response
        }
    };
    Ok(response.map(|body| body.with(exchange)))
}

async fn answer(
    client: &Rc<Client>,
    mut head: request::Parts,
    body: Incoming,
    exchange: &mut Exchange,
) -> Result<Response<ResponseBody>, Failure> {
    inbound::normalize(&mut head)?;
    let route = find_route(client, &head)?;
    exchange.belongs_to(&route);
    let own = static_route(&route, &head);
    if let Some(own) = own.filter(|own| answers::is_given(own, route.is_available())) {
        return answer_ourselves(client, &route, &own.response, &head);
    }
    let no_wake = client.worker.shared.config.no_wake.matches(&head);
    let is_counted = own.is_none() && !no_wake;
    let mut admission = Admission::begin(Rc::clone(client), Arc::clone(&route), is_counted);
    let limits = Limits::of(&route, admission.deadline());
    let mut outbound = Outbound::new(client, &route, head, body);
    let mut repeats = 0;
    loop {
        let began = exchange.is_recorded().then(SystemTime::now);
        let turn = admission.passage().await;
        exchange.held(admission.held(), began);
        let passage = match turn {
            Ok(passage) => passage,
            Err(Turned::Failure(failure)) => {
                exchange.passes(None);
                return Err(failure);
            }
            Err(Turned::AnswerOurselves) => {
                let placeholder = route.settings().cold_start.placeholder.as_ref();
                let response = match own {
                    Some(own) => &own.response,
                    None if no_wake => return Err(Failure::Asleep),
                    None => placeholder.ok_or(Failure::PageMissing)?,
                };
                return answer_ourselves(client, &route, response, outbound.head());
            }
        };
        let is_of_route = is_counted && !passage.is_fallback;
        exchange.passes(is_of_route.then(|| admission.waited()));
        exchange.send(passage.load.peer().address(), outbound.headers_mut());
        // In a box of its own: while a request waits, it needs no room for what comes then.
        match Box::pin(forward(client, &passage, outbound, &limits)).await {
            Ok(answer) => {
                exchange.answered_by(passage.load.peer().address());
                return deliver(client, answer, passage, admission, exchange);
            }
            Err(Unanswered::Failed(failure)) => return Err(failure),
            Err(Unanswered::Again(again)) => {
                let peer = passage.load.peer();
                if again.blame {
                    peer.suspect();
                }
                if again.seen {
                    repeats += 1;
                    if repeats > MOST_REPEATS {
                        return Err(Failure::Broken(again.how));
                    }
                    if again.pause {
                        sleep(FIRST_PAUSE * 2_u32.pow(repeats)).await;
                    }
                }
                admission.failed(peer.id, again.how);
                outbound = *again.outbound;
            }
        }
    }
}

fn find_route(client: &Client, head: &request::Parts) -> Result<Arc<Route>, Failure> {
    let table = client.worker.shared.table.load();
    let route = table.find_at(&destination(head), &Headers(&head.headers));
    route.cloned().ok_or(Failure::NoRoute)
}

/// The static route of a request, which its route may answer by itself and never counts.
fn static_route<'r>(route: &'r Route, head: &request::Parts) -> Option<&'r StaticRoute> {
    if !route.has_static_routes() {
        return None;
    }
    let settings = route.settings();
    settings.static_route(&destination(head), &Headers(&head.headers))
}

fn answer_ourselves(
    client: &Client,
    route: &Route,
    response: &StaticResponse,
    head: &request::Parts,
) -> Result<Response<ResponseBody>, Failure> {
    let pages = client.worker.shared.pages.load();
    answers::answer(
        response,
        &route.state().key().namespace,
        &destination(head),
        &pages,
    )
}

fn destination(head: &request::Parts) -> Destination<'_> {
    Destination::new(inbound::host_of(&head.headers), head.uri.path())
}

/// Makes of an endpoint's answer what the client gets.
fn deliver(
    client: &Rc<Client>,
    answer: Answer,
    passage: Passage,
    admission: Admission,
    exchange: &Exchange,
) -> Result<Response<ResponseBody>, Failure> {
    let Answer {
        response,
        refusal,
        carrier,
        upgrade,
    } = answer;
    let Passage { load, grant, .. } = passage;
    if load.peer().answered()
        && let Some(took) = admission.since_usable(load.peer())
    {
        client
            .worker
            .tally
            .first_byte(admission.route().state().number(), took);
    }
    drop(grant);
    let deadline = admission.deadline();
    let flight = Flight::new(admission.into_in_flight(), load, carrier, refusal, deadline);

    let (mut head, incoming) = response.into_parts();
    let protocol = head.headers.get(UPGRADE).cloned();
    headers::strip_response(&mut head.headers);
    head.version = Version::HTTP_11;
    exchange.tell_cold(&mut head.headers);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let upstream = head.extensions.remove::<OnUpgrade>();
        let (Some(downstream), Some(upstream), Some(protocol)) = (upgrade, upstream, protocol) else {
            return Err(Failure::Broken(
                "it changed its protocol, which nobody had asked for".to_owned(),
            ));
        };
        headers::set_upgrade(&mut head.headers, protocol.clone());
        // The time of a request does not end what it has become.
        let tunnel = Tunnel {
            protocol,
            downstream,
            upstream,
        };
        tunnel.open(Rc::clone(client), flight);
        return Ok(Response::from_parts(head, ResponseBody::empty()));
    }
    if upgrade.is_some() {
        // What the client sent already was for another protocol: it must not be read as a request.
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(Response::from_parts(
        head,
        ResponseBody::from_endpoint(incoming, flight),
    ))
}
