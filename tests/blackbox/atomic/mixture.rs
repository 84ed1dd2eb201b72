//! Elements of every type that come and go: each is put somewhere once, and taken from there once.
//! Whoever takes one notes it, so that nothing is given twice; what is left must be all that was
//! put and not taken, but for what was on its way to somebody when the server was killed. Some
//! elements are put into three collections by one transaction and are in all of them or
//! in none; fields of a hash keep the deadlines that they were given.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, elements, ensure, expect, keys_in_turn, transaction, words,
};

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 3;

/// Where elements wait for somebody to take them.
const KINDS: [Kind; 5] = [Kind::List, Kind::Set, Kind::Sorted, Kind::Hash, Kind::Stream];

/// Elements of a kind that wait at most; then producers wait.
const WAITING_MAX: usize = 200;

/// A time that no test reaches.
const FAR_MS: i64 = 4_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    List,
    Set,
    Sorted,
    Hash,
    Stream,
}

/// How far an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked to be put there.
    Asked,
    /// There.
    Put,
    /// Somebody has it.
    Taken,
    /// A stream's that was given to somebody: that it was acknowledged is asked for.
    Acknowledging,
    /// It was never put there.
    Never,
}

/// What is known of the elements of a kind, by their names; a stream's with the id that it was
/// given with.
#[derive(Default)]
struct Book {
    states: BTreeMap<String, State>,
    /// Requests to take one that have no answer.
    taking: usize,
    ids: BTreeMap<String, String>,
}

/// The scene.
pub struct Mixture {
    keys: Vec<String>,
    /// Three collections with the same elements.
    trio: Vec<String>,
    fields: String,
    books: Mutex<[Book; 5]>,
    /// Of the trio and of the fields: how many were acknowledged, how many asked for.
    groups: Mutex<[(u64, u64); 2]>,
}

fn wrong(text: String) -> Halt {
    Halt::Wrong(text)
}

fn texts(reply: &Value) -> Vec<String> {
    match reply {
        Value::Array(values) => values.iter().map(Value::text).collect(),
        _ => Vec::new(),
    }
}

impl Mixture {
    /// Collections in all shards.
    pub fn new(shards: usize) -> Mixture {
        Mixture {
            keys: keys_in_turn("mixture", KINDS.len(), shards),
            trio: keys_in_turn("trio", 3, shards),
            fields: keys_in_turn("fields", 1, shards).remove(0),
            books: Mutex::default(),
            groups: Mutex::default(),
        }
    }

    fn with<T>(&self, kind: Kind, does: impl FnOnce(&mut Book) -> T) -> T {
        does(&mut self.books.lock().expect("nobody panics here")[kind as usize])
    }

    fn key(&self, kind: Kind) -> &str {
        &self.keys[kind as usize]
    }

    /// Puts an element there.
    fn put(&self, name: String, kind: Kind, client: &mut Client) -> Step {
        let is_full = self.with(kind, |book| {
            book.states.values().filter(|state| **state == State::Put).count() >= WAITING_MAX
        });
        if is_full {
            return Ok(false);
        }
        self.with(kind, |book| book.states.insert(name.clone(), State::Asked));
        let key = self.key(kind);
        let request = match kind {
            Kind::List => words(&["LPUSH", key, &name]),
            Kind::Set => words(&["SADD", key, &name]),
            Kind::Sorted => words(&["ZADD", key, "1", &name]),
            Kind::Hash => words(&["HSET", key, &name, "x"]),
            Kind::Stream => words(&["XADD", key, "*", "name", &name]),
        };
        let reply = client.try_call(&request)?;
        ensure(!reply.is_error(), || format!("{request:?}: {reply:?}"))?;
        self.with(kind, |book| {
            // Somebody may have it already.
            let state = book.states.get_mut(&name).expect("just noted");
            if *state == State::Asked {
                *state = State::Put;
            }
        });
        Ok(true)
    }

