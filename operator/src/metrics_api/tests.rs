//! The whole server over real TLS, with a scripted API server behind it.

mod callers;
mod connections;
mod documents;
mod fixture;
mod reads;
mod rotation;
