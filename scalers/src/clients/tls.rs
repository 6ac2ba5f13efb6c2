//! TLS as the sources' clients speak it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};

use super::{Fingerprint, MinTls};
use crate::sensitive::Sensitive;

/// What a trigger says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsIdentity {
    /// PEM of CA certificates to trust besides all others.
    pub ca: Option<Sensitive>,
    /// PEM of the certificate chain shown to the server, and of its key.
    pub certificate: Option<(Sensitive, Sensitive)>,
    /// Whether the server's certificate is not checked at all.
    pub unsafe_ssl: bool,
}

impl TlsIdentity {
    /// Identifies clients that may share connections.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let part = |part: Option<&Sensitive>| part.map_or("", Sensitive::reveal).to_owned();
        Fingerprint::of(&[
            &part(self.ca.as_ref()),
            &part(self.certificate.as_ref().map(|c| &c.0)),
            &part(self.certificate.as_ref().map(|c| &c.1)),
            if self.unsafe_ssl { "unsafe" } else { "safe" },
        ])
    }
}

/// A [`TlsIdentity`] that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// `ca` holds no certificate.
    #[error("ca must hold at least one certificate in PEM form")]
    Ca,
    /// `cert` holds no certificate.
    #[error("cert must hold at least one certificate in PEM form")]
    Certificate,
    /// `key` holds no key.
    #[error("key must hold an unencrypted private key in PEM form")]
    Key,
    /// The two do not belong together.
    #[error("key is not the private key of cert")]
    Mismatch,
    /// No client could be made for another reason.
    #[error("no HTTP client can be made with these TLS settings")]
    Client,
}

/// The system's certificates and those of `ca_dirs`.
pub(super) fn roots(ca_dirs: &[PathBuf]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "unable to load a system certificate");
    }
    roots.add_parsable_certificates(native.certs);
    for file in ca_dirs
        .iter()
        .filter_map(|dir| dir.read_dir().ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
    {
        if !file.is_file() {
            continue;
        }
        match std::fs::read(&file).ok().and_then(|pem| certificates(&pem)) {
            Some(certificates) => {
                roots.add_parsable_certificates(certificates);
            }
            None => {
                tracing::warn!(file = %file.display(), "no CA certificate in PEM form could be read from this file")
            }
        }
    }
    roots
}

pub(super) fn client_config(
    identity: &TlsIdentity,
    roots: &Arc<RootCertStore>,
    min_tls: MinTls,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match min_tls {
        MinTls::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinTls::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|_| TlsError::Client)?;
    let builder = if identity.unsafe_ssl {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let mut roots = Arc::clone(roots);
        if let Some(ca) = &identity.ca {
            let certificates = certificates(ca.reveal().as_bytes()).ok_or(TlsError::Ca)?;
            Arc::make_mut(&mut roots).add_parsable_certificates(certificates);
        }
        if roots.is_empty() {
            // Plain HTTP must work on a machine without certificates; HTTPS then fails with an unknown issuer.
            builder.with_root_certificates(RootCertStore::empty())
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|_| TlsError::Client)?;
            builder.with_webpki_verifier(verifier)
        }
    };
    match &identity.certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate.reveal().as_bytes()).ok_or(TlsError::Certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()).map_err(|_| TlsError::Key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| TlsError::Mismatch)
        }
    }
}

/// The certificates of a PEM text, if it is one and holds any.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// `unsafeSsl`: any certificate will do, but the server must still hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
