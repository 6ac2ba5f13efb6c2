//! Versions, cipher suites and groups by the names that users know them by.

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};

use super::keyring::Source;
use super::{TlsArgs, TlsError};

/// Groups by the names that Go has for them, which the add-on takes, and the common ones.
pub(super) const GROUPS: [(&str, NamedGroup); 8] = [
    ("X25519", NamedGroup::X25519),
    ("P256", NamedGroup::secp256r1),
    ("CurveP256", NamedGroup::secp256r1),
    ("secp256r1", NamedGroup::secp256r1),
    ("P384", NamedGroup::secp384r1),
    ("CurveP384", NamedGroup::secp384r1),
    ("secp384r1", NamedGroup::secp384r1),
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
];

impl TlsArgs {
    /// Where certificates for clients come from.
    pub(super) fn sources(&self) -> Source {
        let stores = self.proxy_tls_cert_store_paths.iter();
        Source {
            certificate: self.proxy_tls_cert_path.clone(),
            key: self.proxy_tls_key_path.clone(),
            stores: stores
                .filter(|path| !path.as_os_str().is_empty())
                .cloned()
                .collect(),
        }
    }

    pub(super) fn skip_verify(&self) -> bool {
        self.tls_skip_verify || self.proxy_tls_skip_verify
    }

    /// What may be spoken.
    pub(super) fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        let either = |new: &str, former: &str| if new.is_empty() { former } else { new }.to_owned();
        let least = either(&self.tls_min_version, &self.proxy_tls_min_version);
        let most = either(&self.tls_max_version, &self.proxy_tls_max_version);
        let rank = |setting, value: String, default| match value.as_str() {
            "" => Ok(default),
            "1.2" => Ok(2),
            "1.3" => Ok(3),
            _ => Err(TlsError::Unknown {
                setting,
                value,
                known: "1.2, 1.3".to_owned(),
            }),
        };
        let range = rank("--tls-min-version", least, 2)?..=rank("--tls-max-version", most, 3)?;
        let versions = [(2, &TLS12), (3, &TLS13)];
        let allowed = versions.into_iter().filter(|(rank, _)| range.contains(rank));
        Ok(allowed.map(|(_, version)| version).collect())
    }

    /// The suites and groups that may be used.
    pub(super) fn provider(&self) -> Result<CryptoProvider, TlsError> {
        let mut provider = aws_lc_rs::default_provider();
        let suites = either(&self.tls_cipher_suites, &self.proxy_tls_cipher_suites);
        if !suites.is_empty() {
            let all = std::mem::take(&mut provider.cipher_suites);
            let known = || all.iter().map(name_of).collect::<Vec<_>>().join(", ");
            for wanted in suites {
                let found = all.iter().find(|suite| name_of(suite) == *wanted);
                let suite = found.ok_or_else(|| unknown("--tls-cipher-suites", wanted, known()))?;
                provider.cipher_suites.push(*suite);
            }
        }
        let groups = either(&self.tls_curve_preferences, &self.proxy_tls_curve_preferences);
        if !groups.is_empty() {
            let all = std::mem::take(&mut provider.kx_groups);
            let group_of = |wanted: &str| {
                let (_, named) = GROUPS.iter().find(|(name, _)| *name == wanted)?;
                all.iter().find(|group| group.name() == *named).copied()
            };
            for wanted in groups {
                let known = || GROUPS.map(|(name, _)| name).join(", ");
                let group =
                    group_of(wanted).ok_or_else(|| unknown("--tls-curve-preferences", wanted, known()))?;
                provider.kx_groups.push(group);
            }
        }
        Ok(provider)
    }
}

fn either<'a>(new: &'a [String], former: &'a [String]) -> Vec<&'a String> {
    let given = |list: &'a [String]| list.iter().filter(|item| !item.is_empty()).collect::<Vec<_>>();
    let new = given(new);
    if new.is_empty() { given(former) } else { new }
}

/// As the registry of such names has it.
fn name_of(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

fn unknown(setting: &'static str, value: &str, known: String) -> TlsError {
    TlsError::Unknown {
        setting,
        value: value.to_owned(),
        known,
    }
}
