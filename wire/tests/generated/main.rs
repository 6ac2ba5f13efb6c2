//! The committed code is what the protocols give.

mod generator;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::{fs, io};

/// The files of a directory and what is in them.
fn files(directory: &Path) -> io::Result<BTreeMap<OsString, String>> {
    let entries = fs::read_dir(directory)?;
    entries
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), fs::read_to_string(entry.path())?))
        })
        .collect()
}

#[test]
fn the_committed_code_is_what_the_protocols_give() {
    let fresh = tempfile::tempdir().unwrap();
    generator::generate(fresh.path()).unwrap();
    let fresh = files(fresh.path()).unwrap();
    let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated")).unwrap();
    assert!(
        fresh == committed,
        "out of date: run `cargo run -p dormouse-wire --profile ci --example write_wire`"
    );
}
