//! The certificates that clients are shown, read anew from their files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::sleep;
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;

use super::TlsError;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Where certificates come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The one for clients that no other is for, which may be missing where a store has some.
    pub(super) certificate: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
    /// Directories with pairs of files.
    pub(super) stores: Vec<PathBuf>,
}

/// The certificates that clients are shown.
#[derive(Debug)]
pub(crate) struct Keyring {
    source: Source,
    provider: Arc<CryptoProvider>,
    keys: ArcSwap<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    /// For clients that ask for no name, or for one that is not there.
    default: Option<Arc<CertifiedKey>>,
    /// By the names that the certificates have, in lower case; `*.` for all below one.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

/// What the files hold, by the certificates' paths; the default's comes first by its place in the tuple.
#[derive(PartialEq, Eq, Default)]
struct Files {
    default: Option<Pair>,
    others: BTreeMap<PathBuf, Pair>,
}

#[derive(PartialEq, Eq)]
struct Pair {
    path: PathBuf,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Keyring {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// There is no certificate, or one that cannot be used.
    pub(super) fn open(source: Source, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let keys = Keys::of(&source.read()?, &provider)?;
        if keys.default.is_none() && keys.by_name.is_empty() {
            let path = source.certificate;
            return Err(TlsError::Nothing { path });
        }
        Ok(Self {
            source,
            provider,
            keys: ArcSwap::from_pointee(keys),
        })
    }

    /// Takes new files into use, for as long as it runs. What cannot be used changes nothing.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut known = self.source.read().unwrap_or_default();
        let mut told = String::new();
        loop {
            sleep(LOOK).await;
            let this = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || this.source.read()).await;
            let Ok(read) = read else { continue };
            let taken = read.and_then(|files| {
                if files != known {
                    self.take(&files)?;
                    known = files;
                }
                Ok(())
            });
            match taken {
                Ok(()) => told.clear(),
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    if told != error {
                        warn!(
                            error,
                            "certificates cannot be renewed; the ones before stay in use"
                        );
                    }
                    told = error;
                }
            }
        }
    }

    fn take(&self, files: &Files) -> Result<(), TlsError> {
        let keys = Keys::of(files, &self.provider)?;
        if keys.default.is_none() && keys.by_name.is_empty() {
            let path = self.source.certificate.clone();
            return Err(TlsError::Nothing { path });
        }
        info!(names = keys.by_name.len(), "certificates renewed");
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let keys = self.keys.load();
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let above = || name.split_once('.').map(|(_, above)| format!("*.{above}"));
            let exact = keys.by_name.get(&name);
            exact.or_else(|| keys.by_name.get(&above()?))
        });
        named.or(keys.default.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Keyring {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

impl Source {
    fn read(&self) -> Result<Files, TlsError> {
        let mut files = Files::default();
        match read_pair(&self.certificate, &self.key) {
            Ok(pair) => files.default = Some(pair),
            Err(TlsError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !self.stores.is_empty() => {}
            Err(error) => return Err(error),
        }
        for store in &self.stores {
            let failed = |source| TlsError::Read {
                path: store.clone(),
                source,
            };
            for entry in fs::read_dir(store).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if let Some(key) = key_of(&path).filter(|key| key.exists()) {
                    files.others.insert(path.clone(), read_pair(&path, &key)?);
                }
            }
        }
        Ok(files)
    }
}

/// Where the key of a certificate would be, if this is one.
fn key_of(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_str()?;
    match path.extension()?.to_str()? {
        "crt" => Some(path.with_extension("key")),
        "pem" if !stem.ends_with("-key") => Some(path.with_file_name(format!("{stem}-key.pem"))),
        _ => None,
    }
}

fn read_pair(certificate: &Path, key: &Path) -> Result<Pair, TlsError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
    };
    Ok(Pair {
        path: certificate.to_owned(),
        certificate: read(certificate)?,
        key: read(key)?,
    })
}

impl Keys {
    fn of(files: &Files, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut keys = Self::default();
        // The default last: it wins where names are the same.
        for pair in files.others.values().chain(&files.default) {
            let key = Arc::new(pair.key(provider)?);
            for name in names(&key) {
                keys.by_name.insert(name, Arc::clone(&key));
            }
            if files.default.as_ref().is_none_or(|default| default == pair) {
                keys.default = Some(key);
            }
        }
        Ok(keys)
    }
}

impl Pair {
    fn key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let content = |what| TlsError::Content {
            path: self.path.clone(),
            what,
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| content("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| content("certificate with a key"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
            path: self.path.clone(),
            source,
        })
    }
}

/// The names in DNS that a certificate is for.
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(certificate) = key.cert.first() else {
        return Vec::new();
    };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}
