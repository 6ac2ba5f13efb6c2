//! Writes the generated code: `cargo run -p dormouse-wire --profile ci --example write_wire`.

use std::path::Path;

#[path = "../tests/generated/generator.rs"]
mod generator;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    generator::generate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated"))
}
