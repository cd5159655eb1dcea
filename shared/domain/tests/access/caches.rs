//! Readers of key sets keep what they have read for a while, and holders what they were given: whatever is done in whatever
//! order, what should count does.

use std::collections::BTreeMap;

use domain::{
    Phase,
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Order, Rotate, Sign},
    event::{AuthorityKeyGenerated, Form, LeafUse},
    id::{Principal, SpkiPin, SystemActor},
    refusal::Code,
    time::{MINUTE_MS, SECOND_MS, Timestamp},
    trust::published,
};
use proptest::prelude::*;

use crate::{
    rotations::to,
    world::{World, admin, clock},
};

/// What may happen. Nothing is ever forced: force says whom it locks out.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// Time goes by, in seconds.
    Pass(u64),
    /// Somebody asks for a phase, whichever it is; refused more often than not.
    Enter(Phase),
    /// Somebody asks for the phase that follows, or for the way back where there is one.
    Step { back: bool },
    /// The signer makes the keys that are missing.
    MakeKeys,
    /// A token or a certificate is asked for, and signed at once or later.
    Ask { sign: bool },
    /// The signer signs what waits.
    SignWaiting,
    /// A reader looks at the key set.
    Read(usize),
    /// A person uses the newest certificate that there is of theirs.
    Use,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let phases = proptest::sample::select(Phase::ALL.to_vec());
    let one = prop_oneof![
        3 => (1..400_u64).prop_map(Move::Pass),
        1 => (400..1_200_u64).prop_map(Move::Pass),
        1 => phases.prop_map(Move::Enter),
        6 => proptest::bool::weighted(0.2).prop_map(|back| Move::Step { back }),
        3 => Just(Move::MakeKeys),
        4 => any::<bool>().prop_map(|sign| Move::Ask { sign }),
        2 => Just(Move::SignWaiting),
        3 => (0..READERS).prop_map(Move::Read),
        3 => Just(Move::Use),
    ];
    proptest::collection::vec(one, 1..80)
}

const READERS: usize = 3;

/// A type with what it signs for somebody without an agent.
struct Run {
    world: World,
    authority_type: AuthorityType,
    form: Form,
    holder: Principal,
    /// What each reader has kept, and since when.
    caches: [(Timestamp, Vec<SpkiPin>); READERS],
    /// What was handed out: the key that signed it, and the end of its life.
    held: Vec<(SpkiPin, Timestamp)>,
    /// What a person used last, and uses until they have used something newer.
    in_use: Option<(SpkiPin, Timestamp)>,
    /// Phases that were entered, to see that the moves get anywhere.
    entered: usize,
}

impl Run {
    fn new(authority_type: AuthorityType, form: Form) -> Self {
        let mut world = World::new();
        let key = AuthorityKey {
            kind: form.kind(),
            public_key: "key".into(),
            ..world.authority_key(1, None)
        };
        let fact = AuthorityKeyGenerated { authority_type, key };
        world.append(Principal::System(SystemActor::Signer), fact.into());
        let holder = Principal::External("app".into());
        let mut run = Self::of(world, authority_type, form, holder);
        (0..READERS).for_each(|reader| run.read(reader));
        run
    }

    fn of(world: World, authority_type: AuthorityType, form: Form, holder: Principal) -> Self {
        Self {
            world,
            authority_type,
            form,
            holder,
            caches: std::array::from_fn(|_| (Timestamp(0), vec![])),
            held: vec![],
            in_use: None,
            entered: 0,
        }
    }

    /// An administrator with the identity that `init` gave.
    fn with_a_person() -> Self {
        let mut run = Self::of(World::new(), AuthorityType::User, Form::Tls, admin());
        let (_, first) = run.world.newest(&admin());
        run.held.push((first.issuer, first.not_after));
        run.make(Move::Use);
        run
    }

    fn with_tokens() -> Self {
        let form = Form::Jwt {
            issuer: "https://ca".into(),
            audience: vec!["api".into()],
        };
        Self::new(AuthorityType::Jwt, form)
    }

