//! Waiting for the world to get there, with a deadline and an account of what was missing.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PAUSE: Duration = Duration::from_millis(100);

/// Tries `attempt` until it succeeds. An attempt that fails is one that is not there yet; the last one's error is
/// told when the deadline passes.
///
/// # Errors
/// When `deadline` passes first.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = anyhow!("not one attempt came to an end");
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if began.elapsed() + PAUSE >= deadline {
            return Err(last.context(format!("waited {deadline:?} for this, in vain: {what}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn says_what_it_waited_for_and_what_was_missing() {
        let error = until(
            "three pods",
            Duration::from_millis(250),
            async || -> Result<()> { Err(anyhow!("there are 2")) },
        )
        .await
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("three pods") && text.contains("there are 2"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn tries_again_until_it_works() {
        let mut seen = 0;
        let answer = until("the third try", Duration::from_secs(5), async || {
            seen += 1;
            ensure!(seen == 3, "only {seen}");
            Ok(seen)
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn gives_up_on_an_attempt_that_hangs() {
        let began = Instant::now();
        let hung = until(
            "an answer",
            Duration::from_millis(300),
            std::future::pending::<Result<()>>,
        );
        assert!(hung.await.is_err());
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
