//! Engines and machines that are broken on purpose: the simulator must notice each within so many
//! seeds.

use crate::plan::{Flaw, Kind, Plan};
use crate::runner;

/// A plan with nothing but some kinds of faults.
fn only(seed: u64, flaw: Flaw, kinds: &[Kind]) -> Plan {
    let mut plan = Plan::new(seed);
    for kind in Kind::ALL {
        plan.set(*kind, kinds.contains(kind));
    }
    plan.flaw = flaw;
    plan.lease = matches!(flaw, Flaw::UncheckedLease | Flaw::DriftingClocks);
    plan.queue_clients = match flaw {
        Flaw::ServedAgain | Flaw::EndedTooSoon | Flaw::Overtaking | Flaw::Untended => 8,
        _ => plan.queue_clients,
    };
    plan.readers = if flaw == Flaw::UnservedReaders { 4 } else { plan.readers };
    plan.multi_key_percent = match flaw {
        Flaw::UnconfirmedReads | Flaw::UncheckedLease | Flaw::DriftingClocks => 10,
        _ => 50,
    };
    plan.together |= matches!(flaw, Flaw::UnfencedNodes);
    (plan.clients, plan.keys_per_class, plan.patience_us) = (8, 2, 20_000);
    plan.think_us = 2_000;
    plan.duration_us = 2_000_000;
    plan.fault_every_us = 250_000;
    plan.fault_length_us = 150_000;
    plan
}

/// Broken variants, the number of seeds in which each must be noticed, and faults that bring it
/// out.
const VARIANTS: &[(Flaw, u64, &[Kind])] = {
    use Kind::*;
    &[
        (Flaw::SkippedSync, 20, &[Power, Blackout]),
        (Flaw::UnconfirmedReads, 100, &[Partition, ClockRate]),
        (Flaw::UncheckedLease, 100, &[Pause]),
        (Flaw::DriftingClocks, 200, &[Partition, ClockRate]),
        (Flaw::SkippedLock, 50, &[Pause]),
        (Flaw::StandingTime, 50, &[ClockJump]),
        (Flaw::FallingTime, 50, &[ClockJump]),
        (Flaw::ForgottenLocks, 50, &[Kill, TransactionCrash]),
        (Flaw::ForgottenVote, 400, &[Kill, Power, Loss]),
        (Flaw::UncheckedDirectory, 50, &[Wipe]),
        (Flaw::UnfencedNodes, 50, &[Membership]),
        (Flaw::ServedAgain, 50, &[]),
        (Flaw::EndedTooSoon, 50, &[]),
        (Flaw::Overtaking, 50, &[]),
        (Flaw::Untended, 50, &[]),
        (Flaw::UnservedReaders, 50, &[]),
        (Flaw::EarlyState, 400, &[Membership, Partition, Kill]),
        (Flaw::TakenTwice, 50, &[Membership, Kill]),
        (Flaw::ForgottenMeta, 50, &[Membership, Power, Blackout]),
        (Flaw::KeptReplica, 50, &[Flip]),
    ]
};

/// The plan of a seed with a flaw of this name.
pub fn plan(seed: u64, name: &str) -> Plan {
    let variant = VARIANTS.iter().find(|(flaw, ..)| format!("{flaw:?}") == name);
    let (flaw, _, kinds) = variant.unwrap_or_else(|| panic!("there is no flaw {name:?}"));
    only(seed, *flaw, kinds)
}

/// Each broken variant fails soon, and the same plans without the flaw do not.
pub fn broken_variants_are_caught() {
    for &(flaw, seeds, kinds) in VARIANTS {
        let broken = runner::run_many(0..seeds, false, |seed| only(seed, flaw, kinds));
        let first = broken.failures.first();
        let (seed, failure) = first.unwrap_or_else(|| panic!("{flaw:?}: missed by {seeds} seeds"));
        println!("{flaw:?}: seed {seed}: {}", failure.lines().next().unwrap_or_default());
        let sound = runner::run(only(*seed, Flaw::None, kinds), false);
        assert!(sound.failure.is_none(), "{flaw:?}: seed {seed} fails without the flaw");
    }
}
