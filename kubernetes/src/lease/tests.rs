use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::*;
use crate::fake_api::{FakeApi, Fate, Seen};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/keda/leases";
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct Candidate {
    leadership: Leadership,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Candidate {
    fn start(client: &Client, name: &str) -> Self {
        let mut config = LeaseConfig::new("keda", name);
        config.metrics_address = Some(format!("{name}:9666"));
        let (leadership, election) = elect(client, config).unwrap();
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(election.run(stop.clone())));
        Self {
            leadership,
            stop,
            task,
        }
    }

    fn leads(&self) -> bool {
        self.leadership.is_leader()
    }

    async fn leads_within(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        while !self.leads() {
            assert!(start.elapsed() <= limit, "no leader after {limit:?}");
            sleep(MS).await;
        }
        start.elapsed()
    }
}

fn lease(api: &FakeApi) -> Value {
    api.get(LEASES, DEFAULT_NAME).unwrap()
}

/// A network for one candidate that a test can cut.
#[derive(Clone, Default)]
struct Cable {
    cut: Arc<AtomicBool>,
}

impl Cable {
    fn client(&self, api: &FakeApi) -> Client {
        let cut = self.cut.clone();
        api.client_over(move |_| {
            if cut.load(Ordering::SeqCst) {
                Fate::LOST
            } else {
                Fate::PROMPT
            }
        })
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_at_once_and_its_lease_reads_as_client_go_writes_it() {
    let api = FakeApi::default();
    let a = Candidate::start(&api.client(), "a");
    a.leads_within(SECOND).await;
    assert_eq!(*a.leadership.subscribe().borrow(), LeaderState::Leader);
    let first = lease(&api);
    let spec = &first["spec"];
    assert_eq!(
        (&spec["holderIdentity"], &spec["leaseDurationSeconds"]),
        (&json!("a"), &json!(15))
    );
    assert_eq!(spec["leaseTransitions"], 0);
    let micro = spec["renewTime"].as_str().unwrap();
    assert!(
        micro.len() == "2026-11-21T08:00:00.000000Z".len() && micro.ends_with('Z'),
        "{micro}"
    );
    assert_eq!(first["metadata"]["annotations"][ADDRESS_ANNOTATION], "a:9666");

    sleep(SECOND * 5).await;
    let later = lease(&api);
    assert_eq!(later["spec"]["acquireTime"], spec["acquireTime"]);
    assert_ne!(
        later["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"],
        "not renewed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_knows_the_leader_and_takes_over_at_the_exact_end_of_its_lease() {
    let api = FakeApi::default();
    let cable = Cable::default();
    let a = Candidate::start(&cable.client(&api), "a");
    a.leads_within(SECOND).await;
    let b = Candidate::start(&api.client(), "b");
    sleep(SECOND * 30).await;
    assert!(!b.leads());
    let leader = LeaderInfo {
        identity: "a".into(),
        address: Some("a:9666".into()),
    };
    assert_eq!(b.leadership.leader(), Some(leader));

    // Cut right after a renewal: 15 s later the lease is free.
    let version = lease(&api)["metadata"]["resourceVersion"].clone();
    while lease(&api)["metadata"]["resourceVersion"] == version {
        sleep(MS).await;
    }
    cable.cut();
    sleep(SECOND * 15 - MS * 20).await;
    assert!(!a.leads() && !b.leads());
    sleep(MS * 40).await;
    assert!(b.leads(), "the follower slept past the end of the lease");
    assert_eq!(lease(&api)["spec"]["holderIdentity"], "b");
    assert_eq!(lease(&api)["spec"]["leaseTransitions"], 1);

    cable.mend();
    sleep(SECOND * 20).await;
    assert!(!a.leads() && b.leads());
    assert_eq!(a.leadership.leader().unwrap().identity, "b");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_calls_hang_stops_by_its_own_clock_and_leads_again_if_nobody_else_does() {
    let api = FakeApi::default();
    let cable = Cable::default();
    let a = Candidate::start(&cable.client(&api), "a");
    a.leads_within(SECOND).await;
    let mut state = a.leadership.subscribe();
    sleep(SECOND).await;
    cable.cut();
    let cut = Instant::now();
    while a.leads() {
        sleep(MS).await;
    }
    // The last renewal began at most a retry period before the cut.
    assert!(
        cut.elapsed() >= SECOND * 8 && cut.elapsed() <= SECOND * 10,
        "{:?}",
        cut.elapsed()
    );
    sleep(MS).await;
    assert!(matches!(*state.borrow_and_update(), LeaderState::Follower { .. }));
    cable.mend();
    a.leads_within(SECOND * 6).await;
    assert_eq!(lease(&api)["spec"]["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_up_is_taken_at_once() {
    let api = FakeApi::default();
    let a = Candidate::start(&api.client(), "a");
    a.leads_within(SECOND).await;
    let b = Candidate::start(&api.client(), "b");
    sleep(SECOND * 7).await;
    a.stop.cancel();
    a.task.await.unwrap();
    assert!(!a.leadership.is_leader());
    let waited = b.leads_within(SECOND).await;
    assert!(waited < MS * 50, "{waited:?}");
    assert_eq!(lease(&api)["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_after_giving_up_is_what_client_go_leaves() {
    let api = FakeApi::default();
    let a = Candidate::start(&api.client(), "a");
    a.leads_within(SECOND).await;
    a.stop.cancel();
    a.task.await.unwrap();
    let lease = lease(&api);
    assert_eq!(lease["spec"]["holderIdentity"], "");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 1);
    assert_eq!(lease["metadata"]["annotations"].get(ADDRESS_ANNOTATION), None);
}

#[tokio::test(start_paused = true)]
async fn giving_up_does_not_hang_with_the_network_and_a_follower_gives_up_nothing() {
    let api = FakeApi::default();
    let cable = Cable::default();
    let a = Candidate::start(&cable.client(&api), "a");
    a.leads_within(SECOND).await;
    let b = Candidate::start(&api.client(), "b");
    sleep(SECOND).await;
    b.stop.cancel();
    b.task.await.unwrap();
    assert_eq!(lease(&api)["spec"]["holderIdentity"], "a");
    cable.cut();
    let start = Instant::now();
    a.stop.cancel();
    a.task.await.unwrap();
    assert!(start.elapsed() <= SECOND * 2 && !a.leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_lease_deleted_by_hand_is_not_taken_from_a_leader_that_is_alive() {
    let api = FakeApi::default();
    let a = Candidate::start(&api.client(), "a");
    a.leads_within(SECOND).await;
    let b = Candidate::start(&api.client(), "b");
    sleep(SECOND * 5).await;
    api.delete(LEASES, DEFAULT_NAME);
    for _ in 0..20_000 {
        sleep(MS).await;
        assert!(a.leads() && !b.leads());
    }
    assert_eq!(lease(&api)["spec"]["holderIdentity"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_holder_of_a_longer_lease_is_left_alone_for_all_of_it() {
    let api = FakeApi::default();
    api.put(
        LEASES,
        json!({"metadata": {"name": DEFAULT_NAME, "uid": "1"}, "spec": {
            "holderIdentity": "keda-operator-7d9f_0b1c", "leaseDurationSeconds": 60, "leaseTransitions": 4,
            "renewTime": "2020-01-01T00:00:00.000000Z", "acquireTime": "2020-01-01T00:00:00.000000Z"}}),
    );
    let a = Candidate::start(&api.client(), "a");
    sleep(SECOND * 59).await;
    assert!(!a.leads(), "the times in the lease were believed");
    a.leads_within(SECOND * 2).await;
    assert_eq!(lease(&api)["spec"]["leaseTransitions"], 5);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_does_not_exist_is_asked_for_now_and_then() {
    let api = FakeApi::default();
    api.refuse_new_objects(true);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let client = api.client_over(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Fate::PROMPT
    });
    let a = Candidate::start(&client, "a");
    sleep(SECOND * 60).await;
    assert!(
        !a.leads() && asked.load(Ordering::SeqCst) < 100,
        "{asked:?} requests in a minute"
    );
    api.refuse_new_objects(false);
    a.leads_within(SECOND * 3).await;
}

#[tokio::test(start_paused = true)]
async fn alone_means_leader_for_good() {
    let leadership = Leadership::always();
    sleep(SECOND * 100_000).await;
    assert!(leadership.is_leader());
    assert_eq!(*leadership.subscribe().borrow(), LeaderState::Leader);
    assert!(leadership.clone().subscribe().has_changed().is_ok());
}

#[test]
fn times_that_allow_two_leaders_are_refused() {
    let with = |duration, deadline, retry| {
        let mut config = LeaseConfig::new("keda", "a");
        (config.duration, config.renew_deadline, config.retry_period) = (duration, deadline, retry);
        config.validate()
    };
    assert_eq!(with(SECOND * 15, SECOND * 10, SECOND * 2), Ok(()));
    for (duration, deadline, retry) in [(10, 10, 2), (15, 2, 2), (15, 10, 0), (7200, 10, 2)]
        .map(|(d, r, p)| (SECOND * d, SECOND * r, SECOND * p))
    {
        assert!(
            with(duration, deadline, retry).is_err(),
            "{duration:?} {deadline:?} {retry:?}"
        );
    }
    assert!(
        with(MS * 15_500, SECOND * 10, SECOND * 2).is_err(),
        "a lease cannot hold a fraction of a second"
    );
}

/// What the network does to each of a candidate's requests, in turn and from the start again at the end.
fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let delay = prop_oneof![3 => 0_u64..50, 2 => 50_u64..4_000, 1 => 4_000_u64..30_000];
    let fate = (delay.clone(), delay, 0_u8..10).prop_map(|(arrives, returns, luck)| Fate {
        arrives: (luck != 0).then(|| Duration::from_millis(arrives)),
        returns: (luck != 1).then(|| Duration::from_millis(returns)),
        refused: luck == 2,
        silent: luck == 3,
    });
    proptest::collection::vec(fate, 1..12)
}

fn unreliable(api: &FakeApi, fates: Vec<Fate>, calm: Arc<AtomicBool>) -> Client {
    let turn = AtomicUsize::new(0);
    api.client_over(move |seen: &Seen<'_>| {
        if calm.load(Ordering::SeqCst) {
            return Fate::PROMPT;
        }
        let fate = fates[turn.fetch_add(1, Ordering::SeqCst) % fates.len()];
        // A read that falls silent is a stream; for others that is the same as an answer that never comes.
        let returns = if fate.silent && !seen.query.contains("watch=") {
            None
        } else {
            fate.returns
        };
        Fate { returns, ..fate }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_leaders_and_always_one_once_the_network_is_well(
        networks in proptest::collection::vec(fates(), 2..4),
        restarts in proptest::collection::vec((5_u64..60, 0_usize..4, any::<bool>()), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let api = FakeApi::default();
            let calm = Arc::new(AtomicBool::new(false));
            let clients: Vec<_> = networks.into_iter().map(|fates| unreliable(&api, fates, calm.clone())).collect();
            let mut candidates: Vec<_> =
                clients.iter().enumerate().map(|(n, client)| Candidate::start(client, &format!("c{n}"))).collect();
            // Those that were told to stop still count until they have.
            let mut leaving: Vec<Candidate> = Vec::new();
            let log = Mutex::new(Vec::new());
            let check = |candidates: &[Candidate], leaving: &[Candidate]| {
                let leaders = candidates.iter().chain(leaving).filter(|c| c.leads()).count();
                log.lock().unwrap().push(leaders);
                prop_assert!(leaders <= 1, "{} leaders at once", leaders);
                Ok(())
            };
            let mut generation = 100;
            for (seconds, who, politely) in restarts {
                for _ in 0..seconds * 50 {
                    sleep(MS * 20).await;
                    check(&candidates, &leaving)?;
                }
                let who = who % candidates.len();
                generation += 1;
                let new = Candidate::start(&clients[who], &format!("c{generation}"));
                let old = std::mem::replace(&mut candidates[who], new);
                if politely {
                    old.stop.cancel();
                    leaving.push(old);
                }
            }
            for _ in 0..3_000 {
                sleep(MS * 20).await;
                check(&candidates, &leaving)?;
            }
            calm.store(true, Ordering::SeqCst);
            // Whatever hangs is given up within a deadline, the last lease ends, and one of them takes it. A watch that
            // fell silent just then is no reason to be late: the end of the lease is known without it.
            let mut led = 0;
            for step in 0..6_000 {
                sleep(MS * 20).await;
                check(&candidates, &leaving)?;
                let leads = candidates.iter().any(Candidate::leads);
                led = if leads { led + 1 } else { 0 };
                if step > 5_000 {
                    prop_assert!(leads, "nobody leads although the network is well");
                }
            }
            prop_assert!(led > 1_000);
            Ok(())
        })?;
    }
}
