//! The one trait a scaler implements, and the erased form the engine holds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::clients::Fingerprint;
use crate::connect::Connect;
use crate::error::{ConfigError, ReadError};
use crate::metadata::Metadata;
use crate::pushed::Pushed;

/// Reads one trigger type.
pub trait Scaler: Sized + Send + Sync + 'static {
    /// The `type` in a manifest.
    const TYPE: &'static str;
    /// KEDA's `scaler` label of a trigger without a name, such as `awsSqsQueueScaler`.
    const LABEL: &'static str;
    /// What the trigger's metadata and authentication may hold; its documentation is the manual page.
    type Metadata: Metadata;

    /// Validates and builds, without any I/O: bad metadata is a condition, not a retry loop.
    ///
    /// # Errors
    /// What is wrong with the metadata, naming the parameter.
    fn connect(metadata: Self::Metadata, cx: &Connect) -> Result<Self, ConfigError>;

    /// The metric this trigger gives to the HPA.
    fn metric(&self) -> MetricSpec;

    /// How long one read may take.
    fn deadline(&self) -> Duration;

    /// Asks the source once. The caller enforces [`deadline`](Self::deadline).
    fn read(&self) -> impl Future<Output = Result<Observed, ReadError>> + Send;

    /// The question that [`read`](Self::read) asks, if other triggers may use its answer: see [`Question`]. `None`, the
    /// default, is never shared; that is right where reading costs nothing, or where the answer depends on more than
    /// parameters (on the namespace, on state of this trigger).
    fn question(&self) -> Option<Question> {
        None
    }
}

/// What a trigger asks of whom. Triggers of all objects whose fingerprints are equal are answered by one read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Stands for *everything that the value depends on*: the server, the whole identity it is asked as (credentials, CA,
    /// TLS options, extra headers), and the query with all parameters that shape the value. Two triggers of which one could
    /// see another value, or be refused where the other is not, must differ. Start from the fingerprint of the shared
    /// client, where there is one, and add the query with [`Fingerprint::and`]. The target and the activation threshold
    /// must *not* be in it: they are each trigger's own. Trigger type and deadline are added by the framework.
    pub fingerprint: Fingerprint,
    /// The trigger is active strictly above this value: what [`Scaler::read`] gives to [`Observed::above`]. Only the value is
    /// shared, and each trigger is held against its own threshold.
    pub activation: f64,
}

/// The metric of a trigger, before it got its index and the user's `metricType`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    /// Base name, such as `aws-sqs-orders`; not yet normalised.
    pub base_name: String,
    /// What one replica is meant to carry.
    pub target: Target,
}

/// A target value, in the form it takes on the HPA: whole numbers stay whole, others get three decimals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// From an integer parameter.
    Whole(i64),
    /// From a floating-point parameter.
    Decimal(f64),
}

impl Target {
    /// The target as a number.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "targets are small; KEDA holds them as floats too"
    )]
    pub fn value(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Decimal(value) => value,
        }
    }
}

/// What a source answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// The metric's value.
    pub value: f64,
    /// Whether the trigger asks for at least one replica.
    pub active: bool,
}

impl Observed {
    /// The rule of nearly all scalers: active strictly above the activation threshold.
    #[must_use]
    pub fn above(value: f64, activation_threshold: f64) -> Self {
        Self {
            value,
            active: value > activation_threshold,
        }
    }
}

/// A connected scaler of any type.
pub trait Trigger: Send + Sync {
    /// See [`Scaler::LABEL`].
    fn label(&self) -> &'static str;
    /// See [`Scaler::metric`].
    fn metric(&self) -> MetricSpec;
    /// See [`Scaler::deadline`].
    fn deadline(&self) -> Duration;
    /// See [`Scaler::read`].
    fn read(self: Arc<Self>) -> BoxFuture<'static, Result<Observed, ReadError>>;
    /// See [`Scaler::question`]; with type and deadline in its fingerprint.
    fn question(&self) -> Option<Question> {
        None
    }
    /// A trigger may give the HPA a second metric: this reads it.
    fn beside(&self) -> Option<Arc<dyn Trigger>> {
        None
    }
    /// Whether it would be built the same now. What its metadata names may have changed.
    fn is_current(&self) -> bool {
        true
    }
    /// Where it is told of changes, and never has to ask.
    fn pushed(&self) -> Option<&dyn Pushed> {
        None
    }
}

impl<S: Scaler> Trigger for S {
    fn label(&self) -> &'static str {
        S::LABEL
    }

    fn metric(&self) -> MetricSpec {
        Scaler::metric(self)
    }

    fn deadline(&self) -> Duration {
        Scaler::deadline(self)
    }

    fn read(self: Arc<Self>) -> BoxFuture<'static, Result<Observed, ReadError>> {
        Box::pin(async move { Scaler::read(&*self).await })
    }

    fn question(&self) -> Option<Question> {
        let question = Scaler::question(self)?;
        // One of two askers would wait longer than it may, or be cut off too early.
        let deadline = Scaler::deadline(self).as_nanos().to_string();
        Some(Question {
            fingerprint: question.fingerprint.and(&[S::TYPE, &deadline]),
            ..question
        })
    }
}
