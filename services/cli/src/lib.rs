//! The operator's commands: what is typed, what is asked of the control plane, and what is shown.
//!
//! - [`args`]: every command and flag;
//! - [`run`]: does one command and gives its exit code;
//! - [`identity`], [`connect`]: who the operator is, and the way to the control plane (`serve`, `init` and `recover`
//!   use both);
//! - `guided`: `auth rotate` for a person at a terminal, screen by screen;
//! - [`screen`]: shapes in, text out; [`text`], [`terminal`]: words, tables, streams and formats.
//!
//! The control plane decides, the tool shows: nothing here knows a rule of rotation.

pub mod args;
pub mod connect;
pub mod failure;
pub mod identity;
pub mod screen;
pub mod terminal;
pub mod text;

mod command;
mod guided;
mod run;

pub use run::{run, show_verification};
