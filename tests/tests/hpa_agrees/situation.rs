//! A situation: an HPA, what it finds, and what happens to it. One definition makes both the objects of the API server
//! and the input of `dormouse_core::hpa`.

use std::time::Duration;

use dormouse_core::Quantity;
use dormouse_core::hpa::{
    Amount, Behavior, ExternalTarget, HpaMetric, HpaReason, HpaSpec, Policy, ResourceTarget, Rules,
    SelectPolicy,
};

/// One HPA and its surroundings.
pub(crate) struct Situation {
    /// Also the name of its namespace.
    pub(crate) name: &'static str,
    pub(crate) spec: HpaSpec,
    pub(crate) target: Target,
    pub(crate) series: Vec<Series>,
    pub(crate) pods: Vec<PodPlan>,
    pub(crate) script: Vec<Do>,
    /// The counts of replicas that are wanted one after the other, without which the situation was not what it says.
    pub(crate) replicas: Vec<u32>,
    /// Reasons that some condition must have had.
    pub(crate) reasons: Vec<HpaReason>,
}

/// The scale target at the beginning.
pub(crate) struct Target {
    pub(crate) exists: bool,
    pub(crate) wanted: u32,
    /// `status.replicas`, or `None` where it follows the wanted ones.
    pub(crate) running: Option<u32>,
    pub(crate) has_selector: bool,
}

/// A series of the external metric `queue`.
#[derive(Clone)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
}

/// A pod, as the test says it is; times count back from the moment it is made.
#[derive(Clone)]
pub(crate) struct PodPlan {
    pub(crate) phase: &'static str,
    pub(crate) deleting: bool,
    pub(crate) started: Option<Duration>,
    /// The status of the condition `Ready` and since when.
    pub(crate) ready: Option<(&'static str, Duration)>,
    /// Each container's requests and use.
    pub(crate) containers: Vec<ContainerPlan>,
    /// Whether metrics are known at all, and of what age.
    pub(crate) measured: Option<Duration>,
}

#[derive(Clone)]
pub(crate) struct ContainerPlan {
    pub(crate) name: &'static str,
    pub(crate) requests: Vec<(&'static str, &'static str)>,
    pub(crate) uses: Vec<(&'static str, &'static str)>,
}

/// What happens to a situation.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// A series gets a value, as new where there was none.
    Set(&'static str, &'static str),
    /// A series goes.
    Remove(&'static str),
    /// Somebody sets the target's wanted replicas.
    Want(u32),
    /// The target is made.
    Create,
    /// So many seconds pass.
    Seconds(u64),
    /// Until the target's wanted replicas are these.
    Reaches(u32),
    /// Until a condition has this reason.
    Says(HpaReason),
}

/// An HPA from 1 to 10 over one external metric, `queue`, of which 1 is for each replica; its target has 2 replicas.
pub(crate) fn situation(name: &'static str) -> Situation {
    Situation {
        name,
        spec: HpaSpec {
            min: 1,
            max: 10,
            metrics: vec![per_replica("queue", "1")],
            behavior: None,
        },
        target: Target {
            exists: true,
            wanted: 2,
            running: None,
            has_selector: true,
        },
        series: Vec::new(),
        pods: Vec::new(),
        script: Vec::new(),
        replicas: Vec::new(),
        reasons: Vec::new(),
    }
}

impl Situation {
    pub(crate) fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.spec.min, self.spec.max) = (min, max);
        self
    }

    pub(crate) fn metrics(mut self, metrics: impl IntoIterator<Item = HpaMetric>) -> Self {
        self.spec.metrics = metrics.into_iter().collect();
        self
    }

    /// Rules for scaling up and down; what they leave out is left to the API server's defaults.
    pub(crate) fn behavior(mut self, scale_up: Rules, scale_down: Rules) -> Self {
        self.spec.behavior = Some(Behavior { scale_up, scale_down });
        self
    }

    pub(crate) fn wanted(mut self, wanted: u32) -> Self {
        self.target.wanted = wanted;
        self
    }

    pub(crate) fn running(mut self, running: u32) -> Self {
        self.target.running = Some(running);
        self
    }

    pub(crate) fn without_target(mut self) -> Self {
        self.target.exists = false;
        self
    }

    pub(crate) fn without_selector(mut self) -> Self {
        self.target.has_selector = false;
        self
    }

    /// A series named as the metric is.
    pub(crate) fn queue(self, value: &'static str) -> Self {
        self.series("queue", value)
    }

    pub(crate) fn series(mut self, name: &'static str, value: &'static str) -> Self {
        self.series.push(Series { name, value });
        self
    }

    pub(crate) fn pods(mut self, count: usize, pod: &PodPlan) -> Self {
        self.pods.extend(std::iter::repeat_n(pod.clone(), count));
        self
    }

    pub(crate) fn script(mut self, script: impl IntoIterator<Item = Do>) -> Self {
        self.script = script.into_iter().collect();
        self
    }

    /// What must have been seen, or the situation was not what its name says.
    pub(crate) fn shows(
        mut self,
        replicas: impl IntoIterator<Item = u32>,
        reasons: impl IntoIterator<Item = HpaReason>,
    ) -> Self {
        self.replicas = replicas.into_iter().collect();
        self.reasons = reasons.into_iter().collect();
        self
    }
}

