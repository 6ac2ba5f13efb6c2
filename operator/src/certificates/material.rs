//! What the Secret holds, read with suspicion: it may be garbage, half of something, or somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

/// The bundle of authorities; the first one signs.
pub(crate) const CA_CERTIFICATES: &str = "ca.crt";
/// The key of the first authority.
pub(crate) const CA_KEY: &str = "ca.key";
/// The serving certificate.
pub(crate) const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub(crate) const KEY: &str = "tls.key";

const MAX_AUTHORITIES: usize = 16;

/// What is wrong with the content under one key. Never says what the content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {key} {problem}")]
pub(crate) struct MaterialError {
    pub(crate) key: &'static str,
    pub(crate) problem: &'static str,
}

/// From when until when something is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

/// One authority of the bundle.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) life: Life,
}

/// A serving certificate that clients who trust `authorities[issuer]` accept now.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) life: Life,
    pub(crate) issuer: usize,
    pub(crate) names: BTreeSet<String>,
    certificate_pem: String,
    key_pem: String,
}

/// The whole content of the Secret, found good.
#[derive(Clone)]
pub(crate) struct Material {
    pub(crate) authorities: Vec<Authority>,
    signer_pem: String,
    /// The serving certificate, or why there is none that could be served.
    pub(crate) leaf: Result<Leaf, MaterialError>,
}

impl Life {
    /// The moment at which the given share of this life is over.
    pub(crate) fn at(&self, share: f64) -> Timestamp {
        let whole = self.until.duration_since(self.from).as_secs_f64();
        let part = jiff::SignedDuration::try_from_secs_f64(whole * share).unwrap_or_default();
        self.from.checked_add(part).unwrap_or(self.until)
    }
}

impl Material {
    /// Reads the Secret's data as of `now`.
    pub(crate) fn parse(data: &BTreeMap<String, ByteString>, now: Timestamp) -> Result<Self, MaterialError> {
        Self::from_pem(
            text(data, CA_CERTIFICATES)?,
            text(data, CA_KEY)?,
            text(data, CERTIFICATE).and_then(|certificate| Ok((certificate, text(data, KEY)?))),
            now,
        )
    }

    /// Reads PEM texts as of `now`: the bundle, its first authority's key, the serving certificate and its key.
    pub(crate) fn from_pem(
        bundle: &str,
        signer: &str,
        leaf: Result<(&str, &str), MaterialError>,
        now: Timestamp,
    ) -> Result<Self, MaterialError> {
        let problem = |key, problem| MaterialError { key, problem };
        let authorities = authorities(bundle.as_bytes(), now)?;
        let first = authorities
            .first()
            .ok_or(problem(CA_CERTIFICATES, "holds no certificate that is valid now"))?;
        let key = KeyPair::from_pem(signer).map_err(|_| problem(CA_KEY, "is not a private key in PEM"))?;
        if !signs_for(&key, &first.certificate) {
            return Err(problem(
                CA_KEY,
                "does not belong to the first certificate of ca.crt",
            ));
        }
        let leaf = leaf.and_then(|(certificate, key)| Leaf::read(certificate, key, &authorities, now));
        Ok(Self {
            authorities,
            signer_pem: signer.to_owned(),
            leaf,
        })
    }

    /// The first authority's key.
    pub(crate) fn signer(&self) -> Result<KeyPair, rcgen::Error> {
        KeyPair::from_pem(&self.signer_pem)
    }

    /// The bundle as PEM, without the authorities after the first `keep`.
    pub(crate) fn bundle(&self, keep: usize) -> String {
        let parts = self
            .authorities
            .iter()
            .take(keep)
            .map(|authority| pem(&authority.certificate));
        parts.collect()
    }

    /// The authority at `index` as PEM.
    pub(crate) fn bundle_of(&self, index: usize) -> String {
        let authority = self.authorities.get(index);
        authority
            .map(|authority| pem(&authority.certificate))
            .unwrap_or_default()
    }

    /// The serving certificate and its key as PEM, if there is one.
    pub(crate) fn leaf_pem(&self) -> Option<(&str, &str)> {
        let leaf = self.leaf.as_ref().ok()?;
        Some((&leaf.certificate_pem, &leaf.key_pem))
    }

