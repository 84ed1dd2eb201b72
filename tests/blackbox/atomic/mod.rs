//! Commands with keys in several shards are atomic and isolated: nobody sees half of one, whoever
//! sees a later write sees the earlier ones, and after kill -9 all of a command is there or nothing
//! of it.
//!
//! The scenes know nothing of shards but where to put their keys, so what they demand holds of any
//! server that is right. `RINGRAFT_TEST_PEER=redis` runs all of this against the real redis-server.

mod bank;
mod derived;
mod group;
mod mixture;
mod moves;
mod pair;
mod presence;
mod rename;
pub mod scene;
mod whole;

use crate::support::{Chance, Program, Server, kill_cycles};

use bank::{Bank, Transfers};
use derived::Derived;
use group::{Group, Writing};
use mixture::Mixture;
use moves::Moves;
use pair::Pairs;
use presence::{Elections, Removals};
use rename::{Carrier, Rivals};
use scene::{Halt, Scene, Until, run, settle};
use whole::Whole;

/// What everybody must have done or seen that was new when `RINGRAFT_ATOMIC_PROGRESS` does not say.
const PROGRESS_DEFAULT: u64 = 300;

/// The same for the real redis-server as part of the usual tests.
const PROGRESS_OF_REDIS: u64 = 100;

/// A server is killed after at most this much progress of all together.
const PROGRESS_BEFORE_KILL: u64 = 2000;

/// Shards and further arguments of the servers whose scenes run without a kill.
const SHAPES: [(usize, &[&str]); 3] = [
    (2, &["--shards", "2", "--fsync", "no"]),
    (5, &["--shards", "5", "--fsync", "no"]),
    (4, &["--shards", "4", "--cores", "0", "--mode", "cache"]),
];

/// The program that `RINGRAFT_TEST_PEER` chooses.
fn program() -> Program {
    match std::env::var("RINGRAFT_TEST_PEER").as_deref() {
        Ok("redis") => Program::Redis,
        Ok(other) => panic!("RINGRAFT_TEST_PEER is redis or not there, not {other}"),
        Err(_) => Program::Ringraft,
    }
}

fn progress() -> u64 {
    match std::env::var("RINGRAFT_ATOMIC_PROGRESS") {
        Ok(text) => text.parse().expect("RINGRAFT_ATOMIC_PROGRESS is a number"),
        Err(_) => PROGRESS_DEFAULT,
    }
}

fn prepare(server: &Server, scenes: &[&dyn Scene]) {
    let mut client = server.client();
    for scene in scenes {
        match scene.prepare(&mut client) {
            Ok(()) => {}
            Err(Halt::Wrong(text)) => panic!("at the beginning: {text}"),
            Err(Halt::Gone(error)) => panic!("at the beginning: {error}"),
        }
    }
}

/// Runs scenes on one server until everybody has made progress. Errors: what does not hold.
fn play(
    server: &mut Server,
    scenes: &[&dyn Scene],
    chance: &mut Chance,
    goal: u64,
) -> Result<(), String> {
    prepare(server, scenes);
    run(server, scenes, chance, Until::Progress(goal))?;
    settle(server, scenes)?;
    scenes.iter().for_each(|scene| println!("{}", scene.shown()));
    Ok(())
}

fn holds(name: &str, scenes_of: impl Fn(usize) -> Vec<Box<dyn Scene>>) {
    let mut chance = Chance::new(name);
    for (shards, arguments) in SHAPES {
        let mut server = match program() {
            Program::Ringraft => Server::start(arguments),
            Program::Redis => Server::start_redis(&[]),
        };
        let scenes = scenes_of(shards);
        let scenes: Vec<&dyn Scene> = scenes.iter().map(Box::as_ref).collect();
        if let Err(text) = play(&mut server, &scenes, &mut chance, progress()) {
            panic!("{arguments:?}: {text}");
        }
    }
}

#[test]
fn keys_written_together_are_read_together() {
    holds("keys_written_together_are_read_together", |shards| {
        vec![Box::new(Group::new(shards, Writing::Atomic))]
    });
}

#[test]
fn a_value_has_one_of_two_names() {
    holds("a_value_has_one_of_two_names", |shards| {
        vec![Box::new(Rivals::new(shards)), Box::new(Carrier::new(shards))]
    });
}