    /// Takes an element.
    fn take(&self, consumer: usize, kind: Kind, chance: &mut Chance, client: &mut Client) -> Step {
        let key = self.key(kind);
        let request = match (kind, chance.below(3)) {
            (Kind::List, 0) => words(&["BRPOP", key, "0.05"]),
            (Kind::List, 1) => words(&["LMPOP 1", key, "RIGHT COUNT 1"]),
            (Kind::List, _) => words(&["BLMPOP 0.05 1", key, "LEFT"]),
            (Kind::Set, _) => words(&["SPOP", key]),
            (Kind::Sorted, 0) => words(&["ZPOPMIN", key]),
            (Kind::Sorted, _) => words(&["BZPOPMAX", key, "0.05"]),
            (Kind::Hash, _) => return self.take_field(client),
            (Kind::Stream, _) => {
                let name = format!("consumer{consumer}");
                words(&["XREADGROUP GROUP group", &name, "COUNT 1 BLOCK 50 STREAMS", key, ">"])
            }
        };
        self.with(kind, |book| book.taking += 1);
        let reply = client.try_call(&request)?;
        self.with(kind, |book| book.taking -= 1);
        let name = match (kind, &reply) {
            (_, Value::Null | Value::NullArray) => return Ok(false),
            (_, Value::Array(parts)) if parts.is_empty() => return Ok(false),
            (Kind::List, Value::Array(parts)) => match &parts[1] {
                Value::Array(popped) => popped[0].text(),
                popped => popped.text(),
            },
            (Kind::Sorted, Value::Array(parts)) => parts[parts.len() - 2].text(),
            (Kind::Stream, Value::Array(_)) => return self.acknowledge(&reply, client),
            (_, Value::Bulk(_)) => reply.text(),
            _ => return Err(wrong(format!("{request:?}: {reply:?}"))),
        };
        self.taken(kind, &name)?;
        Ok(true)
    }

    fn taken(&self, kind: Kind, name: &str) -> Result<(), Halt> {
        let before = self.with(kind, |book| book.states.insert(name.into(), State::Taken));
        ensure(matches!(before, Some(State::Asked | State::Put)), || {
            format!("{kind:?} gave {name}, which was {before:?}")
        })
    }

    /// Reads a field and deletes it by one transaction: two may look at the same one, and one of
    /// them gets it.
    fn take_field(&self, client: &mut Client) -> Step {
        let key = self.key(Kind::Hash);
        let field = client.try_call(&words(&["HRANDFIELD", key]))?;
        let Value::Bulk(_) = field else { return Ok(false) };
        let name = field.text();
        self.with(Kind::Hash, |book| book.taking += 1);
        let reply = client.try_call(&words(&["HGETDEL", key, "FIELDS 1", &name]))?;
        self.with(Kind::Hash, |book| book.taking -= 1);
        if elements(reply, 1)?[0] == Value::Null {
            return Ok(false);
        }
        self.taken(Kind::Hash, &name)?;
        Ok(true)
    }

    /// An entry was given: it is never given again, and acknowledged once.
    fn acknowledge(&self, reply: &Value, client: &mut Client) -> Step {
        let entry = &reply.elements()[0].elements()[1].elements()[0];
        let (id, name) = (entry.elements()[0].text(), entry.elements()[1].elements()[1].text());
        self.taken(Kind::Stream, &name)?;
        self.with(Kind::Stream, |book| {
            book.states.insert(name.clone(), State::Acknowledging);
            book.ids.insert(name.clone(), id.clone());
        });
        let request = words(&["XACK", self.key(Kind::Stream), "group", &id]);
        expect(client, &request, &Value::Integer(1))?;
        self.with(Kind::Stream, |book| book.states.insert(name, State::Taken));
        Ok(true)
    }

    /// Puts the next number into all of the trio.
    fn join(&self, client: &mut Client) -> Step {
        let number = {
            let mut groups = self.groups.lock().expect("nobody panics here");
            groups[0].1 += 1;
            groups[0].1.to_string()
        };
        let [set, sorted, hash] = [0, 1, 2].map(|at| self.trio[at].as_str());
        let commands = [
            words(&["SADD", set, &number]),
            words(&["ZADD", sorted, &number, &number]),
            words(&["HSET", hash, &number, "x"]),
        ];
        let replies = elements(transaction(client, &commands)?, 3)?;
        ensure(replies.iter().all(|reply| *reply == Value::Integer(1)), || {
            format!("{number} in three collections: {replies:?}")
        })?;
        self.groups.lock().expect("nobody panics here")[0].0 += 1;
        Ok(true)
    }

