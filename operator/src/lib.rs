//! The operator: Dormouse on Kubernetes.

pub mod hpa;
