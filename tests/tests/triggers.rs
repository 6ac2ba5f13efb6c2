//! Trigger types, each from its manifest to replicas, against the real server it reads.
