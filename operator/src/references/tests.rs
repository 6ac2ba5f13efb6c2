use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// Value and revision; none where it may not be read.
type Map = Option<(String, u32)>;

/// A cluster with ConfigMaps only: what they hold, how often they were read, and who was looked at again.
#[derive(Clone, Default)]
struct Cluster {
    maps: Arc<Mutex<BTreeMap<String, Map>>>,
    unreachable: Arc<Mutex<bool>>,
    reads: Arc<AtomicUsize>,
    again: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn references(&self) -> References {
        let (this, again) = (self.clone(), self.again.clone());
        let read = move |reference: &Reference| {
            this.reads.fetch_add(1, Ordering::Relaxed);
            let known = this.maps.lock().unwrap().get(&*reference.key.name).cloned();
            let unreachable = *this.unreachable.lock().unwrap();
            async move {
                sleep(Duration::from_millis(10)).await;
                match known {
                    _ if unreachable => Err(CallError::Timeout {
                        call: "read",
                        stage: "waiting for the answer",
                    }),
                    None => Ok(Found::Absent),
                    Some(None) => Ok(Found::Unreadable),
                    Some(Some((value, revision))) => Ok(Found::Present {
                        mark: revision.to_string(),
                        content: Arc::new(Content::ConfigMap([("value".to_owned(), value)].into())),
                    }),
                }
            }
            .boxed()
        };
        let look_again = move |user: &ObjectKey| again.lock().unwrap().push(user.name.clone());
        References::reading_with(Box::new(read), Box::new(look_again))
    }

    fn set(&self, name: &str, value: &str, revision: u32) -> Sighting {
        let known = Some((value.to_owned(), revision));
        self.maps.lock().unwrap().insert(name.to_owned(), known);
        Sighting::Present(revision.to_string())
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Who was looked at again since.
    fn again(&self) -> Vec<String> {
        let mut again = std::mem::take(&mut *self.again.lock().unwrap());
        again.sort();
        again
    }
}

fn user(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn map(references: &References, name: &str) -> Reference {
    reference(&references.shared.kinds.config_map, "shop", name)
}

async fn value(references: &References, of: &str, name: &str) -> Option<String> {
    let user = user(of);
    let lookup = references.lookup(&user);
    let content = lookup.get(lookup.config_map("shop", name)).await.unwrap();
    lookup.complete();
    content.map(|content| match &*content {
        Content::ConfigMap(values) => values["value"].clone(),
        other => panic!("{other:?}"),
    })
}

fn rereading(references: &References) -> AbortOnDropHandle<()> {
    let this = references.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        this.reread(CancellationToken::new()).await
    }))
}

const SOON: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn many_users_make_one_read_and_all_of_them_hear_of_a_change() {
    let cluster = Cluster::default();
    cluster.set("keys", "old", 1);
    cluster.set("other", "same", 1);
    let references = cluster.references();
    let _rereading = rereading(&references);
    let names: Vec<String> = (0..100).map(|index| format!("user-{index:02}")).collect();
    let asked = names.iter().map(|name| value(&references, name, "keys"));
    let values = futures::future::join_all(asked).await;
    assert!(values.iter().all(|value| value.as_deref() == Some("old")));
    assert_eq!(value(&references, "bystander", "other").await.unwrap(), "same");
    assert_eq!(cluster.reads(), 2);

    let sighting = cluster.set("keys", "new", 2);
    references.told(&map(&references, "keys"), sighting);
    sleep(SOON).await;
    assert_eq!((cluster.again(), cluster.reads()), (names, 3));
    assert_eq!(value(&references, "user-00", "keys").await.unwrap(), "new");
    assert_eq!(cluster.reads(), 3, "kept");
}