    /// The three have the same elements, at any moment.
    fn compare(&self, client: &mut Client, last: &mut i64) -> Step {
        let counts = ["SCARD", "ZCARD", "HLEN"].iter().zip(&self.trio);
        let commands: Vec<_> = counts.map(|(name, key)| words(&[name, key])).collect();
        let counts: Vec<i64> =
            elements(transaction(client, &commands)?, 3)?.iter().map(Value::integer).collect();
        ensure(counts.iter().all(|count| *count == counts[0]), || format!("torn: {counts:?}"))?;
        Ok(std::mem::replace(last, counts[0]) != counts[0])
    }

    /// Gives the next field a deadline far off, and the one before it one that has passed.
    fn time(&self, client: &mut Client) -> Step {
        let number = {
            let mut groups = self.groups.lock().expect("nobody panics here");
            groups[1].1 += 1;
            groups[1].1
        };
        let (key, name) = (self.fields.as_str(), number.to_string());
        let deadline = (FAR_MS + number as i64).to_string();
        let before = (number - 1).to_string();
        let commands = [
            words(&["HSET", key, &name, "x"]),
            words(&["HPEXPIREAT", key, &deadline, "FIELDS 1", &name]),
            words(&["HPEXPIREAT", key, "1 FIELDS 1", &before]),
        ];
        transaction(client, &commands)?;
        self.groups.lock().expect("nobody panics here")[1].0 = number;
        Ok(true)
    }

    /// What is there of a kind.
    fn present(&self, kind: Kind, client: &mut Client) -> Result<Vec<String>, Halt> {
        let key = self.key(kind);
        let request = match kind {
            Kind::List => words(&["LRANGE", key, "0 -1"]),
            Kind::Set => words(&["SMEMBERS", key]),
            Kind::Sorted => words(&["ZRANGE", key, "0 -1"]),
            Kind::Hash => words(&["HKEYS", key]),
            Kind::Stream => return self.not_given(client),
        };
        Ok(texts(&client.try_call(&request)?))
    }

    /// The names of a stream's entries that were given to nobody. What was given and not
    /// acknowledged is looked at.
    fn not_given(&self, client: &mut Client) -> Result<Vec<String>, Halt> {
        let key = self.key(Kind::Stream);
        let pending = client.try_call(&words(&["XPENDING", key, "group - + 1000000"]))?;
        let pending: Vec<String> =
            pending.elements().iter().map(|one| one.elements()[0].text()).collect();
        self.with(Kind::Stream, |book| {
            let lost = pending.iter().filter(|id| !book.ids.values().any(|known| known == *id));
            let lost = lost.count();
            ensure(lost <= book.taking, || format!("{lost} were given to nobody who asked"))?;
            for (name, state) in &book.states {
                let is_pending = book.ids.get(name).is_some_and(|id| pending.contains(id));
                let may_be = *state == State::Acknowledging;
                ensure(!is_pending || may_be, || format!("{name} was acknowledged, and is not"))?;
            }
            Ok::<(), Halt>(())
        })?;
        for id in &pending {
            client.try_call(&words(&["XACK", key, "group", id]))?;
        }
        let groups = client.try_call(&words(&["XINFO GROUPS", key]))?;
        let last = groups.elements()[0].elements()[7].text();
        let request = words(&["XRANGE", key, &format!("({last}"), "+"]);
        let entries = client.try_call(&request)?;
        let name = |entry: &Value| entry.elements()[1].elements()[1].text();
        Ok(entries.elements().iter().map(name).collect())
    }

    fn settle_kind(&self, kind: Kind, client: &mut Client) -> Result<(), Halt> {
        let present = self.present(kind, client)?;
        self.with(kind, |book| {
            for name in &present {
                let state = book.states.get(name).copied();
                ensure(matches!(state, Some(State::Asked | State::Put)), || {
                    format!("{kind:?} has {name}, which was {state:?}")
                })?;
            }
            let mut unknown = std::mem::take(&mut book.taking);
            for (name, state) in &mut book.states {
                *state = match *state {
                    State::Asked | State::Put if present.contains(name) => State::Put,
                    State::Asked => State::Never,
                    State::Put => {
                        // It was on its way to somebody.
                        let was_taken = unknown > 0;
                        ensure(was_taken, || format!("{kind:?} has lost {name}"))?;
                        unknown -= 1;
                        State::Taken
                    }
                    State::Acknowledging => State::Taken,
                    state => state,
                };
            }
            Ok(())
        })
    }

