//! The policy in virtual time: a machine whose cores, clients and other processes are numbers.

use super::*;
use proptest::prelude::*;

const TICK_MS: i64 = 100;

/// A server on a machine, as a load meets it.
struct Machine {
    now_ms: i64,
    policy: Policy,
    places: Vec<u16>,
    /// Requests per second that clients would send to each shard.
    asked: Vec<f64>,
    /// Seconds of a core for one request, on one core and on several.
    cost: (f64, f64),
    foreign: Vec<f64>,
    behind: Vec<f64>,
    steps: Vec<(i64, Step)>,
    served: f64,
}

impl Machine {
    fn new(cores: usize, shards: usize) -> Machine {
        Machine {
            now_ms: 0,
            policy: Policy::new(vec![0]),
            places: vec![0; shards],
            asked: vec![0.0; shards],
            cost: (10e-6, 10e-6),
            foreign: vec![0.0; cores],
            behind: vec![0.0; cores],
            steps: Vec::new(),
            served: 0.0,
        }
    }

    fn ask(&mut self, per_second: f64) {
        let shards = self.asked.len() as f64;
        self.asked.iter_mut().for_each(|asked| *asked = per_second / shards);
    }

    /// A tick: every core serves what it can.
    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        let cost = if self.policy.in_use().len() == 1 { self.cost.0 } else { self.cost.1 };
        let cores = self.foreign.len();
        let mut cores_seen = Vec::new();
        let mut loads = vec![0.0; self.asked.len()];
        for core in 0..cores {
            let here = |shard: &usize| usize::from(self.places[*shard]) == core;
            let shards: Vec<usize> = (0..self.asked.len()).filter(here).collect();
            let asked: f64 = shards.iter().map(|&shard| self.asked[shard]).sum();
            let room = 1.0 - self.foreign[core] / 2.0;
            let share = if asked > 0.0 { (room / (asked * cost)).min(1.0) } else { 0.0 };
            shards.iter().for_each(|&shard| loads[shard] = self.asked[shard] * share);
            let busy = (asked * cost).min(1.0);
            cores_seen.push(CoreSight {
                busy,
                ran: busy.min(room),
                behind: self.behind[core],
                foreign: Some(self.foreign[core]),
            });
        }
        self.served = loads.iter().sum();
        let shards: Vec<ShardSight> =
            self.places.iter().zip(loads).map(|(&core, load)| ShardSight { core, load }).collect();
        let (now_ms, commands) = (self.now_ms, self.served);
        let (cores, shards) = (&cores_seen[..], &shards[..]);
        let sight = Sight { now_ms, cores, shards, together: &[], commands };
        if let Some(step) = self.policy.decide(&sight) {
            for &(shard, core) in &step.moves {
                assert!(step.in_use.contains(&core), "{step:?}");
                assert_ne!(self.places[usize::from(shard)], core, "{step:?}");
                self.places[usize::from(shard)] = core;
            }
            assert!(self.places.iter().all(|core| step.in_use.contains(core)), "{step:?}");
            assert_eq!(step.in_use[0], 0);
            self.steps.push((now_ms, step));
        }
    }

    fn run(&mut self, ms: i64) {
        (0..ms / TICK_MS).for_each(|_| self.tick());
    }

    fn in_use(&self) -> usize {
        self.policy.in_use().len()
    }
}

#[test]
fn a_load_that_one_core_bears_stays_there() {
    let mut machine = Machine::new(8, 8);
    for share in [0.0, 0.3, 0.7, 0.1] {
        machine.ask(share * 100_000.0);
        machine.run(60_000);
    }
    assert_eq!(machine.steps, []);
}

#[test]
fn a_load_that_needs_more_cores_has_them_within_a_second_and_gives_them_back() {
    let mut machine = Machine::new(2, 2);
    machine.cost.1 = 12e-6;
    machine.ask(1e6);
    machine.run(1000);
    assert_eq!(machine.in_use(), 2);
    machine.run(60_000);
    assert_eq!((machine.in_use(), machine.steps.len()), (2, 1), "{:?}", machine.steps);
    assert!(matches!(machine.steps[0].1.why, Why::Busy(share) if share == 1.0));
    machine.ask(0.0);
    machine.run(SPARE_MS + 200);
    assert_eq!((machine.in_use(), machine.steps.len()), (1, 2));
    assert_eq!(machine.steps[1].1.why, Why::Spare);
    assert_eq!(machine.places, [0, 0]);
}

