//! The scalers against scripted servers on loopback, seen as the engine sees them: connect, read, outcome.

mod metrics_api;
mod prometheus;
mod sqs;
mod support;
