//! Which crate may know which: the arrows of the design, and what must stay out of a crate's dependency tree.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{SHORT, output};
use crate::workspace::Workspace;

/// What each crate may name. What those may name is allowed too: that arrow points the same way.
const ARROWS: &[(&str, &[&str])] = &[
    ("dormouse-core", &[]),
    ("dormouse-wire", &[]),
    ("dormouse-api", &[]),
    ("dormouse-runtime", &[]),
    (
        "dormouse-scalers",
        &["dormouse-core", "dormouse-wire", "dormouse-test-servers"],
    ),
    ("dormouse-engine", &["dormouse-scalers"]),
    ("dormouse-translate", &["dormouse-api", "dormouse-scalers"]),
    ("dormouse-proxy", &["dormouse-core", "dormouse-runtime"]),
    ("dormouse-kubernetes", &["dormouse-api", "dormouse-runtime"]),
    (
        "dormouse-operator",
        &[
            "dormouse-engine",
            "dormouse-translate",
            "dormouse-kubernetes",
            "dormouse-wire",
        ],
    ),
    (
        "dormouse-interceptor",
        &[
            "dormouse-proxy",
            "dormouse-translate",
            "dormouse-kubernetes",
            "dormouse-wire",
        ],
    ),
    (
        "dormouse-local",
        &["dormouse-engine", "dormouse-proxy", "dormouse-translate"],
    ),
    (
        "dormouse-cli",
        &["dormouse-operator", "dormouse-interceptor", "dormouse-local"],
    ),
    // The tests see what a user sees; the triggers' metadata is the source of generated pages.
    ("dormouse-tests", &["dormouse-api", "dormouse-scalers"]),
    ("dormouse-test-servers", &[]),
    ("dormouse-example-consumer", &[]),
    ("dormouse-example-echo", &[]),
    ("xtask", &[]),
];

/// A Kubernetes client, and what keeps objects with one.
const CLIENT: &[&str] = &["kube-client", "kube-runtime"];
/// No clock, no network, no Kubernetes.
const PURE: &[&str] = &[
    "tokio",
    "kube",
    "kube-core",
    "kube-client",
    "kube-runtime",
    "k8s-openapi",
];

/// Crates that must not be in a crate's tree of normal dependencies.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("dormouse-core", PURE),
    ("dormouse-scalers", CLIENT),
    ("dormouse-engine", CLIENT),
    ("dormouse-translate", CLIENT),
    ("dormouse-proxy", CLIENT),
    ("dormouse-local", CLIENT),
    ("dormouse-api", CLIENT),
    ("dormouse-cli", &["dormouse-test-servers"]),
    (
        "xtask",
        &["tokio", "kube", "kube-core", "kube-client", "kube-runtime"],
    ),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<String>,
}

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo("metadata");
    let json = output(cargo.args(["--format-version=1", "--no-deps", "--locked"]), SHORT)?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo's metadata is not as expected")?;
    // First alone: a wrong arrow may make a circle, of which cargo makes no tree.
    report(&wrong_arrows(&metadata.packages))?;
    let mut wrong = Vec::new();
    for (package, forbidden) in FORBIDDEN {
        if !metadata.packages.iter().any(|known| known.name == *package) {
            continue;
        }
        let mut tree = workspace.cargo("tree");
        tree.args([
            "--package",
            package,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--locked",
        ]);
        let found = present(&output(&mut tree, SHORT)?, forbidden);
        if !found.is_empty() {
            wrong.push(format!(
                "{package} must not depend on {}, not even indirectly",
                found.join(", ")
            ));
        }
    }
    report(&wrong)
}

fn report(wrong: &[String]) -> Result<()> {
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n       "));
    }
    Ok(())
}

fn wrong_arrows(packages: &[Package]) -> Vec<String> {
    let table: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        if !table.contains_key(package.name.as_str()) {
            wrong.push(format!("{} is not in the table of arrows", package.name));
            continue;
        }
        let allowed = reachable(&table, &package.name);
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some())
        {
            if !allowed.contains(dependency.name.as_str()) {
                wrong.push(format!(
                    "{} -> {}: this arrow points the wrong way",
                    package.name, dependency.name
                ));
            }
        }
    }
    wrong
}

fn reachable<'a>(table: &BTreeMap<&'a str, &'a [&'a str]>, from: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = table.get(from).copied().unwrap_or_default().to_vec();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(table.get(next).copied().unwrap_or_default());
        }
    }
    seen
}

/// Which of the names occur in cargo's list of a tree, one `name vX.Y.Z` per line.
fn present<'a>(tree: &str, names: &[&'a str]) -> Vec<&'a str> {
    let crates: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names
        .iter()
        .copied()
        .filter(|name| crates.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency {
            name: (*name).to_owned(),
            path: Some("/w".into()),
        };
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn an_arrow_may_follow_others_but_not_turn_back() {
        let right = [package(
            "dormouse-operator",
            &["dormouse-core", "dormouse-runtime", "dormouse-engine"],
        )];
        assert_eq!(wrong_arrows(&right), Vec::<String>::new());
        let wrong = wrong_arrows(&[
            package("dormouse-scalers", &["dormouse-engine"]),
            package("stray", &[]),
        ]);
        assert_eq!(wrong.len(), 2);
        assert!(
            wrong[0].contains("dormouse-scalers -> dormouse-engine"),
            "{wrong:?}"
        );
        assert!(wrong[1].contains("stray is not in the table"), "{wrong:?}");
    }

    #[test]
    fn the_table_itself_has_no_circle_and_no_unknown_crate() {
        let table: BTreeMap<_, _> = ARROWS.iter().copied().collect();
        for (name, targets) in ARROWS {
            assert!(!reachable(&table, name).contains(name), "{name}");
            assert!(targets.iter().all(|target| table.contains_key(target)), "{name}");
        }
        assert!(FORBIDDEN.iter().all(|(name, _)| table.contains_key(name)));
    }

    #[test]
    fn a_crate_is_found_by_its_whole_name() {
        let tree = "dormouse-core v0.1.0 (/w/core)\ntokio-util v0.7.1\nkube v5.0.0 (*)\n";
        assert_eq!(present(tree, &["tokio", "kube"]), ["kube"]);
    }
}
