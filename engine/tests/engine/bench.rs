//! Scripted triggers, a target in memory, and an engine between them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of it is test code, which clippy sees in test functions only"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::{Pause, ReplicaRange, ScalePolicy, TargetKind};
use dormouse_engine::ports::{CHANGED, GONE};
use dormouse_engine::{
    Autoscaler, AutoscalerSpec, DemandHub, Engine, Journal, Leadership, MetricError, ObjectKey, ObjectSpec,
    PortError, Ports, Settings, Target, TargetState, TickOutcome, TickReport, TriggerRead, TriggerSpec,
    Urgency,
};
use dormouse_scalers::clients::{Clients, ClientsConfig, Fingerprint};
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{
    ConfigError, Connect, DemandSource, MetricSpec, Observed, Question, ReadError, Trigger, TriggerParams,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How a scripted source behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    Says(f64),
    SaysAfter(f64, Duration),
    Fails,
    Hangs,
    Panics,
    SaysNaN,
    /// Holds on to its thread until this many milliseconds are over, whoever cancels it.
    Blocks(u64),
}

#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) source: Arc<Mutex<Source>>,
    pub(crate) reads: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) fn set(&self, source: Source) {
        *self.source.lock().unwrap() = source;
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

pub(crate) struct Scripted {
    pub(crate) script: Script,
    pub(crate) name: String,
    pub(crate) question: Option<Question>,
}

#[expect(clippy::disallowed_methods, reason = "to block the thread is what it is for")]
fn hold_the_thread(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

impl Trigger for Scripted {
    fn label(&self) -> &'static str {
        "scriptedScaler"
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: self.name.clone(),
            target: dormouse_scalers::Target::Whole(5),
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn read(self: Arc<Self>) -> BoxFuture<'static, Result<Observed, ReadError>> {
        async move {
            self.script.reads.fetch_add(1, Ordering::SeqCst);
            let source = *self.script.source.lock().unwrap();
            match source {
                Source::Says(value) => Ok(Observed::above(value, 0.0)),
                Source::SaysAfter(value, delay) => {
                    sleep(delay).await;
                    Ok(Observed::above(value, 0.0))
                }
                Source::Fails => Err(ReadError::new(ReadErrorKind::Unreachable, "no connection")),
                Source::Hangs => std::future::pending().await,
                Source::Panics => panic!("a parser that fails"),
                Source::SaysNaN => Ok(Observed::above(f64::NAN, 0.0)),
                Source::Blocks(millis) => {
                    hold_the_thread(millis);
                    Ok(Observed::above(1.0, 0.0))
                }
            }
        }
        .boxed()
    }

    fn question(&self) -> Option<Question> {
        self.question
    }
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) replicas: AtomicU32,
    pub(crate) version: AtomicU32,
    /// How often the target was looked at.
    pub(crate) looks: AtomicUsize,
    /// How often a change was refused, because the target was no longer what was seen.
    pub(crate) refused: AtomicUsize,
    pub(crate) gone: AtomicBool,
    pub(crate) unreachable: AtomicBool,
    /// Changes are made, and nothing comes back.
    pub(crate) unanswered: AtomicBool,
    pub(crate) hangs: AtomicBool,
    /// (seconds since the start, replicas) of each change.
    pub(crate) changes: Mutex<Vec<(f64, u32)>>,
    pub(crate) ensured: Mutex<Vec<AutoscalerSpec>>,
    pub(crate) removed: AtomicUsize,
    pub(crate) ticks: Mutex<Vec<String>>,
    /// Whether nothing is kept of ticks and changes, so that their memory is not taken for the engine's.
    pub(crate) forgetful: AtomicBool,
    /// The longest any tick was late.
    pub(crate) latest: Mutex<Duration>,
    /// How long demand had been there at each wake, in seconds.
    pub(crate) wakes: Mutex<Vec<f64>>,
    /// (object, seconds since the start, rest) of each quarantine.
    pub(crate) quarantines: Mutex<Vec<(String, f64, u64)>>,
    /// The object whose ticks cannot be written down without a panic.
    pub(crate) cursed: Mutex<Option<String>>,
    pub(crate) started: Mutex<Option<Instant>>,
}

impl World {
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            started: Mutex::new(Some(Instant::now())),
            ..Self::default()
        })
    }

    pub(crate) fn ports(self: &Arc<Self>) -> Ports {
        Ports {
            target: Arc::new(Port(self.clone())),
            autoscaler: Arc::new(Port(self.clone())),
        }
    }

    pub(crate) fn elapsed(&self) -> f64 {
        self.started
            .lock()
            .unwrap()
            .expect("set when the bench is built")
            .elapsed()
            .as_secs_f64()
    }

    pub(crate) fn changes(&self) -> Vec<(f64, u32)> {
        self.changes.lock().unwrap().clone()
    }
}

