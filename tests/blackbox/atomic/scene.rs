//! What a test of atomicity is made of: a scene owns some keys and says what must always hold of
//! them; its actors write and read them from a connection each, all at the same time, and watch
//! that it does.
//!
//! Actors run until every one of them has made enough progress (so a run in which nothing met is
//! not taken for a success), or until the server is killed under them. What was asked for and not
//! answered then is unknown, and the scene finds out with [`Scene::settle`].

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ringraft_shards::slot::{SLOT_COUNT, Slot, SlotScheme};

use crate::support::client::encode;
use crate::support::{Chance, Client, Server, Value, eventually};

/// Why an actor stopped.
#[derive(Debug)]
pub enum Halt {
    /// The connection ended.
    Gone(io::Error),
    /// Something that must hold does not.
    Wrong(String),
}

impl From<io::Error> for Halt {
    /// A reply that does not come in time is wrong; a connection that ends need not be.
    fn from(error: io::Error) -> Halt {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::InvalidData => {
                Halt::Wrong(format!("a request was not answered: {error}"))
            }
            _ => Halt::Gone(error),
        }
    }
}

/// What one step of an actor came to: did it do, or see, something new?
pub type Step = Result<bool, Halt>;

/// A connection's part in a scene.
pub struct Actor<'a> {
    name: &'static str,
    step: Box<dyn FnMut(&mut Client) -> Step + Send + 'a>,
}

impl<'a> Actor<'a> {
    /// An actor that takes this step again and again.
    pub fn new(name: &'static str, step: impl FnMut(&mut Client) -> Step + Send + 'a) -> Actor<'a> {
        Actor { name, step: Box::new(step) }
    }
}

/// Keys, what must hold of them, and who writes and reads them.
pub trait Scene {
    /// Puts the keys in their first state.
    fn prepare(&self, client: &mut Client) -> Result<(), Halt>;

    /// Everybody who takes part, each with chance of its own.
    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>>;

    /// Compares everything with what is known, while no actor runs: what was acknowledged is there,
    /// what was not is there whole or not at all. Learns which of it is.
    fn settle(&self, client: &mut Client) -> Result<(), Halt>;

    /// The keys, all of which anybody may write once the actors are gone.
    fn keys(&self) -> Vec<String>;

    /// What happened, for the output of the test.
    fn shown(&self) -> String;
}

/// When a run ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// Everybody has made this much progress.
    Progress(u64),
    /// The server is killed after this much progress of all actors together.
    Killed(u64),
}

/// Runs all actors of all scenes. Errors: what does not hold.
pub fn run(
    server: &mut Server,
    scenes: &[&dyn Scene],
    chance: &mut Chance,
    until: Until,
) -> Result<(), String> {
    let stop = AtomicBool::new(false);
    let violation: Mutex<Option<String>> = Mutex::default();
    let actors: Vec<Actor<'_>> = scenes.iter().flat_map(|scene| scene.actors(chance)).collect();
    let progress: Vec<AtomicU64> = actors.iter().map(|_| AtomicU64::new(0)).collect();
    let names: Vec<&str> = actors.iter().map(|actor| actor.name).collect();
    let clients: Vec<Client> = actors.iter().map(|_| server.client()).collect();
    std::thread::scope(|scope| {
        for ((mut actor, mut client), progress) in actors.into_iter().zip(clients).zip(&progress) {
            let (stop, violation) = (&stop, &violation);
            scope.spawn(move || {
                let halted = loop {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match (actor.step)(&mut client) {
                        Ok(news) => progress.fetch_add(u64::from(news), Ordering::Relaxed),
                        Err(halt) => break halt,
                    };
                };
                let text = match halted {
                    Halt::Wrong(text) => text,
                    Halt::Gone(_) if matches!(until, Until::Killed(_)) => return,
                    Halt::Gone(error) => format!("the connection ended: {error}"),
                };
                stop.store(true, Ordering::Relaxed);
                let mut first = violation.lock().expect("nobody panics here");
                first.get_or_insert(format!("{}: {text}", actor.name));
            });
        }
        let _stops = StopOnDrop(&stop);
        let made = || progress.iter().map(|made| made.load(Ordering::Relaxed));
        let (goal, reached): (u64, &dyn Fn() -> u64) = match until {
            Until::Progress(goal) => (goal, &|| made().min().expect("there are actors")),
            Until::Killed(goal) => (goal, &|| made().sum()),
        };
        // The patience is for some progress, not for all of it.
        loop {
            let before = reached();
            if before >= goal || stop.load(Ordering::Relaxed) {
                break;
            }
            let slowest = made().zip(&names).min().expect("there are actors");
            eventually(&format!("progress; the slowest is {slowest:?}"), || {
                (reached() > before || stop.load(Ordering::Relaxed)).then_some(())
            });
        }
        if matches!(until, Until::Killed(_)) {
            server.kill();
        }
    });
    violation.into_inner().expect("nobody panics here").map_or(Ok(()), Err)
}

