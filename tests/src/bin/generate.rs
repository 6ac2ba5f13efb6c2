//! Writes the files that are made from code, or says which of them are out of date.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

/// Where the triggers' manual pages are.
const TRIGGERS: &str = "docs/triggers";

/// Writes docs/triggers, one page per trigger type. Run it at the root of the repository.
#[derive(Parser)]
struct Arguments {
    /// Change nothing; fail if a file is missing, different or left over
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        Path::new("Cargo.lock").exists(),
        "run this at the root of the repository: there is no Cargo.lock here"
    );
    let directory = Path::new(TRIGGERS);
    let pages = dormouse_scalers::registry::manual();
    let mut stale = Vec::new();
    let mut expected = BTreeSet::new();
    for (name, page) in &pages {
        expected.insert(name.clone());
        let file = directory.join(name);
        if fs::read_to_string(&file).is_ok_and(|text| text == *page) {
            continue;
        }
        stale.push(file.display().to_string());
        if !arguments.check {
            fs::create_dir_all(directory).with_context(|| format!("unable to make {TRIGGERS}"))?;
            fs::write(&file, page).with_context(|| format!("unable to write {}", file.display()))?;
        }
    }
    for entry in directory.read_dir().into_iter().flatten() {
        let entry = entry.with_context(|| format!("unable to list {TRIGGERS}"))?;
        if !expected.contains(&entry.file_name().to_string_lossy().into_owned()) {
            stale.push(format!("{} (no such trigger type)", entry.path().display()));
            if !arguments.check {
                fs::remove_file(entry.path())
                    .with_context(|| format!("unable to remove {}", entry.path().display()))?;
            }
        }
    }
    if arguments.check && !stale.is_empty() {
        bail!("out of date, run this without --check: {}", stale.join(", "));
    }
    let verb = if arguments.check { "checked" } else { "wrote" };
    writeln!(
        io::stdout(),
        "{verb} {} pages in {TRIGGERS}, {} changed",
        pages.len(),
        stale.len()
    )?;
    Ok(())
}
