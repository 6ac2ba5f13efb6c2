//! Certificates that somebody else renews, as files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{info, warn};

use super::ServingCertificate;
use super::material::{CA_CERTIFICATES, CERTIFICATE, KEY, MaterialError, authorities, certified_key};

/// No certificate file is larger.
const MAX_SIZE: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("unable to read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: {source}", directory.display())]
    Content {
        directory: PathBuf,
        #[source]
        source: MaterialError,
    },
    #[error("unable to read {}: the reading task was abandoned", directory.display())]
    Abandoned { directory: PathBuf },
}

#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

/// Serves the files of `directory`, and those they are replaced by. Files that cannot be used change nothing.
pub(crate) async fn follow(directory: &Path, every: Duration, serving: &ServingCertificate) {
    let mut served = None;
    let mut last_failure = None;
    loop {
        match load(directory, served.as_ref(), serving).await {
            Ok(files) => {
                if let Some(files) = files {
                    info!("the certificate in {} is served", directory.display());
                    served = Some(files);
                }
                last_failure = None;
            }
            Err(error) => {
                let failure = error.to_string();
                if last_failure.as_ref() != Some(&failure) {
                    warn!("the certificate being served is kept: {failure}");
                    last_failure = Some(failure);
                }
            }
        }
        sleep(every).await;
    }
}

async fn load(
    directory: &Path,
    served: Option<&Files>,
    serving: &ServingCertificate,
) -> Result<Option<Files>, FileError> {
    let place = directory.to_owned();
    let files = tokio::task::spawn_blocking(move || Files::read(&place))
        .await
        .map_err(|_| FileError::Abandoned {
            directory: directory.to_owned(),
        })??;
    if served == Some(&files) {
        return Ok(None);
    }
    let content = |source| FileError::Content {
        directory: directory.to_owned(),
        source,
    };
    let key = certified_key(&files.certificate, &files.key).map_err(content)?;
    let trusted = authorities(&files.authorities, Timestamp::now()).map_err(content)?;
    serving.trust(
        trusted
            .into_iter()
            .map(|authority| authority.certificate)
            .collect(),
    );
    serving.serve(key.into());
    Ok(Some(files))
}

impl Files {
    fn read(directory: &Path) -> Result<Self, FileError> {
        let authorities = match read(directory, CA_CERTIFICATES) {
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        Ok(Self {
            certificate: read(directory, CERTIFICATE)?,
            key: read(directory, KEY)?,
            authorities,
        })
    }
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, FileError> {
    use std::io::Read;
    let path = directory.join(name);
    let mut content = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_SIZE).read_to_end(&mut content))
        .map_err(|source| FileError::Read { path, source })?;
    Ok(content)
}
