//! The scalers against scripted and real servers on loopback, seen as the engine sees them: connect, read, outcome.

mod metrics_api;
mod redis;
mod sqs;
mod support;
