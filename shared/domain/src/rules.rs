//! The rules that an exhaustive model showed to be necessary (\[M\] in the rules of the product).
//!
//! Each stands here once, is asked for by name where it is enforced, and can be switched off only in
//! a build with the feature `rule-switches`, which the product's build does not have: the simulation
//! switches one off and must then find the trace that loses a node.

/// A rule whose absence loses a node, keeps a retired authority accepted, or leaves no legal way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rule {
    /// Facts count only if measured under a desired state at or after the last change of the row.
    FactsAreFresh,
    /// Trust is compared as a set, for equality: more than the row is as little reached as less.
    TrustIsEqual,
    /// Only the roles in which a node uses a type count.
    OnlyRolesInUse,
    /// A node whose agent keeps a certificate for sshd has reached a phase only with one of the row.
    SshdsAreCounted,
    /// Members can be neither excluded nor overridden while they run.
    MembersAlwaysBind,
    /// A member's silence is counted at the earliest from the orchestrator's own start.
    SilenceCountsFromStart,
    /// No forward gate opens before the new keys are in the log; force does not override that.
    KeysBeforeForwardGates,
    /// The final standby waits for leaves held by parties without an agent.
    TimeConditionForward,
    /// So does the standby after a rollback.
    TimeConditionBack,
    /// On the way back a node that was never authorised a prepared certificate has reached.
    UntouchedHasReachedRollback,
    /// An exclusion holds for one rotation only.
    ExclusionEndsWithRotation,
    /// Scheduled steps are due one after another, never all at once.
    StepsFollowOneAnother,
    /// A lagging policy acts only after the orchestrator has been up long enough to hear the nodes.
    PolicyNeedsUptime,
    /// Rolling back takes new certificates; an earlier one is never reinstalled.
    NothingIsReinstalled,
    /// The signed revision orders rows; a lower one is ignored, also after a restart.
    RevisionsOnlyRise,
    /// A gateway hands out a desired state only after its own trust and certificates satisfy it.
    GatewayHoldsBeforeHandingOut,
    /// A certificate is installed only if its issuer is what the newest desired state names.
    InstallOnlyDesiredIssuer,
    /// A renewal takes the issuer of the current row.
    RenewalFollowsTheRow,
    /// After a start a node holds the current row before it serves.
    HoldBeforeServing,
    /// The key of the last generation that passed, and of every request in flight, is kept.
    KeepProvenAndInFlight,
    /// An installed bundle is the newest desired state of its type.
    BundleIsDesiredState,
    /// The answer to a join is the row at or after the position of `node.joined`.
    JoinAnswerIsCurrent,
    /// A key generated for a rotation that is over or rolling back is destroyed instead.
    LateKeyIsDestroyed,
}

impl Rule {
    /// Every rule, for tests that switch each one off.
    pub const ALL: [Self; 23] = [
        Self::FactsAreFresh,
        Self::TrustIsEqual,
        Self::OnlyRolesInUse,
        Self::SshdsAreCounted,
        Self::MembersAlwaysBind,
        Self::SilenceCountsFromStart,
        Self::KeysBeforeForwardGates,
        Self::TimeConditionForward,
        Self::TimeConditionBack,
        Self::UntouchedHasReachedRollback,
        Self::ExclusionEndsWithRotation,
        Self::StepsFollowOneAnother,
        Self::PolicyNeedsUptime,
        Self::NothingIsReinstalled,
        Self::RevisionsOnlyRise,
        Self::GatewayHoldsBeforeHandingOut,
        Self::InstallOnlyDesiredIssuer,
        Self::RenewalFollowsTheRow,
        Self::HoldBeforeServing,
        Self::KeepProvenAndInFlight,
        Self::BundleIsDesiredState,
        Self::JoinAnswerIsCurrent,
        Self::LateKeyIsDestroyed,
    ];
}

/// Does the rule hold? Always, in the product.
#[cfg(not(feature = "rule-switches"))]
#[inline(always)]
pub fn holds(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "rule-switches")]
pub use switches::{holds, without};

#[cfg(feature = "rule-switches")]
mod switches {
    use std::cell::Cell;

    use super::Rule;

    thread_local! { static OFF: Cell<Option<Rule>> = const { Cell::new(None) }; }

    /// Does the rule hold on this thread?
    pub fn holds(rule: Rule) -> bool {
        OFF.get() != Some(rule)
    }

    /// Runs `body` on this thread with one rule switched off.
    pub fn without<R>(rule: Rule, body: impl FnOnce() -> R) -> R {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                OFF.set(None);
            }
        }
        OFF.set(Some(rule));
        let _restore = Restore;
        body()
    }
}