#[test]
fn a_large_machine_is_taken_in_a_few_steps() {
    let mut machine = Machine::new(64, 128);
    machine.ask(1e9);
    machine.run(12_000);
    assert_eq!(machine.in_use(), 64);
    assert!(machine.steps.len() <= 10, "{}", machine.steps.len());
    for core in 0..64 {
        assert_eq!(machine.places.iter().filter(|place| **place == core).count(), 2);
    }
}

#[test]
fn a_step_that_brings_nothing_is_taken_back_and_seldom_tried_again() {
    // Two cores that send each other requests serve less than one: the client is the limit.
    let mut machine = Machine::new(2, 2);
    machine.cost = (10e-6, 25e-6);
    machine.ask(95_000.0);
    machine.run(2000);
    assert_eq!((machine.in_use(), machine.steps.len()), (1, 2), "{:?}", machine.steps);
    assert_eq!(machine.steps[1].1.why, Why::InVain);
    machine.run(600_000);
    // After 10, 20, 40, 80, 160 and 320 seconds.
    assert!(machine.steps.len() <= 2 + 2 * 6, "{}", machine.steps.len());
    assert_eq!(machine.in_use(), 1);
}

#[test]
fn far_more_load_than_then_is_tried_at_once() {
    let mut machine = Machine::new(2, 2);
    machine.ask(80_000.0);
    machine.run(3000);
    assert_eq!(machine.steps.last().map(|(_, step)| step.why), Some(Why::InVain));
    machine.cost = (5e-6, 5e-6);
    machine.ask(1e6);
    machine.run(1500);
    assert_eq!(machine.in_use(), 2);
}

#[test]
fn a_cpu_that_others_keep_busy_is_not_taken_and_is_left() {
    let mut machine = Machine::new(3, 3);
    machine.foreign = vec![0.1, 0.9, 0.6];
    machine.ask(1e6);
    machine.run(10_000);
    assert_eq!(machine.steps, []);
    machine.foreign[2] = 0.2;
    machine.run(2000);
    assert_eq!(machine.policy.in_use(), [0, 2]);
    machine.foreign[2] = 0.95;
    machine.run(FOREIGN_MS + 300);
    assert_eq!(machine.policy.in_use(), [0]);
    assert_eq!(machine.steps.last().map(|(_, step)| step.why), Some(Why::Foreign(2)));
    machine.run(60_000);
    assert_eq!(machine.in_use(), 1, "not as long as it is busy");
}

#[test]
fn a_load_that_comes_and_goes_makes_no_more_steps_than_it_has_changes() {
    for period_ms in [500, 1000, 2000, 5000] {
        let mut machine = Machine::new(2, 2);
        let mut changes = 0;
        while machine.now_ms < 60_000 {
            machine.ask(if changes % 2 == 0 { 1e6 } else { 0.0 });
            machine.run(period_ms);
            changes += 1;
        }
        assert!(machine.steps.len() <= changes, "{period_ms}: {:?}", machine.steps);
    }
}

#[test]
fn hot_shards_are_dealt_apart_and_few_are_moved() {
    let shard = |core, load| ShardSight { core, load };
    // All on core 0, two of them hot.
    let shards = [shard(0, 100.0), shard(0, 1.0), shard(0, 100.0), shard(0, 1.0)];
    let moves = deal(&shards, &[], &[0, 1]);
    let place = |n: u16| moves.iter().find(|(s, _)| *s == n).map_or(0, |(_, core)| *core);
    assert_ne!(place(0), place(2));
    assert_ne!(place(1), place(3));
    assert_eq!(moves.len(), 2);
    // What is even already is left alone.
    let shards = [shard(0, 50.0), shard(1, 50.0), shard(0, 50.0), shard(1, 50.0)];
    assert_eq!(deal(&shards, &[], &[0, 1]), []);
    // Without load they are spread by number.
    let shards = [shard(3, 0.0); 8];
    let moves = deal(&shards, &[], &[3, 5]);
    assert_eq!(moves.len(), 4);
    // Those of cores that are left go, the others stay.
    let shards = [shard(0, 10.0), shard(1, 10.0), shard(2, 10.0)];
    assert_eq!(deal(&shards, &[], &[0, 1]), [(2, 0)]);
}

