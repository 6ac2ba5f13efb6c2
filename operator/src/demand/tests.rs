//! The demand stream over loopback: real TLS and HTTP/2, and a reviewer that knows whom it is told.

mod fixture;
mod obstacles;
mod probes;
mod scouts;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::{Demand, MOST_ROUTES, PodStage, Totals};
use dormouse_engine::{DemandHub, Interceptors};
use dormouse_scalers::DemandSource;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_wire::demand::from_interceptor::Message as Said;
use dormouse_wire::demand::hold_release::Outcome;
use dormouse_wire::demand::{Goodbye, Heartbeat, HoldAnswer, HoldRequest, Report, RouteDemand};
use fixture::{Interceptor, Operator, hello, report, web};
use tonic::Code;

/// Waits until an operator knows what a test expects it to.
async fn until_known(hub: &DemandHub, expected: (u64, u64)) -> Totals {
    let known = async {
        loop {
            if let Demand::Known(totals) = hub.demand(&web())
                && (totals.pending, totals.in_flight) == expected
            {
                return totals;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let known = tokio::time::timeout(Duration::from_secs(10), known).await;
    known.unwrap_or_else(|_| panic!("not {expected:?} but {:?}", hub.demand(&web())))
}

async fn two_interceptors(operator: &Operator) -> [Interceptor; 2] {
    let listed = ["pod-a", "pod-b"].map(|pod| (pod.into(), PodStage::Staying));
    operator.hub.listed(listed.into());
    let mut both = [operator.connect("a").await, operator.connect("b").await];
    for interceptor in &mut both {
        interceptor.say(hello()).await;
        interceptor.say(report(1, 0, 0)).await;
        assert_eq!(interceptor.acknowledged().await, 1);
    }
    both
}

#[tokio::test]
async fn what_is_reported_is_known_and_acknowledged() {
    let operator = Operator::start().await;
    let [mut a, mut b] = two_interceptors(&operator).await;
    let mut news = operator.hub.news(&web());
    a.say(report(2, 3, 0)).await;
    assert_eq!(a.acknowledged().await, 2);
    assert!(news.has_changed().unwrap(), "the edge is told");
    news.mark_unchanged();
    b.say(report(2, 1, 4)).await;
    assert_eq!(b.acknowledged().await, 2);
    until_known(&operator.hub, (4, 4)).await;
    b.say(Said::Goodbye(Goodbye { sequence: 3 })).await;
    until_known(&operator.hub, (3, 0)).await;
}

#[tokio::test]
async fn only_the_token_says_who_reports() {
    let operator = Operator::start().await;
    for (token, code) in [
        (None, Code::Unauthenticated),
        (Some("Bearer nobody"), Code::Unauthenticated),
        (Some("Basic a"), Code::Unauthenticated),
        (Some("Bearer down"), Code::Unavailable),
    ] {
        let refused = operator.try_connect(token).await.err().unwrap();
        assert_eq!(refused.code(), code, "{token:?}: {refused}");
    }
}

#[tokio::test]
async fn what_cannot_be_ends_the_session() {
    let operator = Operator::start().await;
    let nameless = RouteDemand {
        pending: 1,
        ..RouteDemand::default()
    };
    let too_many = vec![RouteDemand::default(); MOST_ROUTES + 1];
    let with = |routes| Said::Report(Report { sequence: 1, routes });
    for (name, said, code) in [
        ("no hello", vec![report(1, 0, 0)], Code::InvalidArgument),
        ("two hellos", vec![hello(), hello()], Code::InvalidArgument),
        (
            "a route without a name",
            vec![hello(), with(vec![nameless])],
            Code::InvalidArgument,
        ),
        (
            "too many routes",
            vec![hello(), with(too_many)],
            Code::ResourceExhausted,
        ),
        (
            "a heartbeat of a report that never came",
            vec![
                hello(),
                report(1, 0, 0),
                Said::Heartbeat(Heartbeat { sequence: 2 }),
            ],
            Code::FailedPrecondition,
        ),
    ] {
        let mut interceptor = operator.connect("a").await;
        for message in said {
            interceptor.say(message).await;
        }
        assert_eq!(interceptor.fault().await.code(), code, "{name}");
    }
}

#[tokio::test]
async fn a_message_beyond_the_bound_breaks_the_session_and_no_other() {
    let operator = Operator::start().await;
    let [mut a, mut b] = two_interceptors(&operator).await;
    let mut huge = hello();
    if let Said::Hello(hello) = &mut huge {
        hello.version = "x".repeat(5 * 1024 * 1024);
    }
    a.say(huge).await;
    a.ended().await;
    b.say(report(2, 1, 0)).await;
    assert_eq!(b.acknowledged().await, 2);
}

#[tokio::test]
async fn one_interceptor_has_a_few_sessions_at_most() {
    let operator = Operator::start().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(operator.connect("a").await);
    }
    let refused = operator.try_connect(Some("Bearer a")).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    operator.connect("b").await;
}

#[tokio::test]
async fn the_end_of_the_server_ends_every_session() {
    let operator = Operator::start().await;
    let [mut a, _b] = two_interceptors(&operator).await;
    operator.stop().await;
    a.ended().await;
}

/// Asks both interceptors to hold, and gives back what each was asked and what the operator made of the answers.
async fn hold(
    operator: &Operator,
    both: &mut [Interceptor; 2],
    answers: [Option<(u32, u32)>; 2],
) -> Result<Box<dyn dormouse_scalers::Hold>, ReadErrorKind> {
    let sessions = operator.sessions.clone();
    let asked = tokio::spawn(async move {
        let reporters = ["pod-a", "pod-b"].map(Arc::from).into();
        sessions.hold(&web(), reporters).await
    });
    for (interceptor, answer) in both.iter_mut().zip(answers) {
        let HoldRequest { id, route, .. } = interceptor.asked_to_hold().await;
        assert_eq!(route.unwrap().name, "web");
        match answer {
            Some((in_flight, pending)) => {
                let answer = HoldAnswer {
                    id,
                    in_flight,
                    pending,
                };
                interceptor.say(Said::HoldAnswer(answer)).await;
            }
            None => interceptor.hang_up(),
        }
    }
    asked.await.unwrap().map_err(|error| error.kind)
}

#[tokio::test]
async fn a_hold_that_all_agree_to_ends_in_sleep_or_is_called_off() {
    for slept in [true, false] {
        let operator = Operator::start().await;
        let mut both = two_interceptors(&operator).await;
        let held = hold(&operator, &mut both, [Some((0, 0)); 2]).await.unwrap();
        let expected = if slept {
            held.slept();
            Outcome::Asleep
        } else {
            drop(held);
            Outcome::CalledOff
        };
        for interceptor in &mut both {
            assert_eq!(interceptor.released().await, expected);
        }
    }
}

#[tokio::test]
async fn what_is_under_way_or_pending_anywhere_calls_it_off() {
    for answers in [[Some((0, 0)), Some((1, 0))], [Some((0, 2)), Some((0, 0))]] {
        let operator = Operator::start().await;
        let mut both = two_interceptors(&operator).await;
        let refused = hold(&operator, &mut both, answers).await.err();
        assert_eq!(refused, Some(ReadErrorKind::Busy));
        for interceptor in &mut both {
            assert_eq!(interceptor.released().await, Outcome::CalledOff);
        }
    }
}

#[tokio::test]
async fn an_interceptor_that_is_gone_or_cannot_be_asked_calls_it_off() {
    let operator = Operator::start().await;
    let mut both = two_interceptors(&operator).await;
    let refused = hold(&operator, &mut both, [Some((0, 0)), None]).await.err();
    assert_eq!(refused, Some(ReadErrorKind::Unreachable));
    let [a, _] = &mut both;
    assert_eq!(a.released().await, Outcome::CalledOff);
    let reporters = ["pod-a", "pod-c"].map(Arc::from).into();
    let refused = operator.sessions.hold(&web(), reporters).await.err().unwrap();
    assert_eq!(
        refused.message,
        "the interceptor pod pod-c has no session with this operator that listens"
    );
}

#[tokio::test]
async fn a_hold_that_nobody_waits_for_any_more_is_called_off() {
    let operator = Operator::start().await;
    let mut both = two_interceptors(&operator).await;
    let reporters = ["pod-a", "pod-b"].map(Arc::from).into();
    let route = web();
    let asked = operator.sessions.hold(&route, reporters);
    let waited = tokio::time::timeout(Duration::from_millis(50), asked).await;
    assert!(waited.is_err(), "nobody answered");
    for interceptor in &mut both {
        interceptor.asked_to_hold().await;
        assert_eq!(interceptor.released().await, Outcome::CalledOff);
    }
    assert_eq!(both[0].within_a_moment().await, None);
}
