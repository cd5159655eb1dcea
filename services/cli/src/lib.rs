//! The operator's commands: what is typed, what is asked of the control plane, and what is shown.

pub mod args;
