//! What people do in a rotation where no agent reaches: for each authority type, in which phase, and with which command.

use super::AuthorityType;
use crate::phase::Phase;

/// Something for a person to do in a rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByHand {
    /// Done once the rotation has reached this phase, and before the step after it; `standby` is the end that goes forward.
    pub phase: Phase,
    /// Who, and what; short enough for a line of a terminal.
    pub text: &'static str,
    /// The command that gives what is needed; empty where there is none. It ends in `...` where its `--help` says what else
    /// it takes.
    pub command: &'static str,
}

const fn step(phase: Phase, text: &'static str, command: &'static str) -> ByHand {
    ByHand { phase, text, command }
}

const fn init(text: &'static str, command: &'static str) -> ByHand {
    step(Phase::Init, text, command)
}

const fn update_clients(text: &'static str, command: &'static str) -> ByHand {
    step(Phase::UpdateClients, text, command)
}

const fn update_servers(text: &'static str, command: &'static str) -> ByHand {
    step(Phase::UpdateServers, text, command)
}

const fn standby(text: &'static str, command: &'static str) -> ByHand {
    step(Phase::Standby, text, command)
}

pub(super) const HOST: &[ByHand] = &[
    init(
        "ssh clients without an agent: add the new CA to known_hosts",
        "carousel auth export --type=host --as=ssh",
    ),
    init(
        "TLS clients without an agent: trust both CAs",
        "carousel auth export --type=host",
    ),
    update_servers(
        "OpenSSH hosts without an agent: get new host certificates",
        "carousel auth sign --type=host ...",
    ),
    standby(
        "clients without an agent: take the old CA out",
        "carousel auth export --type=host --as=ssh",
    ),
];

pub(super) const USER: &[ByHand] = &[
    init(
        "sshd without an agent: add the new CA to TrustedUserCAKeys",
        "carousel auth export --type=user --as=ssh",
    ),
    init(
        "TLS servers without an agent: trust both CAs",
        "carousel auth export --type=user",
    ),
    update_clients(
        "people and programs: get certificates of the new CA",
        "carousel login",
    ),
    standby(
        "sshd and TLS servers without an agent: take the old CA out",
        "carousel auth export --type=user --as=ssh",
    ),
];

pub(super) const DB: &[ByHand] = &[
    init(
        "database clients without an agent: trust both CAs",
        "carousel auth export --type=db",
    ),
    update_clients(
        "databases: get certificates of the new CA",
        "carousel auth sign --type=db ...",
    ),
    standby(
        "database clients without an agent: take the old CA out",
        "carousel auth export --type=db",
    ),
];

pub(super) const DB_CLIENT: &[ByHand] = &[
    init(
        "databases: trust both CAs, before any client has the new one",
        "carousel auth export --type=db_client",
    ),
    update_clients(
        "clients without an agent: get certificates of the new CA",
        "carousel auth sign --type=db_client ...",
    ),
    standby(
        "databases: take the old CA out",
        "carousel auth export --type=db_client",
    ),
];

pub(super) const OPENSSH: &[ByHand] = &[
    init(
        "sshd: add the new CA to TrustedUserCAKeys",
        "carousel auth export --type=openssh --as=ssh",
    ),
    update_clients(
        "whoever logs in: get certificates of the new CA",
        "carousel auth sign --type=openssh ...",
    ),
    standby(
        "sshd: take the old CA out of TrustedUserCAKeys",
        "carousel auth export --type=openssh --as=ssh",
    ),
];

pub(super) const JWT: &[ByHand] = &[
    init(
        "readers with a copy of the key set: give them the new set",
        "carousel auth export --type=jwt",
    ),
    standby(
        "readers with a copy of the key set: take the old key out",
        "carousel auth export --type=jwt",
    ),
];

pub(super) const SAML_IDP: &[ByHand] = &[
    init(
        "service providers: add the new CA to the metadata",
        "carousel auth export --type=saml_idp",
    ),
    update_clients(
        "identity provider: sign with a certificate of the new CA",
        "carousel auth sign --type=saml_idp ...",
    ),
    standby(
        "service providers: take the old CA out of the metadata",
        "carousel auth export --type=saml_idp",
    ),
];

pub(super) const SPIFFE: &[ByHand] = &[
    init(
        "federated domains with a copy of the bundle: fetch it again",
        "carousel auth export --type=spiffe",
    ),
    update_clients(
        "workloads without an agent: get SVIDs of the new CA",
        "carousel auth sign --type=spiffe ...",
    ),
    standby(
        "federated domains with a copy of the bundle: fetch it again",
        "carousel auth export --type=spiffe",
    ),
];

pub(super) const OKTA: &[ByHand] = &[
    init(
        "Okta: register the new key beside the old one",
        "carousel auth export --type=okta",
    ),
    standby("Okta: remove the old key", "carousel auth export --type=okta"),
];

pub(super) const AWSRA: &[ByHand] = &[
    init(
        "AWS: add a trust anchor of the new CA beside the old one",
        "carousel auth export --type=awsra",
    ),
    update_clients(
        "workloads: get certificates of the new CA",
        "carousel auth sign --type=awsra ...",
    ),
    standby(
        "AWS: delete the trust anchor of the old CA",
        "carousel auth export --type=awsra --as=pin",
    ),
];

pub(super) const WINDOWS: &[ByHand] = &[
    init(
        "Active Directory: add the new CA to group policy and NTAuth",
        "carousel auth export --type=windows",
    ),
    update_clients(
        "users of desktops: get certificates of the new CA",
        "carousel auth sign --type=windows ...",
    ),
    standby(
        "Active Directory: take the old CA out of both",
        "carousel auth export --type=windows --as=pin",
    ),
];

/// What was handed out in `init` is taken back once a rotation has been rolled back.
const COPIES_BACK: ByHand = step(
    Phase::Standby,
    "wherever the new CA was added in init: take it out",
    "",
);

/// What the new authority gave to parties without an agent ends with it.
const HOLDERS_BACK: ByHand = step(
    Phase::Rollback,
    "whoever got a certificate of the new CA by hand: get another",
    "",
);

impl AuthorityType {
    /// What is left to people while a rotation of this type goes on, in order.
    pub fn by_hand(self) -> &'static [ByHand] {
        self.row().by_hand
    }

    /// The same while it is rolled back, where the end is that everything is as it was.
    pub fn by_hand_of_rollback(self) -> impl Iterator<Item = ByHand> {
        let any_in = |phases: &[Phase]| self.by_hand().iter().any(|step| phases.contains(&step.phase));
        let holders = any_in(&[Phase::UpdateClients, Phase::UpdateServers]).then_some(HOLDERS_BACK);
        let copies = any_in(&[Phase::Init]).then_some(COPIES_BACK);
        holders.into_iter().chain(copies)
    }
}
