//! What an object shows of itself.

use std::time::Duration;

use dormouse_core::Action;
use tokio::time::sleep;

use crate::bench::{Bench, Source, key, spec};

#[tokio::test(start_paused = true)]
async fn an_object_shows_its_readings_its_decision_and_what_comes_next() {
    let bench = Bench::new(&[("a", Source::Says(7.0)), ("b", Source::Fails)]);
    assert_eq!(bench.engine.view(&key()), None);
    bench.apply(spec(&["a", "b"], 10, 60)).await;
    sleep(Duration::from_secs(24)).await;
    let view = bench.engine.view(&key()).unwrap();
    assert_eq!(
        (view.polling_interval, view.next_tick),
        (Duration::from_secs(10), Some(Duration::from_secs(6)))
    );
    assert!(view.last_active.is_some());
    let [a, b] = &view.triggers[..] else {
        panic!("{view:?}")
    };
    assert_eq!((a.metric_name.as_str(), b.index), ("s0-a", 1));
    let (a, b) = (a.latest.clone().unwrap(), b.latest.clone().unwrap());
    assert_eq!(
        (a.outcome.unwrap().value(), a.failures, a.age),
        (7.0, 0, Duration::from_secs(4))
    );
    assert_eq!((b.outcome.unwrap_err().category, b.failures), ("unreachable", 3));
    let decision = view.decision.unwrap();
    assert_eq!(
        (decision.observation.replicas, decision.decision.action),
        (1, Action::Stay)
    );

    bench.engine.stop(&key()).await;
    let view = bench.engine.view(&key()).unwrap();
    assert_eq!(view.next_tick, None, "no loop, no next tick");
    bench.engine.remove(&key()).await;
    assert_eq!(bench.engine.view(&key()), None);
}
