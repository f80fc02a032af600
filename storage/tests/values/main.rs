//! The causal value through the crate's boundary: laws, bytes, the put rule, and its refinement of explicit causal histories.

#![allow(clippy::unwrap_used, reason = "test code")]

mod encoding;
mod generate;
mod laws;
mod merging;
mod put;
mod refinement;
mod sets;