/// Lets the actors end, also when the test panics, which then waits for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Settles every scene and shows that no key is locked any more.
pub fn settle(server: &Server, scenes: &[&dyn Scene]) -> Result<(), String> {
    let mut client = server.client();
    let mut settled = || -> Result<(), Halt> {
        for scene in scenes {
            scene.settle(&mut client)?;
            for key in scene.keys() {
                let reply = client.try_call(&["PERSIST", &key])?;
                ensure(reply == Value::Integer(0), || format!("PERSIST {key}: {reply:?}"))?;
            }
        }
        Ok(())
    };
    settled().map_err(|halt| match halt {
        Halt::Wrong(text) => format!("when all was quiet: {text}"),
        Halt::Gone(error) => format!("when all was quiet: the connection ended: {error}"),
    })
}

/// Keys of one scene that take turns among `shards` shards, beginning with the first.
pub fn keys_in_turn(prefix: &str, count: usize, shards: usize) -> Vec<String> {
    let mut numbers = 0..;
    (0..count)
        .map(|index| {
            numbers
                .by_ref()
                .map(|number: u32| format!("{prefix}:{number}"))
                .find(|key| shard_of(key, shards) == index % shards)
                .expect("numbers do not end")
        })
        .collect()
}

/// The shard that owns a key, of a server with `shards` of them.
pub fn shard_of(key: &str, shards: usize) -> usize {
    Slot::of_key(key.as_bytes(), SlotScheme::Codis).number() * shards / SLOT_COUNT
}

/// Unless it holds, it is wrong.
pub fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), Halt> {
    if holds { Ok(()) } else { Err(Halt::Wrong(text())) }
}

/// Sends one command; its reply must be this.
pub fn expect(client: &mut Client, arguments: &[String], expected: &Value) -> Result<(), Halt> {
    let reply = client.try_call(arguments)?;
    ensure(reply == *expected, || {
        format!("{} answered {reply:?}, not {expected:?}", arguments.join(" "))
    })
}

/// A command from words that are given one by one or with spaces between.
pub fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().flat_map(|part| part.split(' ')).map(str::to_owned).collect()
}

/// A command that takes all these keys.
pub fn with_keys(command: &str, keys: &[String]) -> Vec<String> {
    let mut arguments = words(&[command]);
    arguments.extend(keys.iter().cloned());
    arguments
}

/// A command that takes these keys with this value each.
pub fn with_pairs(command: &str, keys: &[String], value: &str) -> Vec<String> {
    let mut arguments = words(&[command]);
    for key in keys {
        arguments.extend([key.clone(), value.to_owned()]);
    }
    arguments
}

/// MULTI, the commands, EXEC, in one piece; the reply of EXEC. A command that is not queued is
/// wrong.
pub fn transaction(client: &mut Client, commands: &[Vec<String>]) -> Result<Value, Halt> {
    let mut bytes = encode(&["MULTI"]);
    commands.iter().for_each(|command| bytes.extend(encode(command)));
    bytes.extend(encode(&["EXEC"]));
    client.try_send(&bytes)?;
    let begun = client.try_read()?;
    ensure(begun == Value::ok(), || format!("MULTI answered {begun:?}"))?;
    for command in commands {
        let queued = client.try_read()?;
        ensure(queued == Value::Simple("QUEUED".into()), || {
            format!("{} in MULTI answered {queued:?}", command.join(" "))
        })?;
    }
    Ok(client.try_read()?)
}

/// The elements of an array of this size.
pub fn elements(reply: Value, count: usize) -> Result<Vec<Value>, Halt> {
    match reply {
        Value::Array(values) if values.len() == count => Ok(values),
        other => Err(Halt::Wrong(format!("not {count} values: {other:?}"))),
    }
}

/// A number of digits, or nothing.
pub fn number(value: &Value) -> Result<Option<u64>, Halt> {
    let parsed = match value {
        Value::Null => return Ok(None),
        Value::Bulk(digits) => std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    parsed.map(Some).ok_or_else(|| Halt::Wrong(format!("not a number: {value:?}")))
}

/// An array of so many numbers or nothings.
pub fn numbers(reply: Value, count: usize) -> Result<Vec<Option<u64>>, Halt> {
    elements(reply, count)?.iter().map(number).collect()
}

/// The one number that all of the values are.
pub fn same(values: &[Option<u64>]) -> Result<Option<u64>, Halt> {
    ensure(values.iter().all(|value| *value == values[0]), || format!("torn: {values:?}"))?;
    Ok(values[0])
}
