//! What people see. Every function here is pure: shapes and one clock reading in, text out.

pub mod audit;
pub mod check;
pub mod describe;
pub mod explain;
pub mod lists;
pub mod nodes;
pub mod plan;
pub mod refusal;
pub mod status;
pub mod trust;
pub mod watch;

#[cfg(test)]
pub(crate) mod samples;