#[test]
fn requests_that_wait_longer_than_a_turn_have_more_cores_while_it_helps() {
    // Half busy, in bursts: what comes together waits for what came before it.
    let mut machine = Machine::new(2, 2);
    machine.ask(50_000.0);
    machine.run(5000);
    assert_eq!(machine.steps, []);
    machine.behind = vec![0.4, 0.0];
    machine.run(BUSY_MS + 200);
    assert_eq!(machine.steps.len(), 1, "{:?}", machine.steps);
    assert_eq!(machine.steps[0].1.why, Why::Behind(0.4));
    // Both wait less than the one did, and together too much for one.
    machine.behind = vec![0.1, 0.1];
    machine.run(60_000);
    assert_eq!((machine.in_use(), machine.steps.len()), (2, 1), "{:?}", machine.steps);
    machine.behind = vec![0.02, 0.02];
    machine.ask(10_000.0);
    machine.run(SPARE_MS + 200);
    assert_eq!((machine.in_use(), machine.steps.len()), (1, 2));
}

#[test]
fn cores_that_do_not_shorten_waiting_are_given_back() {
    let mut machine = Machine::new(2, 2);
    machine.ask(50_000.0);
    machine.behind = vec![0.4, 0.4];
    machine.run(TRIAL_MS + BUSY_MS + 300);
    let why: Vec<Why> = machine.steps.iter().map(|(_, step)| step.why).collect();
    assert_eq!(why, [Why::Behind(0.4), Why::InVain]);
    machine.run(REST_MS - 1000);
    assert_eq!(machine.steps.len(), 2, "not again for a while");
}

#[test]
fn shards_that_are_used_together_go_to_one_place() {
    let shard = |core, load| ShardSight { core, load };
    let pair = |a, b, load| Pair { shards: (a, b), load };
    let places = |shards: &[ShardSight], together: &[Pair], cores: &[u16]| {
        let mut places: Vec<u16> = shards.iter().map(|shard| shard.core).collect();
        for (shard, core) in deal(shards, together, cores) {
            places[usize::from(shard)] = core;
        }
        places
    };
    let even = [shard(0, 100.0); 4];
    // Without anything in common those that come first stay; with it, those that go together.
    assert_eq!(places(&even, &[], &[0, 1]), [0, 0, 1, 1]);
    let together = [pair(0, 2, 90.0), pair(1, 3, 90.0), pair(1, 2, 10.0)];
    assert_eq!(places(&even, &together, &[0, 1]), [0, 1, 0, 1]);
    // A chain is cut where a core is full.
    let chain = [pair(0, 2, 90.0), pair(1, 2, 80.0), pair(1, 3, 70.0)];
    assert_eq!(places(&even, &chain, &[0, 1]), [0, 1, 0, 1]);
    // What is seldom used together is not.
    assert_eq!(places(&even, &[pair(0, 2, 40.0)], &[0, 1]), [0, 0, 1, 1]);
    // All with all, as MGET of random keys: load goes first.
    let all = [pair(0, 1, 100.0)];
    assert_eq!(places(&[shard(0, 100.0); 2], &all, &[0, 1]), [0, 1]);
    // They go where the hotter one is, if it has to be somewhere.
    let apart = [shard(0, 60.0), shard(1, 40.0), shard(0, 50.0), shard(1, 50.0)];
    let found = places(&apart, &[pair(0, 1, 40.0)], &[0, 1]);
    assert_eq!(found, [0, 0, 1, 1]);
}

proptest! {
    /// Whatever the load does, steps are few and every shard is on a core in use.
    #[test]
    fn no_load_makes_it_restless(
        loads in proptest::collection::vec((0u32..40, 1i64..30), 1..60),
        cores in 1usize..9,
        shards in 1usize..20,
        cost in 10u32..40,
    ) {
        let mut machine = Machine::new(cores, shards);
        machine.cost.1 = f64::from(cost) * 1e-6;
        for (load, ticks) in loads {
            machine.ask(f64::from(load) * 20_000.0);
            machine.run(ticks * TICK_MS);
        }
        for steps in machine.steps.windows(3) {
            prop_assert!(steps[2].0 - steps[0].0 > TRIAL_MS, "{:?}", steps);
        }
        prop_assert!(machine.in_use() <= cores.min(shards));
    }
}