    fn settle_groups(&self, client: &mut Client) -> Result<(), Halt> {
        let mut groups = self.groups.lock().expect("nobody panics here");
        let requests = ["SMEMBERS", "ZRANGE", "HKEYS"].iter().zip(&self.trio);
        let mut found = Vec::new();
        for (name, key) in requests {
            let more = if *name == "ZRANGE" { " 0 -1" } else { "" };
            let mut members = texts(&client.try_call(&words(&[name, &format!("{key}{more}")]))?);
            members.sort();
            found.push(members);
        }
        ensure(found.iter().all(|one| *one == found[0]), || "a torn trio".to_string())?;
        let (acknowledged, asked) = groups[0];
        let count = found[0].len() as u64;
        ensure((acknowledged..=asked).contains(&count), || {
            format!("{count} in the trio, {acknowledged} acknowledged, {asked} asked for")
        })?;
        // A number that was not put is not tried again: what is there counts from now on.
        groups[0].0 = count;
        let fields = texts(&client.try_call(&words(&["HKEYS", &self.fields]))?);
        let (acknowledged, asked) = groups[1];
        let last = if fields.is_empty() { 0 } else { number_of(&fields[0])? };
        ensure(fields.len() <= 1 && (acknowledged..=asked).contains(&last), || {
            format!("fields {fields:?}, {acknowledged} acknowledged, {asked} asked for")
        })?;
        if last > 0 {
            let request = words(&["HPEXPIRETIME", &self.fields, "FIELDS 1", &fields[0]]);
            let deadline = vec![Value::Integer(FAR_MS + last as i64)];
            expect(client, &request, &Value::Array(deadline))?;
        }
        groups[1] = (last, last);
        Ok(())
    }
}

fn number_of(text: &str) -> Result<u64, Halt> {
    text.parse().map_err(|_| wrong(format!("not a number: {text}")))
}

impl Scene for Mixture {
    fn prepare(&self, client: &mut Client) -> Result<(), Halt> {
        let stream = self.key(Kind::Stream);
        expect(client, &words(&["XGROUP CREATE", stream, "group 0 MKSTREAM"]), &Value::ok())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for producer in 0..PRODUCERS {
            let mut chance = Chance::seeded(chance.next());
            let (run, mut number) = (chance.next(), 0u64);
            actors.push(Actor::new("producer", move |client| {
                number += 1;
                let kind = KINDS[chance.below(KINDS.len() as u64) as usize];
                self.put(format!("{producer}:{run:x}:{number}"), kind, client)
            }));
        }
        for consumer in 0..CONSUMERS {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("consumer", move |client| {
                let kind = KINDS[chance.below(KINDS.len() as u64) as usize];
                self.take(consumer, kind, &mut chance, client)
            }));
        }
        actors.push(Actor::new("joiner", move |client| self.join(client)));
        let mut last = 0;
        actors.push(Actor::new("trio reader", move |client| self.compare(client, &mut last)));
        actors.push(Actor::new("timer", move |client| self.time(client)));
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        for kind in KINDS {
            self.settle_kind(kind, client)?;
        }
        self.settle_groups(client)
    }

    fn keys(&self) -> Vec<String> {
        [&self.keys[..], &self.trio[..], std::slice::from_ref(&self.fields)].concat()
    }

    fn shown(&self) -> String {
        let books = self.books.lock().expect("nobody panics here");
        let taken = |book: &Book| book.states.values().filter(|s| **s == State::Taken).count();
        let taken: Vec<usize> = books.iter().map(taken).collect();
        let groups = self.groups.lock().expect("nobody panics here");
        format!("mixture: {taken:?} taken, {} in three, {} fields", groups[0].0, groups[1].0)
    }
}
