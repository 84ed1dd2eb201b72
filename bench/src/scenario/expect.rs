//! What must hold after a run: a benchmark that computes wrongly fails, however fast it was.

use super::Scenario;
use crate::client::plan::Pace;
use crate::client::run::Outcome;

/// What the server says after the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// DBSIZE, if it was asked for.
    pub keys: Option<u64>,
}

/// Everything that does not hold; empty if the run may be believed.
pub fn check(scenario: &Scenario, outcome: &Outcome, found: Found) -> Vec<String> {
    let expect = &scenario.expect;
    let mut failures = Vec::new();
    for (load, plan) in outcome.loads.iter().zip(&scenario.plan.loads) {
        let tally = &load.tally;
        let mut fail = |text: String| failures.push(format!("load {}: {text}", load.name));
        let complaint = tally.complaint.as_deref().unwrap_or_default();
        if tally.wrong > 0 {
            fail(format!("{} wrong replies, the first: {complaint}", tally.wrong));
        }
        if tally.refused > expect.errors.unwrap_or(0) {
            fail(format!("{} error replies, the first bad reply: {complaint}", tally.refused));
        }
        if tally.unanswered > 0 {
            fail(format!("{} requests without a reply", tally.unanswered));
        }
        if load.requests == 0 {
            fail("no reply at all".into());
        }
        if let Some(lowest) = expect.hit_ratio
            && tally.hit_ratio() < lowest
        {
            fail(format!("hit ratio {:.4}, expected {lowest}", tally.hit_ratio()));
        }
        if let (Some(lowest), Pace::Open { rate, .. }) = (expect.rate_ratio, plan.pace) {
            let reached = load.requests as f64 / outcome.seconds;
            if reached < lowest * rate {
                fail(format!("{reached:.0} requests/s of {rate:.0}"));
            }
        }
    }
    if let (Some(expected), Some(keys)) = (expect.keys, found.keys)
        && keys != expected
    {
        failures.push(format!("the server holds {keys} keys, expected {expected}"));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, parse};
    use super::*;
    use crate::client::run::LoadOutcome;
    use crate::client::tally::Tally;

    const TEXT: &str = "about = 'x'\nkeys = { count = 100 }\nseconds = 1\n[[load]]\nmix = { get = 1 }\n\
                        rate = 100\n[expect]\nhit_ratio = 0.9\nkeys = 100\nrate_ratio = 0.9\n";

    fn failures(change: impl FnOnce(&mut LoadOutcome), keys: u64) -> String {
        let scenario = parse("t", TEXT, &Overrides::default()).expect("well formed").remove(0);
        let mut tally = Tally::new();
        tally.hits = 100;
        let mut load = LoadOutcome { name: "a".into(), requests: 100, tally };
        change(&mut load);
        let outcome = Outcome { loads: vec![load], seconds: 1.0, samples: Vec::new() };
        check(&scenario, &outcome, Found { keys: Some(keys) }).join("; ")
    }

    #[test]
    fn a_good_run_has_no_failures() {
        assert_eq!(failures(|_| {}, 100), "");
    }

    #[test]
    fn each_fault_is_told() {
        let has = |text: String, part: &str| assert!(text.contains(part), "{text}");
        has(failures(|_| {}, 99), "holds 99 keys");
        has(failures(|load| load.tally.wrong = 1, 100), "1 wrong replies");
        has(failures(|load| load.tally.refused = 2, 100), "2 error replies");
        has(failures(|load| load.tally.unanswered = 3, 100), "3 requests without");
        has(failures(|load| load.tally.misses = 100, 100), "hit ratio 0.5000");
        has(failures(|load| load.requests = 50, 100), "50 requests/s of 100");
        has(failures(|load| load.requests = 0, 100), "no reply");
    }
}
