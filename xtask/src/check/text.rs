//! Rules about files as text.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Lines of a Rust file before its tests.
const LONGEST: usize = 600;

/// Paths that exist on the machine of whoever wrote the line, and nowhere else. (In pieces, or this file would
/// name them.)
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<()> {
    let mut faults = Vec::new();
    for file in files {
        let content =
            fs::read(root.join(file)).with_context(|| format!("unable to read {}", file.display()))?;
        // Only text can hold what is looked for.
        if let Ok(text) = String::from_utf8(content) {
            faults.extend(faults_of(file, &text));
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n       "));
    }
    Ok(())
}

fn faults_of(file: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = file.display();
    if file.extension().is_some_and(|extension| extension == "rs") && !text.starts_with("// @generated") {
        let length = before_tests(text);
        if length > LONGEST {
            faults.push(format!(
                "{name} has {length} lines before its tests: split it ({LONGEST} are allowed)"
            ));
        }
        for (line, _) in numbered(text).filter(|(_, line)| line.trim_start().starts_with("#[ignore")) {
            faults.push(format!("{name}:{line} ignores a test: mend or remove it"));
        }
    }
    for (line, content) in numbered(text) {
        if let Some(path) = MACHINE_PATHS.iter().find(|path| starts_in(content, path)) {
            faults.push(format!(
                "{name}:{line} names {path}, which exists only on somebody's machine"
            ));
        }
    }
    faults
}

/// Whether an absolute path begins with `path` somewhere in the line; further down in another path it may occur.
fn starts_in(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-}~*".contains(c))
    })
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn before_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests"));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_before_the_tests_counts() {
        let long = "x\n".repeat(LONGEST);
        let tests = "#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(
            faults_of(Path::new("a.rs"), &format!("{long}{tests}")),
            Vec::<String>::new()
        );
        assert_eq!(
            faults_of(Path::new("a.rs"), &format!("{long}x\n{tests}")).len(),
            1
        );
        assert_eq!(
            faults_of(Path::new("a.md"), &format!("{long}x\n")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_ignored_test_and_a_machine_path_are_named_with_their_line() {
        let text = format!(
            "#[test]\n    {}]\nfn a() {{}}\n// see {}x\n",
            concat!("#[ign", "ore"),
            MACHINE_PATHS[0]
        );
        let faults = faults_of(Path::new("a.rs"), &text);
        assert!(
            faults[0].starts_with("a.rs:2 ") && faults[1].starts_with("a.rs:4 "),
            "{faults:?}"
        );
    }
}
