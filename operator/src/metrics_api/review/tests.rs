use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Yes(usize);

impl Answer for Yes {
    fn fresh_for(&self) -> Duration {
        Duration::from_millis(200)
    }
}

fn question(number: usize) -> Question {
    let mut question = [0; 32];
    question[..8].copy_from_slice(&number.to_le_bytes());
    question
}

const NONE: Duration = Duration::ZERO;

async fn counted(asked: Arc<AtomicUsize>) -> Result<Yes, Unanswered> {
    Ok(Yes(asked.fetch_add(1, Ordering::SeqCst) + 1))
}

async fn refused() -> Result<Yes, Unanswered> {
    Err(Unanswered("nobody there".to_owned()))
}

#[tokio::test]
async fn many_callers_at_once_put_one_question() {
    let cache = ReviewCache::new(8);
    let asked = Arc::new(AtomicUsize::new(0));
    let slowly = |asked: Arc<AtomicUsize>| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        counted(asked).await
    };
    let answers = futures::future::join_all(
        (0..100).map(|_| cache.resolve(question(1), NONE, || slowly(Arc::clone(&asked)))),
    )
    .await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == Yes(1)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_past_half_its_time_is_renewed_behind_the_callers_back() {
    let cache = ReviewCache::new(8);
    let asked = Arc::new(AtomicUsize::new(0));
    let ask = || cache.resolve(question(1), NONE, || counted(Arc::clone(&asked)));
    assert_eq!(ask().await.unwrap(), Yes(1));
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(
        ask().await.unwrap(),
        Yes(1),
        "the caller does not wait for the renewal"
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ask().await.unwrap(), Yes(2));
}

#[tokio::test]
async fn an_old_answer_counts_only_for_those_it_may_count_for() {
    let cache = ReviewCache::new(8);
    let asked = Arc::new(AtomicUsize::new(0));
    cache
        .resolve(question(1), NONE, || counted(Arc::clone(&asked)))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let stale = cache.resolve(question(1), Duration::from_secs(60), refused).await;
    assert_eq!(stale.unwrap(), Yes(1));
    assert!(cache.resolve(question(1), NONE, refused).await.is_err());
    assert!(cache.remembered(&question(1), NONE).is_none());
    assert_eq!(
        cache.remembered(&question(1), Duration::from_secs(60)),
        Some(Yes(1))
    );
}

#[tokio::test]
async fn a_silent_server_delays_a_caller_with_an_old_answer_once() {
    let cache = ReviewCache::new(8);
    let asked = Arc::new(AtomicUsize::new(0));
    cache
        .resolve(question(1), NONE, || counted(Arc::clone(&asked)))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let silent = || futures::future::pending().boxed();
    let begun = Instant::now();
    let answer = cache.resolve(question(1), Duration::from_secs(60), silent).await;
    assert_eq!(answer.unwrap(), Yes(1));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_failure_is_not_remembered_as_an_answer() {
    let cache = ReviewCache::new(8);
    let asked = Arc::new(AtomicUsize::new(0));
    assert!(cache.resolve(question(1), NONE, refused).await.is_err());
    let answer = cache
        .resolve(question(1), NONE, || counted(Arc::clone(&asked)))
        .await;
    assert_eq!(answer.unwrap(), Yes(1));
}

#[tokio::test]
async fn a_flood_of_questions_keeps_the_memory_within_its_bound() {
    let cache = ReviewCache::new(8);
    let asked = Arc::new(AtomicUsize::new(0));
    for number in 0..100 {
        cache
            .resolve(question(number), NONE, || counted(Arc::clone(&asked)))
            .await
            .unwrap();
        assert!(cache.lock().len() <= 8);
    }
    assert!(
        cache.remembered(&question(99), NONE).is_some(),
        "the newest answer stays"
    );
    assert!(cache.remembered(&question(0), NONE).is_none(), "the oldest went");
}