#[test]
fn the_second_counter_is_never_ahead() {
    holds("the_second_counter_is_never_ahead", |shards| vec![Box::new(Pairs::new(shards))]);
}

#[test]
fn transfers_keep_the_sum() {
    holds("transfers_keep_the_sum", |shards| vec![Box::new(Bank::new(shards, Transfers::Atomic))]);
}

#[test]
fn derived_values_are_of_one_moment() {
    holds("derived_values_are_of_one_moment", |shards| vec![Box::new(Derived::new(shards))]);
}

#[test]
fn keys_come_and_go_together() {
    holds("keys_come_and_go_together", |shards| {
        vec![Box::new(Elections::new()), Box::new(Removals::new(shards))]
    });
}

#[test]
fn whole_keyspaces_are_flushed_and_swapped_at_once() {
    holds("whole_keyspaces_are_flushed_and_swapped_at_once", |shards| {
        vec![Box::new(Whole::new(shards))]
    });
}

#[test]
fn scripts_over_shards_keep_the_sum() {
    holds("scripts_over_shards_keep_the_sum", |shards| {
        vec![Box::new(Bank::new(shards, Transfers::Scripted))]
    });
}

/// Redis 7.0 has no deadlines of fields.
#[test]
fn elements_of_every_type_are_put_once_and_taken_once() {
    if program() == Program::Ringraft {
        holds("elements_of_every_type_are_put_once_and_taken_once", |shards| {
            vec![Box::new(Mixture::new(shards))]
        });
    }
}

fn everything(shards: usize) -> Vec<Box<dyn Scene>> {
    vec![
        Box::new(Group::new(shards, Writing::Atomic)),
        Box::new(Rivals::new(shards)),
        Box::new(Carrier::new(shards)),
        Box::new(Pairs::new(shards)),
        Box::new(Bank::new(shards, Transfers::Atomic)),
        Box::new(Derived::new(shards)),
        Box::new(Elections::new()),
        Box::new(Removals::new(shards)),
    ]
}

/// Everything at once, beside shards that move all the time.
#[test]
fn all_of_it_holds_while_shards_move() {
    let shapes: [(usize, bool, &[&str]); 4] = [
        (2, true, &["--shards", "2", "--fsync", "always"]),
        (5, true, &["--shards", "5", "--fsync", "everysec"]),
        (4, false, &["--shards", "4", "--mode", "cache"]),
        (3, false, &["--shards", "3", "--mode", "cache"]),
    ];
    let mut chance = Chance::new("all_of_it_holds_while_shards_move");
    let cores = cores_of_this_machine();
    for (shards, saves, arguments) in shapes {
        let alone: Vec<Box<dyn Scene>> = vec![Box::new(Whole::new(shards))];
        for mut scenes in [everything(shards), alone] {
            let mut server = Server::start(arguments);
            scenes.push(Box::new(Moves::new(shards, cores.min(shards), saves)));
            let scenes: Vec<&dyn Scene> = scenes.iter().map(Box::as_ref).collect();
            if let Err(text) = play(&mut server, &scenes, &mut chance, progress()) {
                panic!("{arguments:?}: {text}");
            }
        }
    }
}

fn cores_of_this_machine() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// kill -9 in the middle of it, again and again: what was acknowledged is there, nothing is there
/// by half, and every lock is released.
fn kill_and_settle(
    name: &str,
    shards: usize,
    arguments: &[&str],
    scenes: Vec<Box<dyn Scene>>,
    cycles: usize,
) {
    let mut chance = Chance::new(name);
    let mut server = match program() {
        Program::Ringraft => {
            Server::start(&[&["--shards", &shards.to_string()], arguments].concat())
        }
        Program::Redis => Server::start_redis(&["--appendonly", "yes", "--appendfsync", "always"]),
    };
    let scenes: Vec<&dyn Scene> = scenes.iter().map(Box::as_ref).collect();
    prepare(&server, &scenes);
    for cycle in 0..cycles {
        let goal = 1 + chance.below(PROGRESS_BEFORE_KILL);
        let again = chance.below(4) == 0;
        if program() == Program::Ringraft && chance.below(4) == 0 {
            let _ = server.client().try_call(&["BGSAVE"]);
        }
        let mut outcome = run(&mut server, &scenes, &mut chance, Until::Killed(goal));
        if again {
            server.launch_and_kill();
        }
        server.launch();
        outcome = outcome.and_then(|()| settle(&server, &scenes));
        if let Err(text) = outcome {
            panic!("cycle {cycle}, killed after {goal}: {text}");
        }
    }
    scenes.iter().for_each(|scene| println!("{name}, {cycles} kills: {}", scene.shown()));
}