#[tokio::test(start_paused = true)]
async fn a_change_during_the_first_read_is_not_lost() {
    let cluster = Cluster::default();
    cluster.set("keys", "old", 1);
    let references = cluster.references();
    let _rereading = rereading(&references);
    let change = async {
        sleep(Duration::from_millis(5)).await;
        let sighting = cluster.set("keys", "new", 2);
        references.told(&map(&references, "keys"), sighting);
    };
    let (first, ()) = tokio::join!(value(&references, "orders", "keys"), change);
    assert_eq!(first.as_deref(), Some("old"));
    sleep(SOON).await;
    assert_eq!((cluster.again(), cluster.reads()), (vec!["orders".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn another_revision_of_the_same_content_disturbs_nobody() {
    let cluster = Cluster::default();
    let sighting = cluster.set("keys", "same", 1);
    let references = cluster.references();
    let _rereading = rereading(&references);
    value(&references, "orders", "keys").await;
    references.told(&map(&references, "keys"), sighting);
    sleep(SOON).await;
    assert_eq!(cluster.reads(), 1, "what the watch shows first is what was read");
    let sighting = cluster.set("keys", "same", 2);
    references.told(&map(&references, "keys"), sighting);
    sleep(SOON).await;
    assert_eq!((cluster.again(), cluster.reads()), (vec![], 2));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_deleted_and_created_again_is_never_missing() {
    let cluster = Cluster::default();
    cluster.set("keys", "old", 1);
    let references = cluster.references();
    let _rereading = rereading(&references);
    value(&references, "orders", "keys").await;
    let keys = map(&references, "keys");

    cluster.maps.lock().unwrap().clear();
    references.told(&keys, Sighting::Absent);
    sleep(GONE / 2).await;
    assert!(cluster.again().is_empty());
    let sighting = cluster.set("keys", "new", 3);
    references.told(&keys, sighting);
    sleep(2 * GONE).await;
    assert_eq!((cluster.again(), cluster.reads()), (vec!["orders".to_owned()], 2));

    cluster.maps.lock().unwrap().clear();
    references.told(&keys, Sighting::Absent);
    sleep(GONE + SOON).await;
    assert_eq!(cluster.again(), ["orders"]);
    assert_eq!(value(&references, "orders", "keys").await, None);
    let sighting = cluster.set("keys", "back", 4);
    references.told(&keys, sighting);
    sleep(SOON).await;
    assert_eq!(cluster.again(), ["orders"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_changes_nothing_and_is_done_again() {
    let cluster = Cluster::default();
    cluster.set("keys", "old", 1);
    let references = cluster.references();
    let _rereading = rereading(&references);
    value(&references, "orders", "keys").await;
    *cluster.unreachable.lock().unwrap() = true;
    let sighting = cluster.set("keys", "new", 2);
    references.told(&map(&references, "keys"), sighting);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.again(), Vec::<String>::new());
    assert!(
        (15..120).contains(&cluster.reads()),
        "{} reads in a minute",
        cluster.reads()
    );
    *cluster.unreachable.lock().unwrap() = false;
    sleep(LAST_RETRY + SOON).await;
    assert_eq!(cluster.again(), ["orders"]);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_asked_for_each_time() {
    let cluster = Cluster::default();
    cluster.maps.lock().unwrap().insert("keys".into(), None);
    let references = cluster.references();
    assert_eq!(value(&references, "orders", "keys").await, None);
    cluster.set("keys", "granted", 1);
    assert_eq!(
        value(&references, "orders", "keys").await.as_deref(),
        Some("granted")
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_referred_to_is_given_back_unless_the_look_up_broke_off() {
    let cluster = Cluster::default();
    cluster.set("a", "1", 1);
    cluster.set("b", "2", 1);
    let references = cluster.references();
    let watched = |references: &References| references.shared.watches.size().0;
    value(&references, "orders", "a").await;
    value(&references, "other", "a").await;
    {
        let orders = user("orders");
        let broken_off = references.lookup(&orders);
        broken_off.get(broken_off.config_map("shop", "b")).await.unwrap();
    }
    assert_eq!(watched(&references), 2);
    references.told(&map(&references, "a"), Sighting::Unknown);
    value(&references, "orders", "b").await;
    references.forget(&user("other"));
    assert_eq!(watched(&references), 1);
    references.forget(&user("orders"));
    assert_eq!(watched(&references), 0);
    let state = references.lock();
    assert!(state.entries.is_empty() && state.by_user.is_empty());
}
