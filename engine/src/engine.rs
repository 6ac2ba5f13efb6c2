//! All objects of this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dormouse_core::DecisionRecord;
use dormouse_scalers::clients::Clients;
use dormouse_scalers::{ConfigError, Connect, CountPods, DemandSource, ServiceEndpoints, Trigger, connect};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::board::{MetricError, Served, Slot};
use crate::looks::Looks;
use crate::object::{LiveTrigger, LoopHandle, Memory, Object, within_deadline};
use crate::ports::{AutoscalerMetric, AutoscalerSpec, Journal, Leadership, PortError, Ports, Urgency};
use crate::quarantine;
use crate::source::Sources;
use crate::spec::{ConnectedTrigger, ObjectKey, ObjectSpec, TriggerSpec, duplicate_metric};
use crate::successor::Successor;
use crate::view::ObjectView;

/// Builds a scaler.
pub type Connector = Arc<dyn Fn(&Connect) -> Result<Arc<dyn Trigger>, ConfigError> + Send + Sync>;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all objects share.
#[derive(Clone)]
pub struct Settings {
    /// Deadline of a read whose trigger sets none of its own.
    pub default_deadline: Duration,
    /// Shared clients.
    pub clients: Arc<Clients>,
    /// Service addresses, where there is a cluster.
    pub endpoints: Option<Arc<dyn ServiceEndpoints>>,
    /// Counts pods, where there is a cluster.
    pub pods: Option<Arc<dyn CountPods>>,
    /// The demand for HTTP routes, where interceptors report it.
    pub demand: Option<Arc<dyn DemandSource>>,
    /// How scalers are built: by their registry.
    pub connect: Connector,
    /// The time of day.
    pub now: Clock,
}

impl Settings {
    /// The registry's scalers and the system's clock.
    #[must_use]
    pub fn new(
        default_deadline: Duration,
        clients: Arc<Clients>,
        endpoints: Option<Arc<dyn ServiceEndpoints>>,
    ) -> Self {
        Self {
            default_deadline,
            clients,
            endpoints,
            pods: None,
            demand: None,
            connect: Arc::new(connect),
            now: Arc::new(Timestamp::now),
        }
    }
}

/// Why an object cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A trigger cannot be built.
    #[error("{error}")]
    Trigger {
        /// Its position.
        index: usize,
        /// Its type.
        trigger_type: String,
        /// What is wrong.
        error: ConfigError,
    },
    /// Two triggers would give the HPA the same metric.
    #[error("metricName {metric} defined multiple times in ScaledObject {object}")]
    DuplicateMetric {
        /// The name both have.
        metric: String,
        /// The object.
        object: String,
    },
    /// The autoscaler could not be set up.
    #[error("{0}")]
    Autoscaler(PortError),
    /// `paused-replicas` could not be set.
    #[error("{0}")]
    PausedReplicas(PortError),
}

/// What was set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// External metric names, in the order of the manifest.
    pub metric_names: Vec<String>,
    /// Trigger types whose scaler was built just now.
    pub built: Vec<String>,
    /// Whether a loop was started just now.
    pub started: bool,
}

struct Entry {
    /// Applying and removing one object are serialised by this lock, which also owns its loop.
    looping: LoopHandle,
    object: RwLock<Option<Arc<Object>>>,
}

impl Entry {
    fn object(&self) -> Option<Arc<Object>> {
        self.object.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn rest(&self) {
        if let Some(object) = self.object() {
            object.rests.store(true, Ordering::Relaxed);
        }
    }

    fn replace(&self, object: Option<Arc<Object>>) {
        *self.object.write().unwrap_or_else(PoisonError::into_inner) = object;
    }
}

/// A cheap handle to all objects.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    entries: RwLock<HashMap<ObjectKey, Arc<Entry>>>,
    sources: Sources,
    looks: Arc<Looks>,
    settings: Settings,
    journal: Arc<dyn Journal>,
    leadership: Arc<dyn Leadership>,
}

impl Engine {
    /// An engine without objects.
    #[must_use]
    pub fn new(settings: Settings, journal: Arc<dyn Journal>, leadership: Arc<dyn Leadership>) -> Self {
        Self {
            shared: Arc::new(Shared {
                entries: RwLock::default(),
                sources: Sources::default(),
                looks: Arc::new(Looks::new()),
                settings,
                journal,
                leadership,
            }),
        }
    }

