use std::{collections::BTreeMap, sync::atomic::Ordering};

use k8s_openapi::api::core::v1::Secret;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fake_api::{FakeApi, Fate};

const SECRETS: &str = "/api/v1/namespaces/team-a/secrets";
/// For whatever comes at once: the time in which changes are gathered, and some.
const SOON: Duration = Duration::from_millis(500);

fn secrets() -> Arc<ApiResource> {
    Arc::new(ApiResource::erase::<Secret>(&()))
}

fn secret(namespace: &str, name: &str) -> Reference {
    Reference {
        resource: secrets(),
        key: ObjectKey::new(namespace, name),
    }
}

fn put(api: &FakeApi, name: &str) {
    api.put(SECRETS, json!({"metadata": {"name": name, "uid": "u"}}));
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(String, Sighting)>>>);

impl Heard {
    /// What was told since, by name.
    fn take(&self) -> BTreeMap<String, Vec<Sighting>> {
        let mut by_name: BTreeMap<String, Vec<Sighting>> = BTreeMap::new();
        for (name, sighting) in std::mem::take(&mut *self.0.lock().unwrap()) {
            by_name.entry(name).or_default().push(sighting);
        }
        by_name
    }

    fn of(&self, name: &str) -> Vec<Sighting> {
        self.take().remove(name).unwrap_or_default()
    }
}

fn watching(client: Client) -> (NamedWatches, Heard, AbortOnDropHandle<()>) {
    let (watches, heard) = (NamedWatches::default(), Heard::default());
    let tell = heard.clone();
    let run = watches
        .clone()
        .run(client, Namespaces::All, move |reference, sighting| {
            tell.0
                .lock()
                .unwrap()
                .push((reference.key.name.to_string(), sighting));
        });
    (watches, heard, AbortOnDropHandle::new(tokio::spawn(run)))
}

