//! Trigger types, each from its manifest to replicas, against the real server it reads.

#[path = "triggers/redis.rs"]
mod redis;
