use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};

use dormouse_runtime::{Metrics, metrics::Format};
use kube::core::Status;

use super::*;

fn refusal(code: u16, reason: &str) -> kube::Error {
    let details = (code == 429).then(|| serde_json::json!({"retryAfterSeconds": 7}));
    let status = serde_json::json!({"code": code, "reason": reason, "message": "no", "details": details});
    kube::Error::Api(serde_json::from_value::<Status>(status).unwrap().boxed())
}

#[test]
fn failures_are_told_apart() {
    let category = |code, reason| CallError::classify("patch the scale", &refusal(code, reason)).category();
    for (code, reason, expected) in [
        (404, "NotFound", "not_found"),
        (409, "Conflict", "conflict"),
        (409, "AlreadyExists", "already_exists"),
        (403, "Forbidden", "forbidden"),
        (401, "Unauthorized", "other"),
        (429, "TooManyRequests", "throttled"),
        (504, "Timeout", "timeout"),
        (500, "ServerTimeout", "timeout"),
        (503, "ServiceUnavailable", "unreachable"),
        (422, "Invalid", "invalid"),
        (400, "BadRequest", "invalid"),
        (500, "InternalError", "other"),
    ] {
        assert_eq!(category(code, reason), expected, "{code} {reason}");
    }
}

#[test]
fn an_answer_that_does_not_decode_is_not_quoted() {
    let serde = serde_json::from_str::<u32>("\"canary\"").unwrap_err();
    let error = CallError::classify("read the secret", &kube::Error::SerdeError(serde)).to_string();
    assert!(
        error.starts_with("unable to read the secret: ") && !error.contains("canary"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn ordinary_calls_leave_room_for_wakes() {
    let calls = Calls::new(Throttle::new());
    let running = Arc::new(AtomicUsize::new(0));
    let start = |priority| {
        let (calls, running) = (calls.clone(), running.clone());
        tokio::spawn(async move {
            let request = async {
                running.fetch_add(1, Ordering::Relaxed);
                pending::<Result<(), kube::Error>>().await
            };
            let _ = calls.unary(priority, "wait", request).await;
        })
    };
    for _ in 0..100 {
        start(Priority::Normal);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(running.load(Ordering::Relaxed), MAX_CALLS - KEPT_FOR_WAKES);
    for _ in 0..KEPT_FOR_WAKES {
        start(Priority::Wake);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        running.load(Ordering::Relaxed),
        MAX_CALLS,
        "the kept calls were not open to wakes"
    );
}

#[tokio::test(start_paused = true)]
async fn a_free_permit_goes_to_the_most_urgent_call_whoever_came_first() {
    let calls = Calls::new(Throttle::new());
    // One after the other becomes free.
    for held in 1..=MAX_CALLS as u64 {
        let calls = calls.clone();
        tokio::spawn(async move {
            let request = async {
                tokio::time::sleep(Duration::from_millis(10 * held)).await;
                Ok(())
            };
            calls.unary(Priority::Wake, "hold", request).await
        });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let call = |priority| {
        let (calls, order) = (calls.clone(), order.clone());
        async move {
            calls
                .unary(priority, "note", async {
                    order.lock().unwrap().push(priority);
                    Ok(())
                })
                .await
        }
    };
    let (routine, ordinary, wake) = tokio::join!(
        call(Priority::Routine),
        call(Priority::Normal),
        call(Priority::Wake)
    );
    assert_eq!((routine, ordinary, wake), (Ok(()), Ok(()), Ok(())));
    assert_eq!(
        *order.lock().unwrap(),
        [Priority::Wake, Priority::Normal, Priority::Routine]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_the_deadline_and_frees_its_permit() {
    let calls = Calls::new(Throttle::new());
    let start = Instant::now();
    let hanging =
        (0..200).map(|_| calls.unary(Priority::Normal, "wait", pending::<Result<(), kube::Error>>()));
    let results = futures::future::join_all(hanging).await;
    assert_eq!(
        start.elapsed(),
        DEADLINE,
        "waiting for a permit is not counted in"
    );
    let waited = |stage: &str| {
        let of_stage = |r: &&Result<(), CallError>| matches!(r, Err(CallError::Timeout { stage: s, .. }) if s.contains(stage));
        results.iter().filter(of_stage).count()
    };
    assert_eq!((waited("API server"), waited("at once")), (56, 144));
    assert_eq!(
        calls.unary(Priority::Normal, "read", async { Ok(1) }).await,
        Ok(1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_has_time_for_its_answer_however_long_the_line() {
    let calls = Calls::new(Throttle::new());
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok(())
    };
    let line = (0..1000).map(|_| calls.unary(Priority::Normal, "read", slow()));
    let results = futures::future::join_all(line).await;
    let answered = results.iter().filter(|result| result.is_ok()).count();
    // Those that were sent at once, after 0.9 s and after 1.8 s.
    assert_eq!(answered, 3 * (MAX_CALLS - KEPT_FOR_WAKES));
    let in_vain = results.iter().filter(
        |result| matches!(result, Err(CallError::Timeout { stage, .. }) if stage.contains("API server")),
    );
    assert_eq!(
        in_vain.count(),
        0,
        "calls were sent that could not be answered in time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks_but_wakes_go_on() {
    let calls = Calls::new(Throttle::new());
    let refused = calls.unary(Priority::Normal, "write", async {
        Err::<(), _>(refusal(429, "TooManyRequests"))
    });
    assert!(
        matches!(refused.await, Err(CallError::Throttled { retry_after, .. }) if retry_after.as_secs() == 7)
    );

    let at_once = calls.unary(Priority::Normal, "write", async { Ok(()) });
    let start = Instant::now();
    assert!(matches!(at_once.await, Err(CallError::Throttled { .. })));
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "a call that cannot make it was kept waiting"
    );
    assert_eq!(
        calls.unary(Priority::Wake, "wake", async { Ok(()) }).await,
        Ok(())
    );

    // Shortly before the end of the pause, a call waits it out.
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let start = Instant::now();
    assert_eq!(
        calls.unary(Priority::Normal, "write", async { Ok(()) }).await,
        Ok(())
    );
    assert_eq!(start.elapsed(), Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_never_longer_than_thirty_seconds_nor_cut_short() {
    let throttle = Throttle::new();
    throttle.pause(Duration::from_secs(3600));
    throttle.pause(Duration::from_secs(1));
    assert_eq!(throttle.until(), Some(Instant::now() + MAX_PAUSE));
    tokio::time::sleep(MAX_PAUSE).await;
    assert_eq!(throttle.until(), None);
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_what_and_how() {
    let (calls, metrics) = (Calls::new(Throttle::new()), Metrics::new());
    metrics.register(|registry| calls.register(registry));
    let _ = calls
        .unary(Priority::Normal, "patch the scale", async { Ok(()) })
        .await;
    let _ = calls
        .unary(Priority::Normal, "patch the scale", async {
            Err::<(), _>(refusal(409, "Conflict"))
        })
        .await;
    let page = metrics.encode(Format::Classic);
    for line in [
        "dormouse_kubernetes_calls_total{call=\"patch the scale\",result=\"ok\"} 1\n",
        "dormouse_kubernetes_calls_total{call=\"patch the scale\",result=\"conflict\"} 1\n",
        "dormouse_kubernetes_calls_running 0\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}