pub(crate) struct Port(pub(crate) Arc<World>);

impl Target for Port {
    fn observe(&self, _urgency: Urgency) -> BoxFuture<'_, Result<TargetState, PortError>> {
        async {
            self.0.looks.fetch_add(1, Ordering::SeqCst);
            if self.0.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.0.gone.load(Ordering::SeqCst) {
                return Err(PortError {
                    category: GONE,
                    message: "no such target".into(),
                });
            }
            if self.0.unreachable.load(Ordering::SeqCst) {
                return Err(PortError {
                    category: "timeout",
                    message: "no answer".into(),
                });
            }
            Ok(TargetState {
                replicas: self.0.replicas.load(Ordering::SeqCst),
                version: Some(self.0.version.load(Ordering::SeqCst).to_string()),
            })
        }
        .boxed()
    }

    fn set_replicas<'a>(
        &'a self,
        to: u32,
        seen: &'a TargetState,
        _urgency: Urgency,
    ) -> BoxFuture<'a, Result<TargetState, PortError>> {
        async move {
            let version = self.0.version.load(Ordering::SeqCst).to_string();
            let still_asleep = seen.replicas == 0 && self.0.replicas.load(Ordering::SeqCst) == 0;
            if !still_asleep && seen.version.as_ref().is_some_and(|seen| *seen != version) {
                self.0.refused.fetch_add(1, Ordering::SeqCst);
                return Err(PortError {
                    category: CHANGED,
                    message: "it changed".into(),
                });
            }
            self.0.replicas.store(to, Ordering::SeqCst);
            let left = self.0.version.fetch_add(1, Ordering::SeqCst) + 1;
            let at = self.0.elapsed();
            if !self.0.forgetful.load(Ordering::SeqCst) {
                self.0.changes.lock().unwrap().push((at, to));
            }
            if self.0.unanswered.load(Ordering::SeqCst) {
                return Err(PortError {
                    category: "timeout",
                    message: "no answer".into(),
                });
            }
            Ok(TargetState {
                replicas: to,
                version: Some(left.to_string()),
            })
        }
        .boxed()
    }

    fn ready_replicas(&self) -> BoxFuture<'_, Result<u32, PortError>> {
        async { Ok(self.0.replicas.load(Ordering::SeqCst)) }.boxed()
    }
}

impl Autoscaler for Port {
    fn ensure<'a>(&'a self, spec: &'a AutoscalerSpec) -> BoxFuture<'a, Result<(), PortError>> {
        if !self.0.forgetful.load(Ordering::SeqCst) {
            self.0.ensured.lock().unwrap().push(spec.clone());
        }
        async { Ok(()) }.boxed()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), PortError>> {
        self.0.removed.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }.boxed()
    }
}

pub(crate) struct Notes(pub(crate) Arc<World>);

impl Journal for Notes {
    fn read(&self, _object: &ObjectKey, _read: &TriggerRead<'_>) {}

    fn tick<'a>(&'a self, report: TickReport<'a>) -> BoxFuture<'a, ()> {
        let note = match &report.outcome {
            TickOutcome::TargetUnknown(_) => "target-unknown".to_owned(),
            TickOutcome::Decided { record, .. } => record.decision.reason.name().to_owned(),
        };
        let cursed = self.0.cursed.lock().unwrap().clone();
        assert_ne!(cursed, Some(report.spec.key.name.clone()), "a journal that fails");
        if !self.0.forgetful.load(Ordering::SeqCst) {
            self.0.ticks.lock().unwrap().push(note);
        }
        let mut latest = self.0.latest.lock().unwrap();
        *latest = report.late_by.max(*latest);
        async {}.boxed()
    }

    fn woke(&self, after: Duration) {
        self.0.wakes.lock().unwrap().push(after.as_secs_f64());
    }

    fn quarantined<'a>(&'a self, spec: &'a ObjectSpec, rest: Duration) -> BoxFuture<'a, ()> {
        let note = (spec.key.name.clone(), self.0.elapsed(), rest.as_secs());
        self.0.quarantines.lock().unwrap().push(note);
        async {}.boxed()
    }
}

pub(crate) struct Lease(pub(crate) watch::Sender<bool>);

impl Leadership for Lease {
    fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) world: Arc<World>,
    pub(crate) scripts: HashMap<String, Script>,
    pub(crate) lease: Arc<Lease>,
}