    fn make(&mut self, one: Move) {
        match one {
            Move::Pass(seconds) => self.world.pass(seconds * SECOND_MS),
            Move::Enter(phase) => {
                let before = self.world.log.len();
                let _ = self.enter(phase);
                self.entered += usize::from(self.world.log.len() > before);
            }
            Move::Step { back } => {
                let phase = self.world.state.types[&self.authority_type].phase;
                let mut ways = phase.legal_targets();
                let way = if back { ways.last() } else { ways.next() };
                self.make(Move::Enter(way.expect("every phase has a way out")));
            }
            Move::MakeKeys => self.make_keys(),
            Move::Ask { sign } => {
                self.ask();
                if sign {
                    self.sign();
                }
            }
            Move::Use => self.present(),
            Move::SignWaiting => self.sign(),
            Move::Read(reader) => self.read(reader),
        }
    }

    fn ask(&mut self) {
        let (authority_type, key) = (self.authority_type, self.world.key());
        let (asker, order) = match &self.holder {
            Principal::External(name) => {
                let sign = Sign {
                    authority_type,
                    holder: name.parse().unwrap(),
                    form: self.form.clone(),
                    names: vec![],
                    addresses: vec![],
                    ttl_ms: None,
                    key,
                };
                (admin(), Order::Sign(Box::new(sign)))
            }
            person => {
                let order = Order::RequestCertificate {
                    authority_type,
                    usage: LeafUse::Client,
                    issuer: None,
                    form: self.form.kind(),
                    key,
                };
                (person.clone(), order)
            }
        };
        self.world.ask(asker, order).unwrap();
    }

    /// The control plane sees who comes to it.
    fn present(&mut self) {
        if !matches!(self.holder, Principal::User(_)) {
            return;
        }
        let holder = self.holder.clone();
        let (certificate, newest) = self.world.newest(&holder);
        let order = Order::PresentCredential { holder, certificate };
        self.world.ask(clock(), order).unwrap();
        self.in_use = Some((newest.issuer, newest.not_after));
    }

    fn enter(&mut self, phase: Phase) -> Result<(), Code> {
        let order = Order::Rotate(Rotate {
            authority_type: self.authority_type,
            ..to(Some(phase))
        });
        let answer = self.world.ask(admin(), order);
        answer.map(drop).map_err(|refusal| refusal.code)
    }

    fn make_keys(&mut self) {
        let of = &self.world.state.types[&self.authority_type];
        let Some(rotation) = of.rotation_id().filter(|_| of.phase != Phase::Rollback) else {
            return;
        };
        let (missing, generation): (Vec<_>, _) = (of.keys_missing().collect(), of.next_generation());
        for kind in missing {
            let authority_type = self.authority_type;
            let key = AuthorityKey {
                kind,
                public_key: "key".into(),
                ..self.world.authority_key(generation, Some(rotation))
            };
            let fact = AuthorityKeyGenerated { authority_type, key };
            self.world
                .append(Principal::System(SystemActor::Signer), fact.into());
        }
    }

    /// The signer signs what its own rules let it: an authority that is not live any more signs nothing.
    fn sign(&mut self) {
        let waiting: Vec<_> = self.world.state.pending.values().cloned().collect();
        for pending in waiting {
            let granted = pending.granted;
            let of = &self.world.state.types[&self.authority_type];
            let row = of.row(granted.form.kind());
            let by_hand = row.issuer_by_hand(self.authority_type, granted.usage);
            let is_now = granted.not_after > self.world.now && by_hand == Some(granted.issuer);
            if granted.authority_type == self.authority_type && is_now {
                self.world.sign_one(&granted);
                self.held.push((granted.issuer, granted.not_after));
            }
        }
    }

    fn read(&mut self, reader: usize) {
        let now = self.world.now;
        let keys = published(&self.world.state, self.authority_type, now);
        self.caches[reader] = (now, keys.map(|key| key.id).collect());
    }

    /// Every token that counts is verified by every reader, whose cache may be as old as it may be.
    fn tokens_are_taken(&self) {
        let (now, max_age) = (self.world.now, self.world.state.settings().jwks_max_age_ms);
        for (read, keys) in &self.caches {
            let fresh: Vec<SpkiPin>;
            // One that is too old looks again before it answers.
            let keys = if now.since_ms(*read) < max_age {
                keys
            } else {
                let set = published(&self.world.state, self.authority_type, now);
                fresh = set.map(|key| key.id).collect();
                &fresh
            };
            for (key, until) in self.held.iter().filter(|(_, until)| *until > now) {
                assert!(
                    keys.contains(key),
                    "a token that counts until {until} is refused by a reader of {read}"
                );
            }
        }
    }

