//! What the faults of a day are done to, and the memory of what was done when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::fleet::Member;
use dormouse_tests::invariants::{Down, History, Outage, Violation};
use dormouse_tests::sources::Mood;
use dormouse_tests::{BlackHole, Fleet, Operators, Sources, Stage, logs, until};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
/// The one authentication of the day.
pub(crate) const AUTHENTICATION: &str = "day";
/// In every body that is no number.
pub(crate) const CANARY: &str = "CANARY-DAY-BODY-77ad01";
/// The beginning of every token.
pub(crate) const TOKEN: &str = "CANARY-DAY-TOKEN-";
/// How soon a changed Secret must be in use.
const IN_USE: Duration = Duration::from_secs(5);

/// What was done to one object.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) specs: History<Option<Member>>,
    pub(crate) moods: History<Mood>,
    pub(crate) paused: History<bool>,
}

/// A token that replaced another one.
pub(crate) struct Rotation {
    pub(crate) at: Instant,
    pub(crate) token: String,
    pub(crate) revoked: Option<Instant>,
}

pub(crate) struct World<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) sources: &'a Sources,
    pub(crate) operators: Operators,
    pub(crate) lives: BTreeMap<String, Life>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) violations: Vec<Violation>,
    began: Instant,
    hole: Option<BlackHole>,
}

