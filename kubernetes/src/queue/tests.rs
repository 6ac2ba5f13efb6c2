use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Runs the queue in the background, noting when each key was handled.
fn run<F, Fut>(queue: &Queue<&'static str>, concurrency: usize, handle: F) -> (Log, CancellationToken)
where
    F: Fn(&'static str) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Action, String>> + Send + 'static,
{
    let (log, stop, queue) = (Log::default(), CancellationToken::new(), queue.clone());
    let (noted, token) = (log.clone(), stop.clone());
    tokio::spawn(async move {
        let start = Instant::now();
        queue
            .run(concurrency, token, move |key| {
                noted.0.lock().unwrap().push((key, start.elapsed()));
                handle(key)
            })
            .await;
    });
    (log, stop)
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(&'static str, Duration)>>>);

impl Log {
    fn take(&self) -> Vec<(&'static str, Duration)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn keys(&self) -> Vec<&'static str> {
        self.take().into_iter().map(|(key, _)| key).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_handled_in_order_and_once_however_often_they_are_added() {
    let queue = Queue::default();
    for key in ["a", "b", "a", "a"] {
        queue.add(key);
    }
    let (log, _stop) = run(&queue, 1, async |_| Ok(Action::Done));
    sleep(SECOND).await;
    assert_eq!(log.keys(), ["a", "b"]);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_what_waits_for_a_worker_is_ready() {
    let queue = Queue::default();
    queue.add("running");
    queue.add("waiting");
    queue.add_after("delayed", 60 * SECOND);
    assert_eq!(queue.ready(), 2);
    let (_log, _stop) = run(&queue, 1, async |_| pending().await);
    sleep(SECOND).await;
    assert_eq!((queue.ready(), queue.len()), (1, 3));
    let due = ["running", "waiting", "delayed", "unknown"].map(|key| queue.is_due(&key));
    assert_eq!(due, [true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_it_is_handled_is_handled_once_more_and_never_twice_at_once() {
    let queue = Queue::default();
    let running = Arc::new(AtomicUsize::new(0));
    let (log, _stop) = run(&queue, 8, move |_| {
        let running = running.clone();
        async move {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "handled twice at once");
            sleep(SECOND).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(Action::Done)
        }
    });
    queue.add("a");
    sleep(SECOND / 2).await;
    queue.add("a");
    queue.add("a");
    sleep(SECOND * 10).await;
    assert_eq!(log.take(), [("a", Duration::ZERO), ("a", SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_handled_at_once() {
    let queue = Queue::default();
    for key in ["a", "b", "c"] {
        queue.add(key);
    }
    let (log, _stop) = run(&queue, 2, async |_| {
        sleep(SECOND).await;
        Ok(Action::Done)
    });
    sleep(SECOND / 2).await;
    assert_eq!(log.keys(), ["a", "b"]);
    sleep(SECOND).await;
    assert_eq!(log.keys(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_exactly_unless_the_key_is_added_earlier() {
    let queue = Queue::default();
    queue.add("a");
    queue.add("b");
    let (log, _stop) = run(&queue, 1, async |_| Ok(Action::After(SECOND * 10)));
    sleep(SECOND).await;
    assert_eq!(log.keys(), ["a", "b"]);
    queue.add("b");
    sleep(SECOND * 9 - Duration::from_millis(1)).await;
    assert_eq!(log.take(), [("b", SECOND)]);
    sleep(Duration::from_millis(2)).await;
    assert_eq!(log.take(), [("a", SECOND * 10)]);

    // A later wish does not put off an earlier one.
    queue.add_after("a", SECOND * 60);
    sleep(SECOND * 11).await;
    assert!(log.keys().contains(&"a"));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_per_key_and_a_success_forgets_them() {
    let queue = Queue::new(SECOND, SECOND * 8);
    let attempts = Arc::new(AtomicUsize::new(0));
    queue.add("bad");
    let (log, _stop) = run(&queue, 1, move |key| {
        let failing = key == "bad" && attempts.fetch_add(1, Ordering::SeqCst) < 6;
        async move {
            if failing {
                Err("no".to_owned())
            } else {
                Ok(Action::Done)
            }
        }
    });
    sleep(SECOND * 60).await;
    let times: Vec<_> = log.take().into_iter().map(|(_, at)| at).collect();
    assert_eq!(times.len(), 7, "the key was not handled until it succeeded");
    for (gap, step) in times
        .windows(2)
        .map(|w| w[1] - w[0])
        .zip([1, 2, 4, 8, 8, 8].map(|s| SECOND * s))
    {
        assert!(
            gap <= step && gap >= step / 2,
            "{gap:?} is outside the upper half of {step:?}"
        );
    }
    assert!(queue.is_empty());
    queue.add("good");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(log.keys(), ["good"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_does_not_wait_for_the_backoff() {
    let queue = Queue::new(SECOND * 20, SECOND * 20);
    queue.add("a");
    let (log, _stop) = run(&queue, 1, async |_| Err("no".to_owned()));
    sleep(SECOND).await;
    queue.add("a");
    sleep(SECOND).await;
    assert_eq!(log.take(), [("a", Duration::ZERO), ("a", SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_hang_harm_only_their_own_key() {
    let queue = Queue::default();
    for key in ["panics", "hangs", "fine"] {
        queue.add(key);
    }
    let (log, _stop) = run(&queue, 3, async |key| match key {
        "panics" => panic!("bad object"),
        "hangs" => pending().await,
        _ => Ok(Action::After(SECOND)),
    });
    sleep(RUN_LIMIT + SECOND * 40).await;
    let keys = log.keys();
    let count = |key| keys.iter().filter(|k| **k == key).count();
    assert!(
        count("fine") > 90,
        "the healthy key was held up: {}",
        count("fine")
    );
    assert!(
        count("panics") > 1 && count("hangs") > 1,
        "a key that failed once was forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_its_first_await_loses_no_key_and_ends_nothing() {
    let queue = Queue::default();
    queue.add("panics");
    queue.add("fine");
    let (calls, fine) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (called, handled) = (calls.clone(), fine.clone());
    let (stop, shared) = (CancellationToken::new(), queue.clone());
    let running = tokio::spawn(async move {
        let handle = move |key: &'static str| {
            if key == "panics" {
                assert!(called.fetch_add(1, Ordering::SeqCst) > 1, "bad object");
            }
            handled.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>(Action::Done) }
        };
        shared.run(2, stop, handle).await;
    });
    sleep(SECOND * 5).await;
    assert_eq!(
        (calls.load(Ordering::SeqCst), fine.load(Ordering::SeqCst)),
        (3, 2)
    );
    assert!(queue.is_empty() && !running.is_finished());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_what_runs_is_finished_and_nothing_new_begins() {
    let queue = Queue::default();
    queue.add("a");
    queue.add("b");
    let stop = CancellationToken::new();
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let running = tokio::spawn({
        let (queue, stop) = (queue.clone(), stop.clone());
        async move {
            queue
                .run(1, stop, move |_| {
                    let counted = counted.clone();
                    async move {
                        sleep(SECOND * 5).await;
                        counted.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, String>(Action::Done)
                    }
                })
                .await;
        }
    });
    sleep(SECOND).await;
    stop.cancel();
    running.await.unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 1);
}