    fn entry(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.shared
            .entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn entry_or_new(&self, key: &ObjectKey) -> Arc<Entry> {
        let mut entries = self
            .shared
            .entries
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Entry {
                looping: Mutex::new(None),
                object: RwLock::new(None),
            })
        };
        entries.entry(key.clone()).or_insert_with(new).clone()
    }

    /// Brings an object to what `spec` says: connects its scalers (those whose parameters did not change stay as they are),
    /// sets up its autoscaler and starts its loop. On a process that does not lead, only the scalers are connected.
    /// Applying the same spec again changes nothing. An object that is fully paused is not applied but
    /// [paused](Self::pause).
    ///
    /// # Errors
    /// See [`ApplyError`]. An object that ran before goes on as it was: a typo must not stop a worker that works.
    pub async fn apply(&self, spec: ObjectSpec, ports: Ports) -> Result<Applied, ApplyError> {
        let entry = self.entry_or_new(&spec.key);
        let mut looping = entry.looping.lock().await;
        // Another uid is another object that only has the same name: nothing of the old one holds for it.
        let before = entry.object().filter(|before| before.spec.uid == spec.uid);
        let (triggers, built) = self.connect_triggers(&spec, before.as_deref())?;
        let metrics: Vec<AutoscalerMetric> = triggers
            .iter()
            .map(|live| AutoscalerMetric {
                name: live.connected.policy.metric_name.clone(),
                kind: live.connected.policy.target.kind,
                target: live.connected.metric.target,
            })
            .collect();
        let mut applied = Applied {
            metric_names: metrics.iter().map(|metric| metric.name.clone()).collect(),
            built,
            started: false,
        };
        let leads = self.shared.leadership.is_leader();
        let mut policy = spec.policy.clone();
        policy.triggers = triggers
            .iter()
            .map(|live| live.connected.policy.clone())
            .collect();
        if leads {
            let autoscaler = AutoscalerSpec {
                replicas: policy.replicas,
                pause: policy.pause,
                metrics,
                resources: policy.resources.clone(),
            };
            within_deadline(ports.autoscaler.ensure(&autoscaler))
                .await
                .map_err(ApplyError::Autoscaler)?;
        }
        let running = looping.as_ref().is_some_and(|handle| !handle.is_finished());
        let same = before.as_ref().is_some_and(|before| {
            before.spec.generation == spec.generation
                && before.policy == policy
                && applied.built.is_empty()
                && before.triggers.len() == triggers.len()
                && !before.rests.load(Ordering::Relaxed)
        });
        let should_run = leads;
        if same && (running || !should_run) {
            return Ok(applied);
        }
        let spread = spec.resumed && !running;
        if let Some(before) = before.as_ref().filter(|_| spread) {
            // Another process led in between: its status is the truth, not this memory.
            before.memory.forget_activity();
        }
        // Each connected trigger has its own; a second copy would be a good part of the object's memory.
        let spec = ObjectSpec {
            triggers: Vec::new(),
            ..spec
        };
        let object = Arc::new(Object {
            memory: before.map_or_else(|| Arc::new(Memory::new()), |before| before.memory.clone()),
            spec,
            policy,
            triggers,
            target: ports.target,
            looks: self.shared.looks.clone(),
            journal: self.shared.journal.clone(),
            leadership: self.shared.leadership.clone(),
            now: self.shared.settings.now.clone(),
            waits_its_turn: AtomicBool::new(!should_run || spread),
            rests: AtomicBool::new(false),
        });
        entry.replace(Some(object.clone()));
        if should_run {
            applied.started = !running;
            // The old loop ends before the new one begins: an object never has two.
            end(looping.take()).await;
            *looping = Some(AbortOnDropHandle::new(tokio::spawn(quarantine::run(object))));
        }
        Ok(applied)
    }

    /// Forgets an object and stops its loop. Says whether a loop ran.
    pub async fn remove(&self, key: &ObjectKey) -> bool {
        let Some(entry) = self.entry(key) else {
            return false;
        };
        let mut looping = entry.looping.lock().await;
        entry.replace(None);
        self.shared
            .entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        end(looping.take()).await
    }

    /// Stops all loops, and waits until none is in the middle of a write.
    pub async fn stop_all(&self) {
        let entries: Vec<_> = self
            .shared
            .entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        for entry in entries {
            let mut looping = entry.looping.lock().await;
            end(looping.take()).await;
        }
    }

    /// Stops an object's loop: it may no longer touch its target. Says whether one ran. What was read is still served, and
    /// nothing more is read, for a metrics request either.
    pub async fn stop(&self, key: &ObjectKey) -> bool {
        let Some(entry) = self.entry(key) else {
            return false;
        };
        let mut looping = entry.looping.lock().await;
        entry.rest();
        end(looping.take()).await
    }

    /// Pauses an object fully: no loop, no autoscaler, and the replicas that `replicas` names, whatever its bounds say. Says
    /// whether a loop was stopped. This needs nothing of the object but its target, so that it works on one whose triggers
    /// are wrong too.
    ///
    /// # Errors
    /// The autoscaler could not be removed, or the replicas not be set.
    pub async fn pause(
        &self,
        key: &ObjectKey,
        replicas: Option<u32>,
        ports: &Ports,
    ) -> Result<bool, ApplyError> {
        let entry = self.entry_or_new(key);
        let mut looping = entry.looping.lock().await;
        entry.rest();
        let stopped = end(looping.take()).await;
        if !self.shared.leadership.is_leader() {
            return Ok(stopped);
        }
        within_deadline(ports.autoscaler.remove())
            .await
            .map_err(ApplyError::Autoscaler)?;
        let Some(replicas) = replicas else {
            return Ok(stopped);
        };
        let seen = within_deadline(ports.target.observe(Urgency::Soon))
            .await
            .map_err(ApplyError::PausedReplicas)?;
        if seen.replicas != replicas {
            let set = ports.target.set_replicas(replicas, &seen, Urgency::Soon);
            within_deadline(set).await.map_err(ApplyError::PausedReplicas)?;
        }
        Ok(stopped)
    }

    /// The metric of an object, as the HPA asks for it: always from memory, but for `read_through` (see there).
    ///
    /// # Errors
    /// There is no such metric, its source fails, or what is known is too old. Never a 0 for an unknown.
    pub async fn external_metric(
        &self,
        key: &ObjectKey,
        metric: &str,
        read_through: bool,
    ) -> Result<Served, MetricError> {
        let object = self.entry(key).and_then(|entry| entry.object());
        object
            .ok_or_else(|| MetricError::UnknownObject(key.name.clone()))?
            .served(metric, read_through)
            .await
    }

    /// The last decisions of an object, oldest first.
    #[must_use]
    pub fn records(&self, key: &ObjectKey) -> Vec<DecisionRecord> {
        self.entry(key)
            .and_then(|entry| entry.object())
            .map_or_else(Vec::new, |object| object.memory.records())
    }

    /// An object as it stands: what was read, what was decided, what comes next. `None` where it was never applied.
    #[must_use]
    pub fn view(&self, key: &ObjectKey) -> Option<ObjectView> {
        Some(self.entry(key)?.object()?.view())
    }

    fn connect_triggers(
        &self,
        spec: &ObjectSpec,
        before: Option<&Object>,
    ) -> Result<(Vec<LiveTrigger>, Vec<String>), ApplyError> {
        let mut built = Vec::new();
        let mut live: Vec<LiveTrigger> = Vec::with_capacity(spec.triggers.len());
        for trigger in &spec.triggers {
            let kept = before.into_iter().flat_map(|before| &before.triggers);
            let kept: Vec<_> = kept.filter(|old| old.connected.spec == *trigger).collect();
            if !kept.is_empty() && kept.iter().all(|old| old.connected.scaler.is_current()) {
                live.extend(kept.into_iter().cloned());
                continue;
            }
            built.push(trigger.params.trigger_type.clone());
            let mut next = Some(self.connect_one(&spec.key, trigger)?);
            while let Some(scaler) = next {
                next = scaler.beside();
                live.push(self.bring_to_life(trigger, scaler, before));
            }
        }
        let connected: Vec<_> = live.iter().map(|live| live.connected.clone()).collect();
        if let Some(metric) = duplicate_metric(&connected) {
            return Err(ApplyError::DuplicateMetric {
                metric: metric.to_owned(),
                object: spec.key.name.clone(),
            });
        }
        Ok((live, built))
    }

    /// A trigger that was just connected. What was known of the same metric before is kept.
    fn bring_to_life(
        &self,
        trigger: &TriggerSpec,
        scaler: Arc<dyn Trigger>,
        before: Option<&Object>,
    ) -> LiveTrigger {
        let mut connected = ConnectedTrigger::new(trigger.clone(), scaler);
        let source = self.shared.sources.of(connected.question);
        let mut old = before.into_iter().flat_map(|before| &before.triggers);
        let old = old.find(|old| old.connected.policy == connected.policy);
        let same_metadata =
            |old: &&LiveTrigger| old.connected.spec.params.metadata == trigger.params.metadata;
        if let Some(old) = old.filter(same_metadata)
            && connected.scaler.pushed().is_none()
        {
            connected.scaler = Successor::of(old.connected.scaler.clone(), connected.scaler);
        }
        // Same metric, other credentials: what was read with the old ones still holds, failures included.
        let slot = old.map_or_else(|| Arc::new(Slot::new()), |old| old.slot.clone());
        LiveTrigger {
            connected,
            slot,
            source,
        }
    }

    fn connect_one(&self, key: &ObjectKey, trigger: &TriggerSpec) -> Result<Arc<dyn Trigger>, ApplyError> {
        let settings = &self.shared.settings;
        let cx = Connect {
            namespace: key.namespace.clone(),
            default_deadline: settings.default_deadline,
            clients: settings.clients.clone(),
            endpoints: settings.endpoints.clone(),
            pods: settings.pods.clone(),
            demand: settings.demand.clone(),
            params: trigger.params.clone(),
        };
        (settings.connect)(&cx).map_err(|error| ApplyError::Trigger {
            index: trigger.index,
            trigger_type: trigger.params.trigger_type.clone(),
            error,
        })
    }
}

/// Ends a loop and waits until it is gone. Says whether it was still running.
async fn end(looping: Option<AbortOnDropHandle<()>>) -> bool {
    let Some(looping) = looping else { return false };
    let ran = !looping.is_finished();
    looping.abort();
    // Whether it was cancelled or came to its own end makes no difference here.
    let _ = looping.await;
    ran
}