#[test]
fn kills_leave_all_or_nothing_on_two_shards() {
    let cycles = kill_cycles().div_ceil(2);
    let name = "kills_leave_all_or_nothing_on_two_shards";
    kill_and_settle(name, 2, &["--fsync", "always"], everything(2), cycles);
}

/// Small segments and frequent snapshots: transactions are found in the log's recycled segments and
/// in snapshots.
#[test]
fn kills_leave_all_or_nothing_on_four_shards() {
    let storage = ["--fsync", "always", "--segment-size", "8mb", "--snapshot-log-bytes", "1mb"];
    let name = "kills_leave_all_or_nothing_on_four_shards";
    kill_and_settle(name, 4, &storage, everything(4), kill_cycles() / 2);
}

/// Shards move and snapshots are taken when the server is killed.
#[test]
fn kills_leave_all_or_nothing_while_shards_move() {
    let storage = ["--fsync", "always", "--segment-size", "8mb", "--snapshot-log-bytes", "1mb"];
    let mut scenes = everything(4);
    if program() == Program::Ringraft {
        scenes.push(Box::new(Moves::new(4, cores_of_this_machine().min(4), true)));
    }
    let name = "kills_leave_all_or_nothing_while_shards_move";
    kill_and_settle(name, 4, &storage, scenes, kill_cycles() / 2);
}

/// The same of collections of all types, blocking pops among them, and of scripts.
#[test]
fn kills_leave_all_or_nothing_of_collections_and_scripts() {
    if program() == Program::Ringraft {
        let scenes: Vec<Box<dyn Scene>> = vec![
            Box::new(Mixture::new(3)),
            Box::new(Bank::new(3, Transfers::Scripted)),
            Box::new(Moves::new(3, cores_of_this_machine().min(3), true)),
        ];
        let name = "kills_leave_all_or_nothing_of_collections_and_scripts";
        let storage = ["--fsync", "always", "--segment-size", "8mb", "--snapshot-log-bytes", "1mb"];
        kill_and_settle(name, 3, &storage, scenes, kill_cycles());
    }
}

/// What the operating system has survives the end of the process, whatever is synced when.
#[test]
fn kills_leave_all_or_nothing_of_flushes() {
    let cycles = kill_cycles() / 2;
    let scenes: Vec<Box<dyn Scene>> = vec![Box::new(Whole::new(3))];
    let name = "kills_leave_all_or_nothing_of_flushes";
    kill_and_settle(name, 3, &["--fsync", "everysec"], scenes, cycles);
}

/// What the scenes demand is what Redis does.
#[test]
fn the_scenes_hold_of_redis() {
    let mut chance = Chance::new("the_scenes_hold_of_redis");
    let alone: Vec<Box<dyn Scene>> = vec![Box::new(Whole::new(2))];
    for scenes in [everything(2), alone] {
        let scenes: Vec<&dyn Scene> = scenes.iter().map(Box::as_ref).collect();
        let mut server = Server::start_redis(&[]);
        play(&mut server, &scenes, &mut chance, PROGRESS_OF_REDIS).expect("Redis is atomic");
    }
}

/// Clients that write one key after the other are noticed, on any server.
#[test]
fn what_is_torn_is_noticed() {
    let mut chance = Chance::new("what_is_torn_is_noticed");
    let mut noticed = |scene: &dyn Scene, sign: &str| {
        let mut server = Server::start_program(program(), &[]);
        let outcome = play(&mut server, &[scene], &mut chance, u64::MAX);
        let text = outcome.expect_err("a torn write was not noticed");
        assert!(text.contains(sign), "{text}");
        println!("noticed: {text}");
    };
    noticed(&Group::new(2, Writing::OneByOne), "torn");
    noticed(&Bank::new(2, Transfers::OneByOne), "the sum of");
}