impl Bench {
    /// An engine whose triggers, named `a`, `b` and so on, are scripted.
    pub(crate) fn new(sources: &[(&str, Source)]) -> Self {
        Self::with_demand(sources, None)
    }

    /// The same, and what asks for HTTP demand is answered by `demand`.
    pub(crate) fn with_demand(sources: &[(&str, Source)], demand: Option<DemandHub>) -> Self {
        let script = |source| Script {
            source: Arc::new(Mutex::new(source)),
            reads: Arc::default(),
        };
        let scripts: HashMap<String, Script> = sources
            .iter()
            .map(|(name, source)| ((*name).to_owned(), script(*source)))
            .collect();
        let world = World::begin();
        let known = scripts.clone();
        let connect = move |cx: &Connect| -> Result<Arc<dyn Trigger>, ConfigError> {
            if cx.params.trigger_type != "scripted" {
                return dormouse_scalers::connect(cx);
            }
            let name = cx.params.metadata["name"].clone();
            match known.get(&name) {
                Some(script) => Ok(Arc::new(Scripted {
                    script: script.clone(),
                    question: cx.params.metadata.get("asks").map(|asks| Question {
                        fingerprint: Fingerprint::of(&[asks]),
                        activation: cx.params.metadata["activation"].parse().unwrap(),
                    }),
                    name,
                })),
                None => Err(ConfigError::UnknownType(name)),
            }
        };
        let started = Instant::now();
        let base = Timestamp::from_second(1_000_000).unwrap();
        let mut settings = Settings::new(
            Duration::from_secs(3),
            Arc::new(Clients::new(ClientsConfig::default())),
            None,
        );
        settings.connect = Arc::new(connect);
        settings.demand = demand.map(|demand| Arc::new(demand) as Arc<dyn DemandSource>);
        settings.now = Arc::new(move || base + started.elapsed());
        let lease = Arc::new(Lease(watch::Sender::new(true)));
        let engine = Engine::new(settings, Arc::new(Notes(world.clone())), lease.clone());
        Self {
            engine,
            world,
            scripts,
            lease,
        }
    }

    pub(crate) fn ports(&self) -> Ports {
        self.world.ports()
    }

    pub(crate) async fn apply(&self, spec: ObjectSpec) {
        self.apply_in(&self.world, spec).await;
    }

    /// An object whose target is of another world.
    pub(crate) async fn apply_in(&self, world: &Arc<World>, spec: ObjectSpec) {
        self.engine.apply(spec, world.ports()).await.unwrap();
    }

    pub(crate) async fn metric(&self, name: &str) -> Result<f64, MetricError> {
        self.engine
            .external_metric(&key(), name, false)
            .await
            .map(|served| served.value)
    }
}

/// An object named `name` with one trigger that asks a question which others may ask too.
pub(crate) fn asking(name: &str, source: &str, question: &str, activation: f64, interval: u64) -> ObjectSpec {
    let mut asking = spec(&[source], interval, 300);
    asking.key = ObjectKey::new("shop", name);
    asking.uid = name.to_owned();
    let metadata = &mut asking.triggers[0].params.metadata;
    metadata.insert("asks".to_owned(), question.to_owned());
    metadata.insert("activation".to_owned(), activation.to_string());
    asking
}

pub(crate) fn key() -> ObjectKey {
    ObjectKey::new("shop", "orders")
}

pub(crate) fn spec(triggers: &[&str], interval: u64, cooldown: u64) -> ObjectSpec {
    let trigger = |(index, name): (usize, &&str)| TriggerSpec {
        index,
        name: None,
        target_kind: TargetKind::AverageValue,
        use_cached_metrics: false,
        params: TriggerParams {
            trigger_type: "scripted".into(),
            metadata: BTreeMap::from([("name".to_owned(), (*name).to_owned())]),
            ..Default::default()
        },
    };
    ObjectSpec {
        key: key(),
        uid: "uid".into(),
        generation: 1,
        created: Timestamp::from_second(0).unwrap(),
        policy: ScalePolicy {
            replicas: ReplicaRange::try_new(None, 10, None).unwrap(),
            polling_interval: Duration::from_secs(interval),
            cooldown_period: Duration::from_secs(cooldown),
            initial_cooldown_period: Duration::ZERO,
            fallback: None,
            pause: Pause::No,
            force_activation: false,
            triggers: Vec::new(),
            resources: Vec::new(),
        },
        triggers: triggers.iter().enumerate().map(trigger).collect(),
        last_active: None,
        was_active: false,
        resumed: false,
    }
}