pub(crate) fn quantity(text: &str) -> Quantity {
    text.parse().expect("a quantity of this test")
}

fn external(name: &str, target: ExternalTarget) -> HpaMetric {
    HpaMetric::External {
        name: name.into(),
        match_labels: None,
        target,
    }
}

pub(crate) fn per_replica(name: &str, target: &str) -> HpaMetric {
    external(name, ExternalTarget::AverageValue(quantity(target)))
}

pub(crate) fn in_all(name: &str, target: &str) -> HpaMetric {
    external(name, ExternalTarget::Value(quantity(target)))
}

/// 1 for each replica, of one series of the metric `queue`.
pub(crate) fn of_series(name: &str) -> HpaMetric {
    HpaMetric::External {
        name: "queue".into(),
        match_labels: Some([("series".to_owned(), name.to_owned())].into()),
        target: ExternalTarget::AverageValue(quantity("1")),
    }
}

pub(crate) fn utilization(resource: &str, percent: u32) -> HpaMetric {
    HpaMetric::Resource {
        resource: resource.into(),
        container: None,
        target: ResourceTarget::Utilization(percent),
    }
}

pub(crate) fn average(resource: &str, target: &str) -> HpaMetric {
    HpaMetric::Resource {
        resource: resource.into(),
        container: None,
        target: ResourceTarget::AverageValue(quantity(target)),
    }
}

pub(crate) fn of_container(container: &str, target: ResourceTarget) -> HpaMetric {
    HpaMetric::Resource {
        resource: "cpu".into(),
        container: Some(container.into()),
        target,
    }
}

/// Rules with nothing but defaults.
pub(crate) fn rules() -> Rules {
    Rules::default()
}

pub(crate) fn policies(policies: impl IntoIterator<Item = Policy>) -> Rules {
    Rules {
        policies: Some(policies.into_iter().collect()),
        ..rules()
    }
}

pub(crate) fn window(seconds: u64) -> Rules {
    Rules {
        stabilization: Some(Duration::from_secs(seconds)),
        ..rules()
    }
}

pub(crate) fn tolerance(fraction: &str) -> Rules {
    Rules {
        tolerance: Some(quantity(fraction)),
        ..rules()
    }
}

pub(crate) fn disabled() -> Rules {
    select(SelectPolicy::Disabled, rules())
}

pub(crate) fn select(select: SelectPolicy, rules: Rules) -> Rules {
    Rules { select, ..rules }
}

/// Down at once, as far as the metrics say.
pub(crate) fn at_once(rules: Rules) -> Rules {
    Rules {
        stabilization: Some(Duration::ZERO),
        ..rules
    }
}

pub(crate) fn pods_per(pods: u32, seconds: u64) -> Policy {
    Policy {
        amount: Amount::Pods(pods),
        period: Duration::from_secs(seconds),
    }
}

pub(crate) fn percent_per(percent: u32, seconds: u64) -> Policy {
    Policy {
        amount: Amount::Percent(percent),
        period: Duration::from_secs(seconds),
    }
}

/// A pod that has been ready for an hour, with one container that requests and uses so much CPU.
pub(crate) fn pod(requests: &'static str, uses: &'static str) -> PodPlan {
    let hour = Duration::from_secs(3600);
    PodPlan {
        phase: "Running",
        deleting: false,
        started: Some(hour),
        ready: Some(("True", hour)),
        containers: vec![container("main", requests, uses)],
        measured: Some(Duration::from_secs(5)),
    }
}

pub(crate) fn container(name: &'static str, requests: &'static str, uses: &'static str) -> ContainerPlan {
    ContainerPlan {
        name,
        requests: vec![("cpu", requests)],
        uses: vec![("cpu", uses)],
    }
}

impl PodPlan {
    pub(crate) fn phase(mut self, phase: &'static str) -> Self {
        self.phase = phase;
        self
    }

    pub(crate) fn deleting(mut self) -> Self {
        self.deleting = true;
        self
    }

    pub(crate) fn unmeasured(mut self) -> Self {
        self.measured = None;
        self
    }

    pub(crate) fn started(mut self, ago: u64) -> Self {
        self.started = Some(Duration::from_secs(ago));
        self
    }

    pub(crate) fn ready(mut self, status: &'static str, ago: u64) -> Self {
        self.ready = Some((status, Duration::from_secs(ago)));
        self
    }

    pub(crate) fn containers(mut self, containers: impl IntoIterator<Item = ContainerPlan>) -> Self {
        self.containers = containers.into_iter().collect();
        self
    }
}
