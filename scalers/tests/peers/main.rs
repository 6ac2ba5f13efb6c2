//! The scalers against scripted and real servers on loopback, seen as the engine sees them: connect, read, outcome.

mod metrics_api;
mod patience;
mod prometheus;
mod redis;
mod sqs;
mod support;
