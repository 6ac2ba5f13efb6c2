//! Real servers for tests, as child processes that end with their values.
//!
//! Used by the scalers' tests on loopback and by the tests on the cluster on the node's address. A server whose program
//! is missing is an error that names the package, never a reason to pass.

pub mod redis;