fn present(version: u64) -> Sighting {
    Sighting::Present(format!("u {version}"))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_holders_share_one_watch_and_the_last_one_ends_it() {
    let api = FakeApi::default().with_streaming_lists();
    let (watches, heard, _run) = watching(api.client());
    put(&api, "keys");
    let mut held: Vec<Held> = (0..1000)
        .map(|_| watches.hold(secret("team-a", "keys")))
        .collect();
    sleep(SOON).await;
    assert_eq!((watches.size(), api.watches.load(Ordering::Relaxed)), ((1, 1), 1));
    assert_eq!(heard.of("keys"), [present(1)]);

    put(&api, "keys");
    put(&api, "nobody's");
    sleep(SOON).await;
    assert_eq!(heard.take(), BTreeMap::from([("keys".into(), vec![present(2)])]));
    api.delete(SECRETS, "keys");
    sleep(SOON).await;
    assert_eq!(heard.of("keys"), [Sighting::Absent]);

    held.truncate(1);
    put(&api, "keys");
    sleep(SOON).await;
    assert_eq!(heard.of("keys"), [present(5)], "one holder is enough");
    held.clear();
    sleep(SOON).await;
    put(&api, "keys");
    sleep(SOON).await;
    assert_eq!((watches.size(), heard.take().len()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_told_too_and_so_is_its_arrival() {
    let api = FakeApi::default().with_streaming_lists();
    let (watches, heard, _run) = watching(api.client());
    let _held = watches.hold(secret("team-a", "late"));
    sleep(SOON).await;
    assert_eq!(heard.of("late"), [Sighting::Absent]);
    put(&api, "late");
    sleep(SOON).await;
    assert_eq!(heard.of("late"), [present(1)]);
}

#[tokio::test(start_paused = true)]
async fn many_names_become_one_watch_and_few_become_several_and_no_change_is_missed() {
    let api = FakeApi::default().with_streaming_lists();
    let (watches, heard, _run) = watching(api.client());
    let name = |index: usize| format!("keys-{index}");
    (0..40).for_each(|index| put(&api, &name(index)));
    let mut held = Vec::new();
    let mut version = 40;
    for index in 0..40 {
        held.push(watches.hold(secret("team-a", &name(index))));
        // A change in the midst of every change of the plan.
        sleep(Duration::from_millis(37)).await;
        put(&api, &name(index));
        version += 1;
        sleep(Duration::from_millis(150)).await;
        assert_eq!(
            heard.of(&name(index)).last(),
            Some(&present(version)),
            "{}",
            name(index)
        );
        let (wanted, running) = watches.size();
        assert_eq!(wanted, index + 1);
        assert!(running <= NAMES + 1, "{running} watches for {wanted} names");
    }
    assert_eq!(watches.size(), (40, 1));
    for left in (0..40).rev() {
        held.truncate(left + 1);
        sleep(Duration::from_millis(37)).await;
        put(&api, &name(left));
        version += 1;
        sleep(Duration::from_millis(150)).await;
        assert_eq!(
            heard.of(&name(left)).last(),
            Some(&present(version)),
            "{left} left"
        );
    }
    assert_eq!(watches.size(), (1, 1));
    sleep(SOON).await;
    put(&api, &name(39));
    sleep(SOON).await;
    assert_eq!(heard.take(), BTreeMap::new(), "nobody holds it any more");
}

#[tokio::test(start_paused = true)]
async fn where_only_names_are_granted_they_are_watched_one_by_one() {
    let api = FakeApi::default().with_streaming_lists();
    api.forbid(|_, query| !query.contains("fieldSelector"));
    let (watches, heard, _run) = watching(api.client());
    let held: Vec<Held> = (0..30)
        .map(|index| watches.hold(secret("team-a", &format!("keys-{index}"))))
        .collect();
    sleep(2 * SOON).await;
    assert_eq!(watches.size(), (30, 30));
    put(&api, "keys-29");
    sleep(SOON).await;
    assert_eq!(heard.of("keys-29").last(), Some(&present(1)));
    assert!(watches.watches(&secret("team-a", "keys-29")));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_granted_the_holder_is_told_to_look_for_itself() {
    let api = FakeApi::default().with_streaming_lists();
    api.forbid(|path, _| path == SECRETS);
    let (watches, heard, _run) = watching(api.client());
    let held = watches.hold(secret("team-a", "keys"));
    sleep(SOON).await;
    assert!(!watches.watches(&secret("team-a", "keys")));
    sleep(10 * REFUSED_NAME).await;
    let told = heard.of("keys");
    assert!((9..=10).contains(&told.len()), "{told:?}");
    assert!(
        told.iter().all(|sighting| *sighting == Sighting::Unknown),
        "{told:?}"
    );

    api.forbid(|_, _| false);
    put(&api, "keys");
    sleep(REFUSED_NAME + SOON).await;
    assert_eq!(heard.of("keys").last(), Some(&present(1)), "granted meanwhile");
    assert!(watches.watches(&secret("team-a", "keys")));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_change_behind_a_black_hole_is_told_after_it() {
    let api = FakeApi::default().with_streaming_lists();
    let began = Instant::now();
    let hole = Duration::from_secs(10)..Duration::from_secs(70);
    // The first watch goes silent without an end; what is asked within the hole ends by the client's own deadlines.
    let client = api.client_over(move |_| match began.elapsed() {
        at if at < Duration::from_secs(1) => Fate {
            silent: true,
            ..Fate::PROMPT
        },
        at if hole.contains(&at) => Fate {
            arrives: Some(Duration::from_secs(6)),
            refused: true,
            ..Fate::PROMPT
        },
        _ => Fate::PROMPT,
    });
    let (watches, heard, _run) = watching(client);
    let _held = watches.hold(secret("team-a", "keys"));
    sleep(Duration::from_secs(20)).await;
    put(&api, "keys");
    tokio::time::timeout(Duration::from_secs(120), async {
        while heard.of("keys").last() != Some(&present(1)) {
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("the change is told within 70 s of the end of the hole");
}

proptest! {
    /// Everything wanted is covered, by watches whose number is bounded, and a plan that is carried out stays as it is.
    #[test]
    fn plans_cover_everything_with_a_bounded_number_of_watches(
        wanted in proptest::collection::hash_set((0..90_u8, 0..60_u8), 0..900),
        before in proptest::collection::hash_set((0..90_u8, 0..60_u8), 0..900),
        whole_cluster: bool,
    ) {
        let references = |keys: &std::collections::HashSet<(u8, u8)>| -> Vec<Reference> {
            keys.iter().map(|(space, name)| secret(&format!("n{space}"), &format!("s{name}"))).collect()
        };
        let listed = |plan: HashSet<Place>| plan.into_iter().map(|place| (place, Progress::Listed)).collect::<HashMap<_, _>>();
        let first = listed(plan(references(&before).iter(), &HashMap::new(), whole_cluster));
        let wanted = references(&wanted);
        let second = plan(wanted.iter(), &first, whole_cluster);
        for reference in &wanted {
            let covered = second.iter().filter(|(_, scope)| scope.covers(&reference.key)).count();
            prop_assert_eq!(covered, 1, "{}", reference);
        }
        let bound = if whole_cluster { WATCHES } else { 90 * NAMES };
        prop_assert!(second.len() <= bound, "{} watches", second.len());
        let third = plan(wanted.iter(), &listed(second.clone()), whole_cluster);
        prop_assert_eq!(&third, &second);
    }
}
