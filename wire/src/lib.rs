//! What travels between processes: KEDA's protocol for external scalers, and the stream on which interceptors tell
//! operators of demand.
//!
//! The code is generated from `proto/` and committed: nothing but Rust is needed to build it. After a change there, run
//! `cargo run -p dormouse-wire --profile ci --example write_wire`; a test says when that was forgotten.

/// KEDA's protocol for external scalers.
#[rustfmt::skip]
#[path = "generated/externalscaler.rs"]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
pub mod externalscaler;

/// What interceptors and operators tell each other, first version.
#[rustfmt::skip]
#[path = "generated/dormouse.demand.v1.rs"]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
pub mod demand;
