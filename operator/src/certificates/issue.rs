//! Making keys and certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;

/// Certificates begin this much before they are made, for clocks that are behind; never more than a tenth of their
/// validity.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Certificate and private key, both as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// How much earlier than its making a certificate of this validity begins.
pub(crate) fn backdated_by(validity: Duration) -> Duration {
    (validity / 10).min(CLOCK_SKEW)
}

/// A new authority. Its name is its own, so that two authorities are never taken for one another.
pub(crate) fn authority(now: Timestamp, validity: Duration) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = name(&format!("dormouse-ca-{}", now.as_millisecond()));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    (parameters.not_before, parameters.not_after) = span(now, validity, None);
    Ok(Issued {
        certificate: parameters.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A new serving certificate for `names`, signed by `authority`, which it does not outlive.
pub(crate) fn leaf(
    authority: &CertificateDer<'_>,
    authority_until: Timestamp,
    signer: KeyPair,
    names: Vec<String>,
    now: Timestamp,
    validity: Duration,
) -> Result<Issued, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_der(authority, signer)?;
    let key = KeyPair::generate()?;
    let common_name = names.first().cloned().unwrap_or_default();
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = name(&common_name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    parameters.use_authority_key_identifier_extension = true;
    (parameters.not_before, parameters.not_after) = span(now, validity, Some(authority_until));
    Ok(Issued {
        certificate: parameters.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, "Dormouse");
    name
}

/// The validity in the certificate's own type, which knows whole seconds only.
fn span<T: From<SystemTime>>(now: Timestamp, validity: Duration, at_most: Option<Timestamp>) -> (T, T) {
    let now = seconds(now);
    let mut until = now + validity.as_secs().max(1);
    if let Some(limit) = at_most {
        until = until.min(seconds(limit));
    }
    let from = now - backdated_by(validity).as_secs().min(now);
    let at = |seconds| T::from(UNIX_EPOCH + Duration::from_secs(seconds));
    (at(from), at(until))
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}
