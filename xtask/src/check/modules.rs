//! Every Rust file is reached from a crate root. A file that no `mod` names is neither compiled nor tested, and
//! nothing else would tell.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{SHORT, output};
use crate::workspace::Workspace;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    src_path: PathBuf,
}

pub(super) fn check(workspace: &Workspace, files: &[PathBuf]) -> Result<()> {
    let mut cargo = workspace.cargo("metadata");
    let json = output(cargo.args(["--format-version=1", "--no-deps", "--locked"]), SHORT)?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo's metadata is not as expected")?;
    let roots = metadata
        .packages
        .into_iter()
        .flat_map(|package| package.targets)
        .map(|target| target.src_path);
    let reached = reached(roots);
    let rust = files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let lost: Vec<_> = rust
        .filter(|file| !reached.contains(&workspace.root().join(file)))
        .map(|file| file.display().to_string())
        .collect();
    if !lost.is_empty() {
        bail!(
            "no crate contains {}: name it with `mod`, or remove it",
            lost.join(", ")
        );
    }
    Ok(())
}

fn reached(roots: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    // Each file with the directory that its modules' files are looked for in.
    let mut open: Vec<_> = roots
        .map(|root| (root.clone(), directory(&root).to_owned()))
        .collect();
    while let Some((file, home)) = open.pop() {
        let Ok(source) = fs::read_to_string(&file) else {
            continue;
        };
        if !reached.insert(file.clone()) {
            continue;
        }
        for module in modules(&source) {
            match module {
                Module::At(path) => {
                    let target = normal(&directory(&file).join(path));
                    open.push((target.clone(), directory(&target).to_owned()));
                }
                Module::Named(name) => {
                    open.push((home.join(&name).with_extension("rs"), home.join(&name)));
                    open.push((home.join(&name).join("mod.rs"), home.join(&name)));
                }
            }
        }
    }
    reached
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

/// Resolves `..` by text, as the paths in attributes need.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            std::path::Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
        whole
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Module {
    Named(String),
    At(String),
}

/// The modules whose contents are in other files. Formatted code has each declaration on a line of its own.
fn modules(source: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut path: Option<String> = None;
    for line in source.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
            continue;
        }
        if let Some(rest) = line.strip_prefix("include!(\"") {
            found.extend(rest.split('"').next().map(|file| Module::At(file.to_owned())));
        }
        if let Some(name) = declared(line) {
            found.push(
                path.take()
                    .map_or_else(|| Module::Named(name.to_owned()), Module::At),
            );
        } else if !line.starts_with("#[") {
            path = None;
        }
    }
    found
}

fn declared(line: &str) -> Option<&str> {
    let visible = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
        Some(rest) => rest,
        None => line,
    };
    let name = visible.trim_start().strip_prefix("mod ")?.strip_suffix(';')?;
    Some(name.trim().trim_start_matches("r#"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_found_and_inline_modules_are_not() {
        let source = "mod a;\npub(crate) mod b;\npub mod r#type;\n#[cfg(test)]\nmod tests {\n}\n// mod d;\n\
                      #[path = \"crds/kind.rs\"]\nmod kind;\n";
        let named = |name: &str| Module::Named(name.to_owned());
        let kind = Module::At("crds/kind.rs".to_owned());
        assert_eq!(modules(source), [named("a"), named("b"), named("type"), kind]);
    }

    #[test]
    fn a_file_without_a_declaration_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            file
        };
        let root = write("lib.rs", "mod a;\n#[path = \"../x/y.rs\"]\nmod y;\n");
        let (a, b) = (write("a.rs", "pub mod b;\n"), write("a/b.rs", ""));
        let lost = write("a/c.rs", "");
        let reached = reached([root].into_iter());
        assert!(reached.contains(&a) && reached.contains(&b) && !reached.contains(&lost));
    }
}
