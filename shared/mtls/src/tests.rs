//! Handshakes over real sockets: what the rules say about trust is what TLS does.

mod hints;
mod identity;
mod looks;
mod matrix;
mod resumption;
mod sessions;
