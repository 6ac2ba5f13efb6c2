//! The loop around the [plan](super::plan): look, serve, publish, take one step, look again.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::api_service::{ApiServiceBundle, Published};
use super::issue::{self, Issued};
use super::material::{Material, MaterialError};
use super::plan::{Facts, Step, plan};
use super::secret::{CallError, SecretStore, Stored};
use super::{RotationSettings, ServingCertificate};

/// While there is nothing to serve with, the Secret is looked at this often.
const IMPATIENT: Duration = Duration::from_secs(1);
/// Whatever the plan says, there is this much between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// A complaint that has not changed is repeated after this long.
const REPEAT_COMPLAINT: Duration = Duration::from_hours(1);

pub(crate) struct Rotation<L> {
    secret: SecretStore,
    api_service: ApiServiceBundle,
    settings: RotationSettings,
    names: Vec<String>,
    serving: ServingCertificate,
    leader: L,
    /// The last content found good. It outlives the Secret: what it serves goes on until a successor may.
    current: Option<Material>,
    /// Since when each authority has been seen in the caBundle.
    published: HashMap<CertificateDer<'static>, Instant>,
    /// What was last complained about, and when; a good round clears it.
    complaint: Option<(String, Instant)>,
    complained: bool,
}

#[derive(Debug, thiserror::Error)]
enum RotationError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("unable to make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("unable to use a certificate just made: {0}")]
    Made(#[from] MaterialError),
    #[error("this replica no longer leads")]
    Deposed,
}

impl<L: Fn() -> bool + Send + Sync> Rotation<L> {
    pub(crate) fn new(
        client: Client,
        settings: RotationSettings,
        serving: ServingCertificate,
        leader: L,
    ) -> Self {
        Self {
            secret: SecretStore::new(client.clone(), &settings.namespace, &settings.secret),
            api_service: ApiServiceBundle::new(client, &settings),
            names: settings.dns_names(),
            settings,
            serving,
            leader,
            current: None,
            published: HashMap::new(),
            complaint: None,
            complained: false,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.complained = false;
            let pause = match self.look().await {
                Ok(pause) => {
                    if !self.complained {
                        self.complaint = None;
                    }
                    pause
                }
                Err(RotationError::Call(error)) if error.is_conflict() => Duration::from_millis(50),
                Err(RotationError::Deposed) => self.settings.check_every,
                Err(error) => {
                    self.complain(&error.to_string());
                    self.settings.check_every
                }
            };
            let longest = if self.serving.is_ready() {
                self.settings.check_every
            } else {
                self.settings.check_every.min(IMPATIENT)
            };
            sleep(pause.min(longest).max(SHORTEST_PAUSE)).await;
        }
    }

    /// One round. Says how long nothing is due.
    async fn look(&mut self) -> Result<Duration, RotationError> {
        let now = Timestamp::now();
        let stored = self.secret.read().await?;
        let found = stored.as_ref().map(|stored| Material::parse(&stored.data, now));
        let unusable = match found {
            Some(Ok(material)) => {
                self.adopt(material);
                None
            }
            Some(Err(problem)) => Some(problem.to_string()),
            None => Some(String::new()),
        };
        if !(self.leader)() {
            // What was seen as a leader may not be so any more when this replica leads again.
            self.published.clear();
            return Ok(self.settings.check_every);
        }
        if let Some(why) = unusable {
            let pause = self.begin(stored.as_ref(), now).await?;
            let RotationSettings {
                namespace, secret, ..
            } = &self.settings;
            match stored {
                Some(_) => {
                    warn!("Secret {namespace}/{secret} could not be used and has been replaced: {why}")
                }
                None => info!("Secret {namespace}/{secret} has been made"),
            }
            return Ok(pause);
        }
        let Some(material) = self.current.clone() else {
            return Ok(self.settings.check_every);
        };
        let published_for = self.publish(&material).await;
        let Some(facts) = Facts::of(&material, &self.names) else {
            return Ok(self.settings.check_every);
        };
        let stored = stored.as_ref();
        match plan(&facts, now, published_for, &self.settings) {
            Step::Wait(until) => Ok(Duration::try_from(until.duration_since(now)).unwrap_or_default()),
            Step::StageAuthority => {
                let authority = issue::authority(now, self.settings.authority_validity)?;
                let bundle = authority.certificate.clone() + &material.bundle(usize::MAX);
                let leaf = material.leaf_pem();
                let pause = self.write(&bundle, &authority.key, leaf, stored, now).await?;
                info!("the certificate authority is renewed; the old one stays trusted for a while");
                Ok(pause)
            }
            Step::IssueLeaf => {
                let leaf = self.issue_leaf(&material, now)?;
                let leaf = Some((&*leaf.certificate, &*leaf.key));
                let bundle = material.bundle(usize::MAX);
                let pause = self
                    .write(&bundle, material.signer_pem(), leaf, stored, now)
                    .await?;
                match &material.leaf {
                    Ok(_) => info!("the serving certificate is renewed"),
                    Err(problem) => warn!("the serving certificate is replaced: {problem}"),
                }
                Ok(pause)
            }
            Step::RetireAuthorities => {
                let leaf = material.leaf_pem();
                let pause = self
                    .write(&material.bundle(1), material.signer_pem(), leaf, stored, now)
                    .await?;
                info!("the old certificate authority is no longer trusted");
                Ok(pause)
            }
        }
    }

    /// Starts over with a new authority. What is being served goes on under the old one, as at every rotation.
    async fn begin(&mut self, stored: Option<&Stored>, now: Timestamp) -> Result<Duration, RotationError> {
        let authority = issue::authority(now, self.settings.authority_validity)?;
        let carried = self.current.as_ref().and_then(|current| {
            let leaf = current.leaf.as_ref().ok().filter(|leaf| leaf.life.until > now)?;
            Some((current.bundle_of(leaf.issuer), current.leaf_pem()?))
        });
        if let Some((bundle, (certificate, key))) = carried {
            let (bundle, certificate, key) = (
                authority.certificate + &bundle,
                certificate.to_owned(),
                key.to_owned(),
            );
            let leaf = Some((&*certificate, &*key));
            return self.write(&bundle, &authority.key, leaf, stored, now).await;
        }
        let missing = Err(MaterialError {
            key: super::material::CERTIFICATE,
            problem: "is missing",
        });
        let bare = Material::from_pem(&authority.certificate, &authority.key, missing, now)?;
        let leaf = self.issue_leaf(&bare, now)?;
        let leaf = Some((&*leaf.certificate, &*leaf.key));
        self.write(&authority.certificate, &authority.key, leaf, stored, now)
            .await
    }

    fn issue_leaf(&self, material: &Material, now: Timestamp) -> Result<Issued, RotationError> {
        let signer = material.signer()?;
        let authority = material.authorities.first().ok_or(MaterialError {
            key: super::material::CA_CERTIFICATES,
            problem: "is empty",
        })?;
        Ok(issue::leaf(
            &authority.certificate,
            authority.life.until,
            signer,
            self.names.clone(),
            now,
            self.settings.validity,
        )?)
    }

    /// Stores and, once stored, adopts; then the next round follows at once.
    async fn write(
        &mut self,
        bundle: &str,
        signer: &str,
        leaf: Option<(&str, &str)>,
        over: Option<&Stored>,
        now: Timestamp,
    ) -> Result<Duration, RotationError> {
        let leaf = leaf.ok_or(MaterialError {
            key: super::material::CERTIFICATE,
            problem: "is missing",
        });
        let material = Material::from_pem(bundle, signer, leaf, now)?;
        if !(self.leader)() {
            return Err(RotationError::Deposed);
        }
        self.secret.write(&material, over).await?;
        self.adopt(material);
        Ok(Duration::ZERO)
    }

    fn adopt(&mut self, material: Material) {
        let authorities = material.authorities.iter();
        self.serving.trust(
            authorities
                .map(|authority| authority.certificate.clone())
                .collect(),
        );
        let served = self
            .current
            .as_ref()
            .and_then(|current| current.leaf.as_ref().ok());
        match &material.leaf {
            Ok(leaf) if served.is_some_and(|served| served.key.cert == leaf.key.cert) => {}
            Ok(leaf) => self.serving.serve(leaf.key.clone()),
            Err(problem) => {
                let problem = format!("the certificate being served is kept: {problem}");
                self.complain(&problem);
            }
        }
        self.current = Some(material);
    }

    /// Brings the caBundle up to date. Says for how long the signing authority has been in it; none: it is not.
    async fn publish(&mut self, material: &Material) -> Option<Duration> {
        let now = Instant::now();
        let signer = &material.authorities.first()?.certificate;
        match self.api_service.publish(material).await {
            Ok(Published::Bundle(bundle)) => {
                self.published.retain(|known, _| bundle.contains(known));
                for authority in bundle {
                    self.published.entry(authority).or_insert(now);
                }
                let since = self.published.get(signer)?;
                Some(now - *since)
            }
            Ok(Published::NotUsed(why)) => {
                self.complain(&format!(
                    "APIService v1beta1.external.metrics.k8s.io {why}; its caBundle is left alone"
                ));
                // Replicas that call one another read the Secret, and need their time as well.
                let since = self.published.entry(signer.clone()).or_insert(now);
                Some(now - *since)
            }
            Err(error) if error.is_conflict() => None,
            Err(error) => {
                self.complain(&error.to_string());
                None
            }
        }
    }

    fn complain(&mut self, about: &str) {
        self.complained = true;
        let repeated = self
            .complaint
            .as_ref()
            .is_some_and(|(known, at)| known == about && at.elapsed() < REPEAT_COMPLAINT);
        if !repeated {
            warn!("certificates: {about}");
            self.complaint = Some((about.to_owned(), Instant::now()));
        }
    }
}
