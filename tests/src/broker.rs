//! A broker with the users and permissions that are shipped in `deploy/nats`.

use std::{fs, path::Path};

use eventlog::testing::NatsServer;

use crate::source::root;

/// The users of the shipped configuration, but for the server's own.
pub const USERS: [&str; 7] = [
    "control-plane",
    "orchestrator",
    "signer",
    "gateway",
    "projector",
    "deploy",
    "administrator",
];

/// A server with the shipped permissions; `None` where there is no nats-server, which is said.
///
/// # Panics
/// The configuration cannot be read.
pub async fn shipped(directory: &Path) -> Option<NatsServer> {
    let mut settings = String::from("CAROUSEL_NATS_SYSTEM: \"password-of-system\"\n");
    for user in USERS {
        let name = user.to_uppercase().replace('-', "_");
        settings += &format!("CAROUSEL_NATS_{name}: \"{}\"\n", password_of(user));
    }
    let permissions = fs::read_to_string(root().join("deploy/nats/permissions.conf")).expect("it is shipped");
    NatsServer::start_with(directory, &format!("{settings}{permissions}")).await
}

/// The password that a user has on it.
#[must_use]
pub fn password_of(user: &str) -> String {
    format!("password-of-{user}")
}

/// The server's URL for a user.
#[must_use]
pub fn url_of(server: &NatsServer, user: &str) -> String {
    let login = format!("nats://{user}:{}@", password_of(user));
    server.url().replace("nats://", &login)
}