    /// Every certificate that counts is of an authority that is trusted, but for those that were replaced by a later one;
    /// that of a person once they have used the later one.
    fn certificates_are_taken(&self) {
        let now = self.world.now;
        let of = &self.world.state.types[&self.authority_type];
        let meant = self.held.last().into_iter().chain(&self.in_use);
        for (issuer, until) in meant.filter(|(_, until)| *until > now) {
            assert!(
                of.live(*issuer).is_some(),
                "the newest certificate, or the one in use, counts until {until}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_makes_a_valid_token_fail(moves in moves()) {
        let mut run = Run::with_tokens();
        for one in moves {
            run.make(one);
            run.tokens_are_taken();
        }
    }

    #[test]
    fn no_schedule_makes_a_valid_certificate_fail(moves in moves()) {
        let form = Form::Ssh {
            principals: vec!["deploy".into()],
            critical_options: BTreeMap::new(),
            extensions: vec![],
        };
        let mut run = Run::new(AuthorityType::Openssh, form);
        for one in moves {
            run.make(one);
            run.certificates_are_taken();
        }
    }

    #[test]
    fn no_schedule_makes_a_valid_certificate_for_tls_fail(moves in moves()) {
        let mut run = Run::new(AuthorityType::Windows, Form::Tls);
        for one in moves {
            run.make(one);
            run.certificates_are_taken();
        }
    }

    #[test]
    fn no_schedule_shuts_a_person_out(moves in moves()) {
        let mut run = Run::with_a_person();
        for one in moves {
            run.make(one);
            run.certificates_are_taken();
        }
    }
}

/// The moves above get to the end of rotations, or they would show nothing.
#[test]
fn a_schedule_of_these_moves_goes_all_the_way() {
    let mut run = Run::with_tokens();
    let ask = Move::Ask { sign: true };
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        for one in [
            Move::Enter(phase),
            Move::MakeKeys,
            ask,
            Move::Read(0),
            Move::Pass(16 * MINUTE_MS / SECOND_MS),
        ] {
            run.make(one);
            run.tokens_are_taken();
        }
    }
    assert_eq!((run.entered, run.held.len()), (4, 4));
    assert_eq!(
        run.world.state.types[&AuthorityType::Jwt].active[&KeyKind::Jwt].generation,
        2
    );
}

/// A person who renews and comes back is never waited for longer than that.
#[test]
fn a_rotation_ends_once_the_person_has_used_the_new_identity() {
    let mut run = Run::with_a_person();
    for one in [
        Move::Enter(Phase::Init),
        Move::MakeKeys,
        Move::Enter(Phase::UpdateClients),
        Move::Ask { sign: true },
        Move::Enter(Phase::UpdateServers),
    ] {
        run.make(one);
        run.certificates_are_taken();
    }
    assert_eq!(run.enter(Phase::Standby), Err(Code::TimeCondition));
    run.make(Move::Use);
    assert_eq!(run.enter(Phase::Standby), Ok(()));
    run.certificates_are_taken();
}

/// After these moves a token of the key that goes still counts: the rotation does not end before the token does.
fn ends_after_its_tokens(moves: &[Move]) {
    let mut run = Run::with_tokens();
    for one in moves {
        run.make(*one);
    }
    let [(_, until)] = run.held[..] else {
        panic!("one token is handed out: {:?}", run.held)
    };
    assert!(run.world.now < until);
    assert_eq!(run.enter(Phase::Standby), Err(Code::TimeCondition));
    run.world.now = until;
    assert_eq!(run.enter(Phase::Standby), Ok(()));
}

#[test]
fn a_rotation_is_not_completed_while_a_token_of_the_old_key_counts() {
    ends_after_its_tokens(&[
        Move::Enter(Phase::Init),
        Move::MakeKeys,
        Move::Pass(6 * MINUTE_MS / SECOND_MS),
        Move::Ask { sign: true },
        Move::Enter(Phase::UpdateClients),
        Move::Enter(Phase::UpdateServers),
    ]);
}

#[test]
fn a_rotation_is_not_rolled_back_to_its_end_while_a_token_of_the_new_key_counts() {
    ends_after_its_tokens(&[
        Move::Enter(Phase::Init),
        Move::MakeKeys,
        Move::Pass(6 * MINUTE_MS / SECOND_MS),
        Move::Enter(Phase::UpdateClients),
        Move::Ask { sign: true },
        Move::Enter(Phase::Rollback),
    ]);
}
