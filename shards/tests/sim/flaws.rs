//! Engines and machines that are broken on purpose: the simulator must notice each within so many seeds.

use crate::plan::{Flaw, Kind, Plan};
use crate::runner;

/// A plan with nothing but some kinds of faults.
fn only(seed: u64, flaw: Flaw, kinds: &[Kind]) -> Plan {
    let mut plan = Plan::new(seed);
    for kind in Kind::ALL {
        plan.set(*kind, kinds.contains(kind));
    }
    plan.flaw = flaw;
    plan.lease = flaw == Flaw::UncheckedLease;
    plan.think_us = 2_000;
    plan.fault_length_us = 200_000;
    plan
}

/// Each broken variant fails soon, and the same plans without the flaw do not.
pub fn broken_variants_are_caught() {
    let variants: [(Flaw, u64, &[Kind]); 5] = [
        (Flaw::SkippedSync, 20, &[Kind::Power, Kind::Blackout]),
        (Flaw::UnconfirmedReads, 100, &[Kind::Partition, Kind::ClockRate]),
        (Flaw::UncheckedLease, 300, &[Kind::Pause]),
        (Flaw::SkippedLock, 50, &[Kind::Pause]),
        (Flaw::ForgottenVote, 400, &[Kind::Kill, Kind::Power, Kind::Loss]),
    ];
    for (flaw, seeds, kinds) in variants {
        let broken = runner::run_many(0..seeds, false, |seed| only(seed, flaw, kinds));
        let first = broken.failures.first();
        let (seed, failure) = first.unwrap_or_else(|| panic!("{flaw:?}: missed by {seeds} seeds"));
        println!("{flaw:?}: seed {seed}: {}", failure.lines().next().unwrap_or_default());
        let sound = runner::run(only(*seed, Flaw::None, kinds), false);
        assert!(sound.failure.is_none(), "{flaw:?}: seed {seed} fails without the flaw");
    }
}
