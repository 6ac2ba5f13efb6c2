//! TLS on both sides: the listener for clients that want it, and endpoints that do.
//!
//! ```text
//! files ──read anew every 10 s──> Keyring ──by the name that the client asks for──> its certificate
//! CA directories + the system's ──at start──> EndpointVerifier ──> <service>.<namespace>.svc
//! ```

mod args;
mod endpoints;
mod keyring;
mod options;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use dormouse_proxy::TlsListener;
use rustls::{ClientConfig, ServerConfig};

pub use args::TlsArgs;
pub(crate) use keyring::Keyring;

use endpoints::EndpointVerifier;

/// Why TLS cannot be spoken as it is asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file or directory cannot be read.
    #[error("unable to read {path:?}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path:?} holds no {what}")]
    Content {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A certificate and a key do not belong together, or cannot be used.
    #[error("unable to use the certificate {path:?}")]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// There is none.
    #[error("there is no certificate: neither {path:?} nor the stores have one")]
    Nothing {
        /// Where the only one would be.
        path: PathBuf,
    },
    /// A setting names what is not there.
    #[error("{setting}: {value:?} is not known; known are {known}")]
    Unknown {
        /// Which setting.
        setting: &'static str,
        /// What it says.
        value: String,
        /// What it could say.
        known: String,
    },
    /// The settings contradict each other.
    #[error("unable to speak TLS with these settings")]
    Settings(#[source] rustls::Error),
}

impl TlsArgs {
    /// The listener that is asked for, and the certificates behind it, which are to be followed.
    ///
    /// # Errors
    /// There is no certificate, or the settings cannot be met.
    pub(crate) fn listener(&self, bind: IpAddr) -> Result<Option<(TlsListener, Arc<Keyring>)>, TlsError> {
        if !self.proxy_tls_enabled {
            return Ok(None);
        }
        let provider = Arc::new(self.provider()?);
        let keyring = Arc::new(Keyring::open(self.sources(), Arc::clone(&provider))?);
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions()?)
            .map_err(TlsError::Settings)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Keyring>::clone(&keyring));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TlsListener {
            listen: SocketAddr::new(bind, self.proxy_tls_port),
            server: Arc::new(server),
        };
        Ok(Some((listener, keyring)))
    }

    /// How endpoints that speak TLS are known. `None` where there is no authority to know them by.
    ///
    /// # Errors
    /// A directory of authorities cannot be read, or the settings cannot be met.
    pub(crate) fn endpoints(&self) -> Result<Option<Arc<ClientConfig>>, TlsError> {
        let provider = Arc::new(self.provider()?);
        let verifier = if self.skip_verify() {
            EndpointVerifier::lenient(Arc::clone(&provider))
        } else {
            let Some(verifier) = EndpointVerifier::of(&self.tls_ca_dirs, &provider)? else {
                return Ok(None);
            };
            verifier
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions()?)
            .map_err(TlsError::Settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }
}

#[cfg(test)]
mod tests;