impl<'a> World<'a> {
    /// Makes all of these, with sources that say 0.
    pub(crate) async fn create(stage: &'a Stage, sources: &'a Sources, members: Vec<Member>) -> Result<Self> {
        let mut this = Self {
            stage,
            sources,
            operators: Operators::of(&stage.cluster, &stage.installation),
            lives: BTreeMap::new(),
            outages: Vec::new(),
            rotations: Vec::new(),
            violations: Vec::new(),
            began: Instant::now(),
            hole: None,
        };
        this.give_token(0).await?;
        let reference = json!({"parameter": "token", "name": AUTHENTICATION, "key": "token"});
        stage
            .apply(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": AUTHENTICATION},
                "spec": {"secretTargetRef": [reference]},
            }))
            .await?;
        let began = Instant::now();
        Fleet::new(stage, sources).add(&members).await?;
        for member in members {
            let mut life = Life::default();
            life.moods.push(began, Mood::Value(0.0));
            life.paused.push(began, false);
            let name = member.name.clone();
            life.specs.push(began, Some(member));
            this.lives.insert(name, life);
        }
        Ok(this)
    }

    /// Says what happens, with the time of the day.
    pub(crate) fn note(&self, what: &str) {
        eprintln!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// When the day began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lives.keys().cloned().collect()
    }

    fn life(&mut self, name: &str) -> &mut Life {
        self.lives.entry(name.to_owned()).or_default()
    }

    /// The spec that is there now.
    pub(crate) fn member(&self, name: &str) -> Option<Member> {
        self.lives.get(name)?.specs.now()?.clone()
    }

    pub(crate) fn is_paused(&self, name: &str) -> bool {
        self.lives.get(name).and_then(|life| life.paused.now()) == Some(&true)
    }

    pub(crate) fn turn(&mut self, name: &str, mood: Mood) {
        let began = Instant::now();
        self.sources.is(name, mood.clone());
        self.life(name).moods.push(began, mood);
    }

    /// Writes a spec, or makes the object again.
    pub(crate) async fn write(&mut self, member: Member) -> Result<()> {
        if self.member(&member.name).is_none() {
            self.is_gone(&member.name).await?;
        }
        let began = Instant::now();
        self.stage.apply(member.object(self.sources)).await?;
        let name = member.name.clone();
        self.life(&name).specs.push(began, Some(member));
        Ok(())
    }

    pub(crate) async fn delete(&mut self, name: &str) -> Result<()> {
        let began = Instant::now();
        self.stage.unscale(name).await?;
        self.life(name).specs.push(began, None);
        // Its annotations go with it.
        self.life(name).paused.push(began, false);
        Ok(())
    }

    /// Waits until the operator let go of an object that was deleted.
    async fn is_gone(&self, name: &str) -> Result<()> {
        let objects = self.stage.scaled_objects();
        until(&format!("{name} is gone"), 60 * SECOND, async || {
            ensure!(objects.get_opt(name).await?.is_none(), "it is still there");
            Ok(())
        })
        .await
    }

    pub(crate) async fn pause(&mut self, name: &str, paused: bool) -> Result<()> {
        let began = Instant::now();
        let value = if paused { json!("true") } else { Value::Null };
        self.stage
            .annotate(name, json!({"autoscaling.keda.sh/paused": value}))
            .await?;
        self.life(name).paused.push(began, paused);
        Ok(())
    }

    /// Ends the leader: with a word of warning, or without.
    pub(crate) async fn end_leader(&mut self, down: Down) -> Result<()> {
        self.read_logs().await;
        let leader = until("somebody leads", 30 * SECOND, async || {
            self.operators.leader().await
        })
        .await?;
        let from = Instant::now();
        match down {
            Down::Stopped => self.operators.stop(&leader).await?,
            Down::Killed | Down::CutOff => self.operators.replace(&leader).await?,
        }
        self.outages.push(Outage {
            down,
            from,
            until: Instant::now(),
        });
        Ok(())
    }

    /// Cuts the operator off from the API server until [`mend`](Self::mend).
    pub(crate) async fn cut(&mut self) -> Result<()> {
        let from = Instant::now();
        self.hole = Some(BlackHole::around(&self.operators.addresses().await?).await?);
        let far = from + Duration::from_secs(86_400);
        self.outages.push(Outage {
            down: Down::CutOff,
            from,
            until: far,
        });
        Ok(())
    }

    pub(crate) fn mend(&mut self) {
        if self.hole.take().is_some()
            && let Some(outage) = self
                .outages
                .iter_mut()
                .rev()
                .find(|outage| outage.down == Down::CutOff)
        {
            outage.until = Instant::now();
        }
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.hole.is_some()
    }

    /// Whether something was down within the last `time`.
    pub(crate) fn was_down(&self, time: Duration) -> bool {
        self.outages
            .iter()
            .any(|outage| outage.over() + time > Instant::now())
    }

    /// A new token in the Secret; the old one is let in until [`revoke`](Self::revoke).
    pub(crate) async fn rotate(&mut self) -> Result<()> {
        self.give_token(self.rotations.len()).await
    }

    async fn give_token(&mut self, number: usize) -> Result<()> {
        let token = format!("{TOKEN}{number}");
        let old = self.rotations.last().map(|rotation| rotation.token.clone());
        self.accept(old.into_iter().chain([token.clone()]));
        self.stage
            .apply(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": AUTHENTICATION},
                "stringData": {"token": token},
            }))
            .await?;
        self.rotations.push(Rotation {
            at: Instant::now(),
            token,
            revoked: None,
        });
        Ok(())
    }

    /// From now on only the newest token is let in.
    pub(crate) fn revoke(&mut self) {
        let Some(last) = self.rotations.last_mut() else {
            return;
        };
        last.revoked = Some(Instant::now());
        let token = last.token.clone();
        self.accept([token]);
    }

    fn accept(&self, tokens: impl IntoIterator<Item = String>) {
        let headers: Vec<_> = tokens
            .into_iter()
            .map(|token| format!("Bearer {token}"))
            .collect();
        for index in 0..AUTHENTICATED {
            self.sources.accepts(&authenticated(index), headers.clone());
        }
    }

    /// Refusals, where nothing was down that could excuse the old token.
    pub(crate) fn refusals(&self) -> Vec<Violation> {
        let refused = (0..AUTHENTICATED).flat_map(|index| {
            let name = authenticated(index);
            let asked = self
                .sources
                .asked(&name)
                .into_iter()
                .filter(|asked| asked.status == 401);
            asked.map(move |asked| (name.clone(), asked))
        });
        let excused = |at: Instant| {
            let last = self
                .rotations
                .iter()
                .rev()
                .find(|rotation| rotation.at <= at)
                .map(|rotation| rotation.at);
            let since = last.unwrap_or(at);
            self.outages
                .iter()
                .any(|outage| outage.from <= at && outage.over() + IN_USE > since)
        };
        refused
            .filter(|(_, asked)| !excused(asked.at))
            .map(|(name, asked)| Violation {
                at: asked.at,
                what: format!("{name}: asked with a token that was replaced more than {IN_USE:?} before"),
            })
            .collect()
    }

    /// The logs so far; with a pod they go.
    pub(crate) async fn read_logs(&mut self) {
        let Ok(text) = logs::of_operator(&self.stage.cluster, &self.stage.installation).await else {
            return;
        };
        for (index, canary) in [CANARY, TOKEN].into_iter().enumerate() {
            if text.contains(canary) {
                self.violations.push(Violation::now(format_args!(
                    "canary {index} is in the operator's logs"
                )));
            }
        }
        let user = format!("system:serviceaccount:{}:", self.stage.installation.namespace());
        if let Some(line) = text
            .lines()
            .find(|line| line.contains("is forbidden") && line.contains(&user))
        {
            self.violations.push(Violation::now(format_args!(
                "the chart grants too little: {line}"
            )));
        }
        if let Some(line) = text.lines().find(|line| line.contains("panicked at")) {
            self.violations
                .push(Violation::now(format_args!("a panic: {line}")));
        }
    }
}

/// How many objects read with a token.
pub(crate) const AUTHENTICATED: usize = 4;

/// The name of one of them.
pub(crate) fn authenticated(index: usize) -> String {
    format!("token-{index}")
}
