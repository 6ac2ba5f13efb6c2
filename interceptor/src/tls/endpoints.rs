//! How endpoints that speak TLS are known: by a certificate for their Service, in any of the forms of its name.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsError;

/// Knows endpoints by their certificate.
#[derive(Debug)]
pub(super) struct EndpointVerifier {
    provider: Arc<CryptoProvider>,
    /// `None` takes any certificate.
    strict: Option<Arc<WebPkiServerVerifier>>,
}

impl EndpointVerifier {
    /// Takes any certificate.
    pub(super) fn lenient(provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            strict: None,
        }
    }

    /// Takes certificates of the system's authorities and of those in `directories`; `None` if there are none.
    ///
    /// # Errors
    /// A directory or a file in it cannot be read.
    pub(super) fn of(
        directories: &[PathBuf],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Self>, TlsError> {
        let mut roots = RootCertStore::empty();
        // What cannot be read of the system's own is as good as not there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for directory in directories.iter().filter(|path| !path.as_os_str().is_empty()) {
            roots.add_parsable_certificates(authorities(directory)?);
        }
        if roots.is_empty() {
            return Ok(None);
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let strict = verifier.map_err(|error| TlsError::Settings(Error::General(error.to_string())))?;
        Ok(Some(Self {
            provider: Arc::clone(provider),
            strict: Some(strict),
        }))
    }
}

/// Every certificate in the files of a directory.
fn authorities(directory: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |path: &PathBuf, source| TlsError::Read {
        path: path.clone(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let path = entry.map_err(|error| failed(directory, error))?.path();
        if path.is_file() {
            let text = fs::read(&path).map_err(|error| failed(&path, error))?;
            found.extend(CertificateDer::pem_slice_iter(&text).flatten());
        }
    }
    Ok(found)
}

/// `<service>.<namespace>.svc`, and what else the Service is called inside of a cluster.
fn forms(name: &ServerName<'_>) -> Vec<ServerName<'static>> {
    let text = name.to_str();
    let short = text.strip_suffix(".svc").unwrap_or(&text);
    let forms = [
        text.to_string(),
        short.to_owned(),
        format!("{short}.svc.cluster.local"),
    ];
    let forms = forms.into_iter();
    forms.filter_map(|form| ServerName::try_from(form).ok()).collect()
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(strict) = &self.strict else {
            return Ok(ServerCertVerified::assertion());
        };
        let verify =
            |name: &ServerName<'_>| strict.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let refused = match verify(name) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        let verified = forms(name).iter().find_map(|form| verify(form).ok());
        verified.ok_or(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
