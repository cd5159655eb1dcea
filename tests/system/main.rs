//! The product as a user has it: real processes, real sockets, real TLS, the real command line.
//!
//! What only a whole system can show is shown here, and nothing that a test of one crate shows as well. Where the
//! output of a session is the point, it is kept in `tests/scenarios`.

mod attacks;
mod broker;
mod consumers;
mod demo;
mod faults;
mod foreign;
mod forged;
mod guide;
mod guided;
mod hardware;
mod hardware_kek;
mod joining;
mod kills;
mod messages;
mod moving;
mod proof;
mod pty;
mod refusals;
mod replay;
mod separate;
mod sleepers;
mod terminal;
mod types;
mod verifiers;
mod wire;
mod world;