    /// The first authority's key as PEM.
    pub(crate) fn signer_pem(&self) -> &str {
        &self.signer_pem
    }

    /// The Secret's data for this content.
    pub(crate) fn data(&self) -> BTreeMap<String, ByteString> {
        let (certificate, key) = self.leaf_pem().unwrap_or_default();
        [
            (CA_CERTIFICATES, self.bundle(usize::MAX).as_str()),
            (CA_KEY, self.signer_pem()),
            (CERTIFICATE, certificate),
            (KEY, key),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())))
        .collect()
    }
}

impl Leaf {
    fn read(
        certificate_pem: &str,
        key_pem: &str,
        authorities: &[Authority],
        now: Timestamp,
    ) -> Result<Self, MaterialError> {
        let problem = |key, problem| MaterialError { key, problem };
        let key = certified_key(certificate_pem.as_bytes(), key_pem.as_bytes())?;
        let (end_entity, intermediates) = key
            .cert
            .split_first()
            .ok_or(problem(CERTIFICATE, "holds no certificate"))?;
        let (life, names) =
            describe(end_entity).ok_or(problem(CERTIFICATE, "is not an X.509 certificate"))?;
        let name = names
            .first()
            .and_then(|name| ServerName::try_from(name.clone()).ok())
            .ok_or(problem(CERTIFICATE, "bears no DNS name"))?;
        let vouches = |authority: &Authority| {
            verifier(&authority.certificate).is_some_and(|verifier| {
                let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                    u64::try_from(now.as_second()).unwrap_or(0),
                ));
                verifier
                    .verify_server_cert(end_entity, intermediates, &name, &[], now)
                    .is_ok()
            })
        };
        let issuer = authorities.iter().position(vouches).ok_or(problem(
            CERTIFICATE,
            "is not valid now under any authority of ca.crt",
        ))?;
        Ok(Self {
            key: Arc::new(key),
            life,
            issuer,
            names,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }
}

/// A certificate chain with the key that belongs to it.
pub(crate) fn certified_key(certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, MaterialError> {
    let problem = |key, problem| MaterialError { key, problem };
    let chain = CertificateDer::pem_slice_iter(certificates)
        .take(MAX_AUTHORITIES)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| problem(CERTIFICATE, "is not a PEM chain of certificates"))?;
    if chain.is_empty() {
        return Err(problem(CERTIFICATE, "holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| problem(KEY, "is not a private key in PEM"))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|_| problem(KEY, "does not belong to the certificate in tls.crt"))
}

/// The authorities of a PEM bundle that are valid now, and no two alike.
pub(crate) fn authorities(bundle: &[u8], now: Timestamp) -> Result<Vec<Authority>, MaterialError> {
    let wrong = MaterialError {
        key: CA_CERTIFICATES,
        problem: "is not a PEM bundle of certificates",
    };
    let mut found = Vec::<Authority>::new();
    for certificate in CertificateDer::pem_slice_iter(bundle).take(MAX_AUTHORITIES) {
        let certificate = certificate.map_err(|_| wrong)?;
        let (life, _) = describe(&certificate).ok_or(wrong)?;
        let is_new = found.iter().all(|known| known.certificate != certificate);
        if is_new && life.until > now && verifier(&certificate).is_some() {
            found.push(Authority { certificate, life });
        }
    }
    Ok(found)
}

fn describe(certificate: &CertificateDer<'_>) -> Option<(Life, BTreeSet<String>)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let life = Life {
        from: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        until: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    };
    let alternatives = parsed.subject_alternative_name().ok()?;
    let names = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
    Some((life, names.collect()))
}

fn signs_for(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    use rcgen::PublicKeyData;
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

fn verifier(authority: &CertificateDer<'static>) -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).ok()?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
        .build()
        .ok()
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn text<'a>(data: &'a BTreeMap<String, ByteString>, key: &'static str) -> Result<&'a str, MaterialError> {
    let bytes = data.get(key).ok_or(MaterialError {
        key,
        problem: "is missing",
    })?;
    std::str::from_utf8(&bytes.0).map_err(|_| MaterialError {
        key,
        problem: "is not text",
    })
}

pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines = body.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}
