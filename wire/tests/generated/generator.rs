//! From `proto/` to Rust.

use std::error::Error;
use std::fs;
use std::path::Path;

/// The protocols, by file.
const PROTOCOLS: &[&str] = &["externalscaler.proto", "demand.proto"];
/// Tells our own checks and the readers of a diff not to look at it.
const HEADER: &str = "// @generated from wire/proto by wire/examples/write_wire.rs\n";

/// Writes the code of all protocols into `directory`, which exists.
pub(crate) fn generate(directory: &Path) -> Result<(), Box<dyn Error>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut config = tonic_prost_build::Config::new();
    config.protoc_executable(protoc_bin_vendored::protoc_bin_path()?);
    // Demand is compared and looked up in order; nothing of it is hashed.
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(directory)
        .compile_with_config(
            config,
            &PROTOCOLS
                .iter()
                .map(|name| sources.join(name))
                .collect::<Vec<_>>(),
            &[sources],
        )?;
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        let code = fs::read_to_string(&file)?;
        fs::write(&file, format!("{HEADER}{}", code.trim_start_matches(HEADER)))?;
    }
    Ok(())
}
