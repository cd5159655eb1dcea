//! Events in a few words, for whoever reads a failing run.

use domain::Fact;

/// An event in a few words.
pub(super) fn brief(fact: &Fact) -> String {
    match fact {
        Fact::RotationPhaseEntered(f) => {
            format!(
                "{} {} -> {} {:?} forced={} passed_over={:?}",
                f.authority_type, f.from, f.to, f.mode, f.forced, f.passed_over
            )
        }
        Fact::NodeReported(f) => format!("{} {:?}", f.node, f.report),
        Fact::AuthorizationGranted(f) => format!(
            "{} {} {:?} by {}",
            f.authorization,
            f.holder,
            f.usage,
            f.issuer.short()
        ),
        Fact::CertificateIssued(f) => format!(
            "{} {} {:?} by {}",
            f.authorization,
            f.holder,
            f.usage,
            f.issuer.short()
        ),
        Fact::AuthorityKeyGenerated(f) => format!(
            "{} {} for {:?}",
            f.authority_type,
            f.key.id.short(),
            f.key.rotation
        ),
        Fact::AuthorityBundleSigned(f) => format!("{} {} {}", f.authority_type, f.phase, f.revision),
        Fact::CommandRefused(f) => format!("{} {} {}: {}", f.principal, f.command, f.code, f.text),
        Fact::MemberStarted(f) => format!("{} {:?}", f.member, f.facts),
        Fact::MemberReported(f) => format!("{} {:?}", f.member, f.facts),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}
