//! Trigger types, each from its manifest to replicas, against the real server it reads.

#[path = "triggers/kubernetes_workload.rs"]
mod kubernetes_workload;
#[path = "triggers/prometheus.rs"]
mod prometheus;
#[path = "triggers/redis.rs"]
mod redis;
#[path = "triggers/resources.rs"]
mod resources;
