//! Lists of hosts, as flags and annotations write them.

use std::str::FromStr;

/// Hosts, each by its name or address, or as `*.example.org` for all names below one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostList(Vec<String>);

impl HostList {
    /// Whether `host` is on the list; case and a trailing dot make no difference.
    #[must_use]
    pub fn contains(&self, host: &str) -> bool {
        let host = normal(host);
        self.0.iter().any(|entry| match entry.strip_prefix('*') {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|label| !label.is_empty()),
            None => host == *entry,
        })
    }
}

impl FromStr for HostList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(normal).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let name = entry.strip_prefix("*.").unwrap_or(&entry);
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
                if !name.is_empty() && name.chars().all(fits) {
                    Ok(entry)
                } else {
                    Err(format!(
                        "{entry:?} is no host: names, addresses and *.example.org are accepted, separated by commas"
                    ))
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn normal(host: &str) -> String {
    let host = host.trim().trim_matches(['[', ']']);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_all_below_a_name() {
        let list: HostList = "queue.shop.svc, *.Example.org ,10.0.0.7,fd00::1,"
            .parse()
            .unwrap();
        for host in [
            "queue.shop.svc",
            "QUEUE.shop.svc.",
            "a.example.org",
            "a.b.example.org",
            "10.0.0.7",
            "[fd00::1]",
        ] {
            assert!(list.contains(host), "{host}");
        }
        for host in [
            "example.org",
            "badexample.org",
            "queue.shop.svc.evil.org",
            "10.0.0.70",
            "",
            ".example.org",
        ] {
            assert!(!list.contains(host), "{host}");
        }
        assert!(!HostList::default().contains("anything"));
        for bad in ["*", "*.", "a b", "http://a", "a/b", "a.*.b"] {
            assert!(
                bad.parse::<HostList>().unwrap_err().contains("are accepted"),
                "{bad}"
            );
        }
    }
}
